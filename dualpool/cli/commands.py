"""The commands. What they need is imported when they run: the pooler is not loaded to print a version."""

from pathlib import Path

import click

from dualpool.cli.failures import Commands
from dualpool.cli.version import version_text
from dualpool.config import DEFAULT_BINDS, from_urls, load
from dualpool.config.client_urls import client_urls
from dualpool.config.reference import reference as reference_text
from dualpool.config.reference import schema_text
from dualpool.errors import ConfigError

DEFAULT_FILE = Path("dualpool.toml")
CONFIG_PATH = click.Path(dir_okay=False, path_type=Path)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """A connection pooler that PostgreSQL clients and MySQL clients connect to as if it were their database."""


@main.command()
@click.argument("file", required=False, type=CONFIG_PATH)
@click.option("-c", "--config", "option", type=CONFIG_PATH, metavar="FILE", help="The same as FILE.")
@click.option("--postgres", multiple=True, metavar="URL", help="A PostgreSQL server; may be given several times.")
@click.option("--mysql", multiple=True, metavar="URL", help="A MySQL server; may be given several times.")
@click.option("--bind-postgres", metavar="ADDR", help=f"Where PostgreSQL clients connect  [default: {DEFAULT_BINDS['postgres']}]")
@click.option("--bind-mysql", metavar="ADDR", help=f"Where MySQL clients connect  [default: {DEFAULT_BINDS['mysql']}]")
@click.option("--takeover", metavar="PIDFILE", default="", help="Once this one serves, let the process of PIDFILE finish (reuse_port).")
@click.pass_context
def run(
    ctx: click.Context,
    file: Path | None,
    option: Path | None,
    postgres: tuple[str, ...],
    mysql: tuple[str, ...],
    bind_postgres: str | None,
    bind_mysql: str | None,
    takeover: str,
) -> None:
    """Run the pooler.

    Either with a configuration FILE (default: dualpool.toml in this folder), or for the servers of some URLs.

    \b
    dualpool run conf/dualpool.toml
    dualpool run --postgres postgresql://app:secret@db.example.com/app
    dualpool run --postgres "$DATABASE_URL" --mysql mysql://root:secret@127.0.0.1/shop
    """
    path = file or option
    if file is not None and option is not None:
        raise click.UsageError("The configuration file is given twice.")
    if path is not None and (postgres or mysql or bind_postgres or bind_mysql):
        raise click.UsageError("Either a configuration file or URLs with their binds, not both.")
    if postgres or mysql:
        config = from_urls(
            postgres,
            mysql,
            bind_postgres=bind_postgres or DEFAULT_BINDS["postgres"],
            bind_mysql=bind_mysql or DEFAULT_BINDS["mysql"],
        )
    elif bind_postgres or bind_mysql:
        raise click.UsageError("--bind-postgres and --bind-mysql go with --postgres and --mysql.")
    else:
        path = path or default_file()
        config = load(path)
    from dualpool.cli.serving import serve

    ctx.exit(serve(config, path, takeover))


def default_file() -> Path:
    """The file that is used when nothing is said."""
    if not DEFAULT_FILE.exists():
        raise ConfigError(f"there is no {DEFAULT_FILE} here; name a configuration file, or a server: dualpool run --postgres URL")
    return DEFAULT_FILE


@main.command()
@click.option("--postgres/--no-postgres", default=True, help="A PostgreSQL server  [default: yes]")
@click.option("--mysql/--no-mysql", default=True, help="A MySQL or MariaDB server  [default: yes]")
@click.option(
    "--bind-postgres", metavar="ADDR", default=DEFAULT_BINDS["postgres"], show_default=True, help="Where PostgreSQL clients connect."
)
@click.option("--bind-mysql", metavar="ADDR", default=DEFAULT_BINDS["mysql"], show_default=True, help="Where MySQL clients connect.")
@click.option("--data-dir", type=click.Path(file_okay=False, path_type=Path), help="Where the data is kept  [default: the cache folder]")
@click.option("--fetch", is_flag=True, help="Download MariaDB if it is not there yet (Debian, Ubuntu).")
@click.pass_context
def dev(ctx: click.Context, postgres: bool, mysql: bool, bind_postgres: str, bind_mysql: str, data_dir: Path | None, fetch: bool) -> None:
    """Start databases for development with the pooler in front of them, until Ctrl-C."""
    from dualpool.dev.command import run as run_dev

    code = run_dev(postgres=postgres, mysql=mysql, bind_postgres=bind_postgres, bind_mysql=bind_mysql, data_dir=data_dir, fetch=fetch)
    ctx.exit(code)


@main.command()
@click.argument("command", required=False, default="SHOW HELP")
@click.option("--url", metavar="URL", help="The console: postgresql://user:password@host:port/dualpool, or mysql://.")
@click.option("-c", "--config", "file", type=CONFIG_PATH, metavar="FILE", help="The configuration that runs  [default: dualpool.toml]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def admin(command: str, url: str | None, file: Path | None, as_json: bool) -> None:
    """Give the admin console one COMMAND.

    \b
    dualpool admin "SHOW POOLS"
    dualpool admin "PAUSE app" --url postgresql://admin:secret@127.0.0.1:6543/dualpool
    dualpool admin --json "SHOW STATS"
    """
    from dualpool.admin.cli import ask
    from dualpool.admin.show import as_json as json_of
    from dualpool.admin.show import output

    answer = ask(console_url(url, file), command)
    if as_json:
        click.echo(json_of(answer))
    else:
        output(answer)


@main.command()
@click.option("--url", metavar="URL", help="The console: postgresql://user:password@host:port/dualpool, or mysql://.")
@click.option("-c", "--config", "file", type=CONFIG_PATH, metavar="FILE", help="The configuration that runs  [default: dualpool.toml]")
@click.option("--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Seconds between two pictures.")
@click.option("--once", is_flag=True, help="Print one picture.")
def top(url: str | None, file: Path | None, interval: float, once: bool) -> None:
    """Watch the pools, live, until q or Ctrl-C."""
    from dualpool.admin.cli import watch

    watch(console_url(url, file), interval, once=once)


def console_url(url: str | None, file: Path | None) -> str:
    """How to reach the console: as said, or as a configuration says."""
    from dualpool.admin.client import url_of

    if url is not None and file is not None:
        raise click.UsageError("Either --url or --config, not both.")
    return url or url_of(file or default_file())


@main.group()
def config() -> None:
    """Look at configurations."""


@config.command()
@click.argument("file", required=False, type=CONFIG_PATH)
def check(file: Path | None) -> None:
    """Tell everything that is wrong with a configuration.

    FILE is dualpool.toml in this folder if not given.
    """
    path = file or default_file()
    checked = load(path, resolve=True)
    for warning in checked.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{path}: ok ({checked.summary()})")


@config.command()
def schema() -> None:
    """Print a JSON schema of the file, for editors."""
    click.echo(schema_text(), nl=False)


@config.command()
def reference() -> None:
    """Print every key with its default."""
    click.echo(reference_text(), nl=False)


@config.command()
@click.argument("name")
@click.option("-c", "--config", "file", type=CONFIG_PATH, metavar="FILE", help="The configuration  [default: dualpool.toml]")
@click.option("--user", default="", help="Who logs in  [default: the first user of the file]")
@click.option("--show-password", is_flag=True, help="Put the password into the URLs.")
def url(name: str, file: Path | None, user: str, show_password: bool) -> None:
    """Print the URLs of a database for clients, one for each address that is listened on."""
    for found in client_urls(load(file or default_file()), name, user, show_password=show_password):
        click.echo(f"{found.url}  # listeners.{found.listener}, {found.pool_mode} mode")


@config.command("import")
@click.argument("file", type=CONFIG_PATH)
@click.option("--from", "kind", type=click.Choice(["pgbouncer", "proxysql"]), help="Whose file it is  [default: as it looks]")
@click.option("-o", "--output", type=CONFIG_PATH, metavar="FILE", help="Where to write  [default: standard output]")
def import_(file: Path, kind: str | None, output: Path | None) -> None:
    """Turn a pgbouncer.ini or a proxysql.cnf into a configuration of dualpool.

    What has no equivalent is told on standard error, and in the comments at the top of the result.
    """
    from dualpool.cli.importing import import_to

    import_to(output, file, kind or "")


@main.command()
@click.option("-d", "--daemon", is_flag=True, help="Run in the background.")
@click.option("-q", "--quiet", is_flag=True, help="Do not log to standard error.")
@click.option("-v", "--verbose", count=True, help="Log more; may be repeated.")
@click.option("-u", "--user", default="", metavar="USERNAME", help="Go on as this user of the system.")
@click.option("-R", "--reboot", is_flag=True, help="Replace the process of the pid file, once its clients have finished.")
@click.option("-V", "--version", "show_version", is_flag=True, help="Show the version, then exit.")
@click.argument("file", type=CONFIG_PATH, required=False, metavar="CONFIG_FILE")
@click.pass_context
def pgbouncer(
    ctx: click.Context, daemon: bool, quiet: bool, verbose: int, user: str, reboot: bool, show_version: bool, file: Path | None
) -> None:
    """Run a pgbouncer.ini, with PgBouncer's own options."""
    if show_version:
        click.echo(version_text())
        return
    if file is None:
        raise click.UsageError("Name a configuration file.")
    from dualpool.cli.serving import serve_ini

    ctx.exit(serve_ini(file, daemon=daemon, quiet=quiet, verbose=verbose, user=user, replacing=reboot))


@main.command()
def version() -> None:
    """Print what is running: versions, pure Python or compiled."""
    click.echo(version_text())
