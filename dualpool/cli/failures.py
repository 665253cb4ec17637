"""How a command fails: one clear message on standard error, no traceback. Exit code 2: the configuration; 1: anything else."""

import errno
from collections.abc import Iterator
from typing import Any

import click

from dualpool.errors import ConfigError, DualpoolError


class Failure(click.ClickException):
    """A message for the user, as it is."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        """Print the message without click's `Error: `, so that `file:line:` comes first."""
        click.echo(self.message, file=file, err=file is None)


class ConfigFailure(Failure):
    """The configuration, or an option, cannot be used."""

    exit_code = 2


class Commands(click.Group):
    """A group whose commands' expected errors become messages. Others are bugs, and keep their traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (DualpoolError, OSError, ExceptionGroup) as error:
            failure = as_failure(error)
            if failure is None:
                raise
            raise failure from None


def as_failure(error: Exception) -> Failure | None:
    """The message of an error, or None if it is not one that users can do something about."""
    errors = list(leaves(error))
    if not all(is_expected(leaf) for leaf in errors):
        return None
    messages = dict.fromkeys(message_of(leaf) for leaf in errors)
    kind = ConfigFailure if all(isinstance(leaf, ConfigError) for leaf in errors) else Failure
    return kind("\n".join(messages))


def leaves(error: Exception) -> Iterator[Exception]:
    """The errors in a group, or the error itself."""
    if isinstance(error, ExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def is_expected(error: Exception) -> bool:
    """Ours, or the system's. click itself looks after a closed pipe on standard output."""
    return isinstance(error, DualpoolError) or (isinstance(error, OSError) and error.errno != errno.EPIPE)


def message_of(error: Exception) -> str:
    """What happened, and what to do about it."""
    if isinstance(error, DualpoolError):
        return f"{error.message}\n{error.hint}" if error.hint else error.message
    return f"dualpool: {error}"
