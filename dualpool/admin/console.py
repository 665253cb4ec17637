"""The console's sessions: clients that are logged in to it, whichever protocol they speak."""

import select
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from dualpool.accounts import ClientLogin
from dualpool.admin.commands import Command, check_allowed, parse
from dualpool.admin.tables import Row, address, pointer
from dualpool.admission import application_name
from dualpool.answers import Answer, Column
from dualpool.errors import DualpoolError, QueryCanceled
from dualpool.exchange import CommandRunner, Stream, drive
from dualpool.protocol import ConnectionClosed, Engine

if TYPE_CHECKING:
    from dualpool.server import Server

WATCH_SECONDS: Final = 0.1
"""How often a command that waits looks whether its client is still there."""
HUNG_UP: Final = getattr(select, "POLLRDHUP", 0)
"""The other end will send nothing more. Where there is no such event, POLLHUP says it."""


class Console:
    """All sessions, by the id that their clients know as process or connection id."""

    def __init__(self, server: "Server") -> None:
        self.server = server
        self.sessions: dict[int, Session] = {}
        self.logins = 0
        self.commands = 0

    async def serve(self, stream: Stream, engine: Engine, login: ClientLogin, process_id: int, secret: bytes) -> None:
        """One client's session, from its welcome to its end."""
        session = Session(self, stream, login, process_id)
        self.sessions[process_id] = session
        self.logins += 1
        try:
            with session.whole:
                await drive(engine.console(login, process_id, secret), stream, commands=session)
        except (DualpoolError, ConnectionClosed):
            pass  # It has been told, or is gone.
        except Exception as error:
            self.server.log_fault(error, f"console session {process_id}")
        finally:
            del self.sessions[process_id]
            stream.transport().close()


class Session(CommandRunner):
    """A client of the console."""

    def __init__(self, console: Console, stream: Stream, login: ClientLogin, process_id: int) -> None:
        self.console = console
        self.stream = stream
        self.login = login
        self.id = process_id
        self.whole = trio.CancelScope()
        self.connected_at = self.asked_at = console.server.now()
        self._command = trio.CancelScope()
        self._canceled = False

    def describe(self, text: str) -> tuple[Column, ...] | None:
        """See CommandRunner."""
        return self._understood(text).columns

    async def run(self, text: str) -> Answer:
        """See CommandRunner. Raises QueryCanceled if `cancel` was called, ConnectionClosed if the client left during a long command."""
        command = self._understood(text)
        self.console.commands += 1
        self.asked_at = self.console.server.now()
        if command.order is not None:
            self.console.server.journal.ordered(self.login.account.user, text)
        return await (self._wait_for(command) if command.waits else self._run(command))

    async def _run(self, command: Command) -> Answer:
        """A fault of ours costs the command, not the process."""
        try:
            return await command.run(self.console.server)
        except DualpoolError:
            raise
        except Exception as error:
            self.console.server.log_fault(error, "the admin console")
            raise DualpoolError(f"internal error: {error!r}", hint="Please report it with the log of dualpool.") from error

    async def _wait_for(self, command: Command) -> Answer:
        """A command that may take long: until it is done, canceled, or nobody waits for it any more."""
        self._canceled = False
        answers: list[Answer | DualpoolError] = []
        async with trio.open_nursery() as nursery:
            self._command = nursery.cancel_scope
            nursery.start_soon(self._watch, nursery.cancel_scope)
            try:
                answers.append(await self._run(command))
            except DualpoolError as error:
                answers.append(error)
            nursery.cancel_scope.cancel()
        if not answers:
            raise QueryCanceled("canceling statement due to user request") if self._canceled else ConnectionClosed
        if isinstance(answers[0], DualpoolError):
            raise answers[0]
        return answers[0]

    def cancel(self) -> None:
        """The client's own cancel request: end the command that runs."""
        self._canceled = True
        self._command.cancel()

    def end(self) -> None:
        """End the session."""
        self.whole.cancel()

    def row(self, stamp: Callable[[float], str]) -> Row:
        """As SHOW CLIENTS tells it."""
        sock = self.stream.sock
        cipher = sock.cipher() if isinstance(sock, ssl.SSLSocket) else None
        tls = f"{cipher[1]}/{cipher[0]}" if cipher is not None else ""
        return (
            "C", self.login.account.user, self.login.account.database, "none", "active", *address(sock.getpeername),
            *address(sock.getsockname), stamp(self.connected_at), stamp(self.asked_at), 0, 0, 0, pointer(self), "", 0, tls,
            application_name(self.login.parameters), 0, self.id,
        )  # fmt: skip

    def _understood(self, text: str) -> Command:
        command = parse(text)
        check_allowed(command, admin=self.login.account.admin)
        return command

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Cancel `scope` when the client has gone away, even if it had said something before."""
        while not has_hung_up(self.stream.sock):  # noqa: ASYNC110
            await trio.sleep(WATCH_SECONDS)
        scope.cancel()


def has_hung_up(sock: socket.socket) -> bool:
    """Has the peer closed its end?"""
    poll = select.poll()
    poll.register(sock, HUNG_UP)
    return any(what & (HUNG_UP | select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, what in poll.poll(0))
