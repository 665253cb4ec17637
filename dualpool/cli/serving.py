"""Starting the pooler with a configuration, and with what a pgbouncer.ini says of its process."""

import signal
from pathlib import Path

import attrs

from dualpool import process
from dualpool.config import Config, load
from dualpool.config.importers.pgbouncer import ProcessSettings, process_settings
from dualpool.config.load import INI
from dualpool.signals import PGBOUNCER
from dualpool.surroundings import Surroundings


def serve(config: Config, path: Path | None, takeover: str = "") -> int:
    """Run until a signal; returns the exit code. A pgbouncer.ini also names a pid file, a log file and a user.

    `takeover`: a pid file. The process that it names is asked to finish as soon as we serve, and the file is ours.
    """
    if path is not None and path.suffix == INI:
        return serve_as(process_settings(path), config, path, quiet=False)
    from dualpool.server import main

    if not takeover:
        return main(config, path)
    with process.succession(takeover, signal.SIGTERM) as take_over:
        return main(config, path, Surroundings(when_ready=take_over))


def serve_ini(path: Path, *, daemon: bool, quiet: bool, verbose: int, user: str, replacing: bool) -> int:
    """As PgBouncer would with these options; returns the exit code. Raises ConfigError."""
    config = load(path)
    settings = process_settings(path)
    settings = attrs.evolve(settings, user=user or settings.user)
    if verbose:
        config = attrs.evolve(config, log=attrs.evolve(config.log, level="debug"))
    if daemon:
        process.check_background(settings)
    beside = replacing and all(listener.reuse_port for listener in config.listeners.values())
    if replacing and settings.pidfile and not beside:
        process.replace(settings.pidfile)
    return serve_as(settings, config, path, quiet=quiet, daemon=daemon, beside=beside)


def serve_as(settings: ProcessSettings, config: Config, path: Path, *, quiet: bool, daemon: bool = False, beside: bool = False) -> int:
    """Be the process that `settings` describe, with PgBouncer's words in the log.

    `beside`: the one that runs is asked to finish only when we serve.
    """
    if config.log.format == "auto":
        config = attrs.evolve(config, log=attrs.evolve(config.log, format="pgbouncer"))
    if settings.user:
        process.become(settings.user)
    process.log_elsewhere(settings, quiet=quiet or daemon)
    beside = beside and bool(settings.pidfile)
    if not beside:
        process.check_alone(settings.pidfile)
    if daemon:
        process.go_to_background()
    from dualpool.server import main

    if beside:
        with process.succession(settings.pidfile, signal.SIGINT) as take_over:
            return main(config, path, Surroundings(PGBOUNCER, when_ready=take_over))
    with process.pid_file(settings.pidfile):
        return main(config, path, Surroundings(PGBOUNCER))
