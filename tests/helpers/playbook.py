"""Driving an exchange by hand, and checking what it does as a transcript that fails with a diff. Knows no engine.

`Play` is one exchange with an imaginary peer: `feed()` what the peer sends, `take()` what it was sent. `transcript` says all that
happened, a line each, and `check(exchange, script)` compares it whole:

    result = check(frontend.accept(policy), [reads(startup), finds(account), sends(sasl), ...])
"""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import attrs

from dualpool.accounts import Account
from dualpool.errors import DualpoolError
from dualpool.protocol import (
    Command,
    ConnectionClosed,
    Exchange,
    FindAccount,
    Offload,
    Peek,
    Receive,
    ReceiveSome,
    Send,
    StartTls,
    TlsInfo,
)

R = TypeVar("R")
ANY_TLS = TlsInfo("TLSv1.3", "", "", b"", b"")


@attrs.frozen
class Step:
    """One line of a script: what the transcript must say, and what the imaginary peer does."""

    line: str
    bytes_in: bytes = b""
    end: bool = False
    answer: object = None


def reads(data: bytes) -> Step:
    """The peer sends `data`."""
    return Step(f"reads {data!r}", bytes_in=data)


def hangs_up() -> Step:
    """The peer closes the connection."""
    return Step("peer closed", end=True)


def sends(data: bytes) -> Step:
    """The exchange must send exactly `data`."""
    return Step(f"sends {data!r}")


def starts_tls(tls: TlsInfo | DualpoolError = ANY_TLS, alpn: str = "") -> Step:
    """The exchange must ask for TLS, and gets this result (or this error)."""
    return Step(f"starts TLS {alpn!r}", answer=tls)


def finds(account: Account | DualpoolError, parameters: dict[str, str] | None = None, user: str = "", database: str = "") -> Step:
    """The exchange must ask for this account, and gets it (or this error)."""
    if isinstance(account, Account):
        user, database = user or account.user, database or account.database
    return Step(f"finds {user!r} in {database!r} with {dict(sorted((parameters or {}).items()))}", answer=account)


def returns() -> Step:
    """The exchange must end without an error."""
    return Step("returns")


def fails(kind: type[Exception], message: str = "", sqlstate: str = "") -> Step:
    """The exchange must raise this."""
    return Step(_failure_line(kind.__name__, message, sqlstate))


def _failure_line(name: str, message: str, sqlstate: str) -> str:
    return f"raises {name} {sqlstate} {message!r}"


class Play(Generic[R]):
    """An exchange with a peer that the test plays. It runs by itself up to where it needs bytes, an answer, or is done.

    `chunk`: the most that ReceiveSome gets at once, so that every cut can be tried. `offloaded` counts the calls to a worker thread.
    """

    def __init__(self, exchange: Exchange[R], *, answers: Sequence[object] = (), chunk: int = 1 << 20) -> None:
        self._exchange = exchange
        self._answers = list(answers)
        self._chunk = chunk
        self._inbox = b""
        self._ended = False
        self._command: Command | None = None
        self._sent = b""
        self.transcript: list[str] = []
        self.offloaded = 0
        self.done = False
        self.result: R | None = None
        self.error: Exception | None = None
        self._resume(None)
        self._run()

    def feed(self, data: bytes) -> bytes:
        """The peer sends `data`; returns what the exchange sends then."""
        self.transcript.append(f"reads {data!r}")
        self._inbox += data
        self._run()
        return self.take()

    def hang_up(self) -> None:
        """The peer closes the connection."""
        self.transcript.append("peer closed")
        self._ended = True
        self._run()

    def answer(self, value: object) -> bytes:
        """Answer the StartTls or FindAccount that the exchange waits for; returns what it sends then."""
        self._answers.append(value)
        self._run()
        return self.take()

    def take(self) -> bytes:
        """What the exchange has sent since the last time."""
        sent, self._sent = self._sent, b""
        return sent

    @property
    def waiting_for(self) -> Command | None:
        """The command that cannot be answered yet."""
        return self._command

    @property
    def unread(self) -> bytes:
        """What the peer sent and the exchange left alone."""
        return self._inbox

    def _run(self) -> None:
        while not self.done and self._command is not None:
            try:
                ready, value = self._do(self._command)
            except ConnectionClosed as closed:
                self._resume(None, closed)
                continue
            if not ready:
                return
            if isinstance(value, DualpoolError):
                self._resume(None, value)
            else:
                self._resume(value)

    def _resume(self, value: object, error: Exception | None = None) -> None:
        try:
            self._command = self._exchange.send(value) if error is None else self._exchange.throw(error)
        except StopIteration as stop:
            self.done, self.result = True, stop.value
            self.transcript.append("returns")
        except Exception as failure:
            self.done, self.error = True, failure
            sqlstate = getattr(failure, "sqlstate", "")
            self.transcript.append(_failure_line(type(failure).__name__, getattr(failure, "message", str(failure)), sqlstate))

    def _do(self, command: Command) -> tuple[bool, object]:
        """Is the command done, and with what result?"""
        if isinstance(command, Send):
            self._sent += command.data
            self.transcript.append(f"sends {command.data!r}")
            return True, None
        if isinstance(command, Receive):
            return self._read(command.size, command.size, keep=False)
        if isinstance(command, ReceiveSome):
            return self._read(1, self._chunk, keep=False)
        if isinstance(command, Peek):
            return self._read(1, 1, keep=True)
        if isinstance(command, Offload):
            self.offloaded += 1
            return True, command.call()
        return self._ask(command)

    def _read(self, least: int, most: int, *, keep: bool) -> tuple[bool, object]:
        assert least > 0, "a read of nothing would wait for ever"
        if len(self._inbox) < least:
            if self._ended:
                raise ConnectionClosed
            return False, None
        data = self._inbox[:most]
        if not keep:
            self._inbox = self._inbox[most:]
        return True, data

    def _ask(self, command: Command) -> tuple[bool, object]:
        if not self._answers:
            return False, None
        if isinstance(command, StartTls):
            self.transcript.append(f"starts TLS {command.required_alpn!r}")
        else:
            assert isinstance(command, FindAccount), command
            parameters = dict(sorted(command.parameters.items()))
            self.transcript.append(f"finds {command.user!r} in {command.database!r} with {parameters}")
        return True, self._answers.pop(0)


def check(exchange: Exchange[R], script: Sequence[Step], *, chunk: int = 1 << 20) -> Play[R]:
    """Play `script`; what happens must be the script, line for line. Returns the play, for its `result` or `error`."""
    play = Play(exchange, chunk=chunk)
    for step in script:
        if step.bytes_in:
            play.feed(step.bytes_in)
        elif step.end:
            play.hang_up()
        elif step.answer is not None:
            play.answer(step.answer)
    assert play.transcript == [step.line for step in script]
    return play


def every_end(make: Callable[[], Exchange[R]], data: bytes, answers: Sequence[object] = ()) -> None:
    """Cut the peer's bytes at every place: each must end the exchange with ConnectionClosed or an error of ours, and nothing else."""
    for cut in range(len(data)):
        play = Play(make(), answers=answers)
        if cut:
            play.feed(data[:cut])
        play.hang_up()
        assert play.done, (cut, play.transcript)
        assert isinstance(play.error, (ConnectionClosed, DualpoolError)), (cut, play.transcript, play.error)
