"""Starting the pooler with a configuration, and with what a pgbouncer.ini says of its process."""

from pathlib import Path

import attrs

from dualpool import process
from dualpool.config import Config, Log, load
from dualpool.config.importers.pgbouncer import ProcessSettings, process_settings
from dualpool.config.load import INI


def serve(config: Config, path: Path | None) -> int:
    """Run until a signal; returns the exit code. A pgbouncer.ini also names a pid file, a log file and a user."""
    if path is not None and path.suffix == INI:
        return serve_as(process_settings(path), config, path, quiet=False)
    from dualpool.server import main

    return main(config, path)


def serve_ini(path: Path, *, daemon: bool, quiet: bool, verbose: int, user: str, replacing: bool) -> int:
    """As PgBouncer would with these options; returns the exit code. Raises ConfigError."""
    config = load(path)
    settings = process_settings(path)
    settings = attrs.evolve(settings, user=user or settings.user)
    if verbose:
        config = attrs.evolve(config, log=Log(level="debug", format=config.log.format))
    if daemon:
        process.check_background(settings)
    if replacing and settings.pidfile:
        process.replace(settings.pidfile)
    return serve_as(settings, config, path, quiet=quiet, daemon=daemon)


def serve_as(settings: ProcessSettings, config: Config, path: Path, *, quiet: bool, daemon: bool = False) -> int:
    """Be the process that `settings` describe."""
    if settings.user:
        process.become(settings.user)
    process.log_elsewhere(settings, quiet=quiet or daemon)
    process.check_alone(settings.pidfile)
    if daemon:
        process.go_to_background()
    with process.pid_file(settings.pidfile):
        from dualpool.server import main

        return main(config, path)
