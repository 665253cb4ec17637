"""Scripts for the two relays of PostgreSQL: who says what, and what must come out. Fed whole, cut, and byte by byte."""

from collections.abc import Callable, Iterator

import attrs

from dualpool.errors import DualpoolError, RemoteProtocolError
from dualpool.postgres import messages
from dualpool.postgres.client_relay import ClientRelay
from dualpool.postgres.server_relay import ServerRelay
from dualpool.protocol import FORWARD, NEEDS_SERVER, RELEASE, RESUMES, RelayLimits
from dualpool.state import DEFAULTS, Settings
from tests.helpers import frames
from tests.helpers.frames import LEXICAL

BASELINE = {"TimeZone": "UTC", "application_name": "", "is_superuser": "off", **LEXICAL}
Cutter = Callable[[int, bytes], list[bytes]]


@attrs.frozen
class Says:
    """One side says `data`; what then goes to each side, all pieces together, and the verdicts together."""

    side: str
    data: bytes
    to_server: bytes
    to_client: bytes
    verdict: int


@attrs.frozen
class Refused:
    """No server connection came for what waits."""

    error: DualpoolError
    to_client: bytes
    verdict: int = FORWARD


@attrs.frozen
class OtherClient:
    """Another client borrows the same server connection and does this with it; it must be released at the end of it."""

    script: tuple["Says", ...]


@attrs.frozen
class OtherServer:
    """From here on another server connection is used."""


Line = Says | Refused | OtherClient | OtherServer


def client(data: bytes, to_server: bytes | None = None, to_client: bytes = b"", verdict: int = FORWARD) -> Says:
    """The client says `data`, which goes to the server as it is unless `to_server` says otherwise."""
    return Says("client", data, data if to_server is None else to_server, to_client, verdict)


def server(data: bytes, to_client: bytes | None = None, to_server: bytes = b"", verdict: int = FORWARD) -> Says:
    """The server says `data`, which goes to the client as it is unless `to_client` says otherwise."""
    return Says("server", data, to_server, data if to_client is None else to_client, verdict)


def released(data: bytes, to_client: bytes | None = None) -> Says:
    """As `server`, and the lease is over."""
    return server(data, to_client, verdict=RELEASE)


@attrs.frozen
class Row:
    """A script and the circumstances. `pieces`: it may be cut anywhere and come out the same."""

    name: str
    script: tuple[Line, ...]
    limits: RelayLimits = attrs.field(factory=RelayLimits)
    start: Settings = DEFAULTS
    pieces: bool = True


class Play:
    """Two relays and what does link.py's part."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.client = ClientRelay(row.limits, row.start)
        self.server = ServerRelay(row.limits, dict(BASELINE))
        self.attached = False

    def run(self, cut: Cutter) -> None:
        """All lines; AssertionError where something else comes out."""
        for index, line in enumerate(self.row.script):
            if isinstance(line, Refused):
                verdict = self.client.refuse(line.error)
                assert (frames.show(self._take_client()), verdict) == (frames.show(line.to_client), line.verdict)
            elif isinstance(line, OtherServer):
                assert not self.attached
                self.server = ServerRelay(self.row.limits, dict(BASELINE))
            elif isinstance(line, OtherClient):
                assert not self.attached
                other = Play(Row("other", line.script, self.row.limits))
                other.server = self.server
                other.run(cut)
                assert not other.attached
            else:
                self._line(index, line, cut)

    def _line(self, index: int, line: Says, cut: Cutter) -> None:
        to_server, to_client, verdicts = b"", b"", 0
        for piece in cut(index, line.data):
            verdict = self.client.on_client_bytes(piece) if line.side == "client" else self._server_bytes(piece)
            while True:
                verdicts |= verdict & ~RESUMES
                to_server, to_client = to_server + self._take_server(), to_client + self._take_client()
                if verdict & NEEDS_SERVER:
                    self.attached = True
                    verdict = self.client.attach(self.server)
                elif verdict & RESUMES:
                    verdict = self.client.on_client_bytes(b"")
                elif verdict & RELEASE:
                    self.client.detach()
                    self.attached = False
                    verdict = self.client.on_client_bytes(b"")
                else:
                    break
        where = f"line {index}, {line.side}"
        compare(f"{where}: to the server", to_server, line.to_server)
        compare(f"{where}: to the client", to_client, line.to_client)
        assert verdicts == line.verdict, f"{where}: verdict"

    def _server_bytes(self, piece: bytes) -> int:
        assert self.attached, "the server says something to nobody"
        return self.server.on_server_bytes(piece)

    def _take_server(self) -> bytes:
        data = self.client.to_server + self.server.to_server
        self.client.to_server = self.server.to_server = b""
        return data

    def _take_client(self) -> bytes:
        data = self.client.to_client + self.server.to_client
        self.client.to_client = self.server.to_client = b""
        return data

    def junk(self) -> None:
        """Half a message behind the script changes nothing."""
        if self.attached:
            assert self.server.on_server_bytes(b"C\0\0\0\x20SEL") == FORWARD
        assert self.client.on_client_bytes(b"Q\0\0\0\x20sel") == FORWARD
        assert (self._take_server(), self._take_client()) == (b"", b"")


def compare(where: str, got: bytes, expected: bytes) -> None:
    """AssertionError with both, message by message, unless they are equal."""
    if got != expected:
        raise AssertionError(f"{where}:\n expected {_lines(expected)}\n got      {_lines(got)}")


def _lines(data: bytes) -> list[str]:
    try:
        return [line[:300] for line in frames.show(data)]
    except RemoteProtocolError:
        return [repr(data[:300])]


def whole(index: int, data: bytes) -> list[bytes]:
    """No cut."""
    return [data]


def by_size(size: int) -> Cutter:
    """Every line in pieces of `size` bytes."""
    return lambda index, data: [data[at : at + size] for at in range(0, len(data), size)]


def one_cut(line: int, position: int) -> Cutter:
    """One line cut in two."""
    return lambda index, data: [data[:position], data[position:]] if index == line and position < len(data) else [data]


def all_cuts(row: Row) -> Iterator[Cutter]:
    """Every way to cut one line of the script in two; big lines at some places only."""
    for index, line in enumerate(row.script):
        if isinstance(line, Says):
            size = len(line.data)
            places = range(1, size) if size < 2000 else [1, 4, 5, 6, 100, size // 2, 65_535, 65_536, 65_537, size - 6, size - 5, size - 1]
            for position in places:
                yield one_cut(index, position)


def error_message(error: DualpoolError) -> bytes:
    """As the client reads it."""
    return messages.error_message(error)
