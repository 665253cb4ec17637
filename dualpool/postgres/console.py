"""The admin console as PostgreSQL clients see it: simple and extended queries, text and binary values. Nothing here knows a command.

Drivers ask a server things of their own (BEGIN, SET extra_float_digits, SELECT 1, ...); `small_talk` answers those, and everything else is
a command. Source: docs, "Message Flow"; "Binary values": the send functions of the types.
"""

import re
from collections.abc import Callable
from struct import error as struct_error
from typing import Final

from dualpool import __version__
from dualpool.accounts import ClientLogin, ServerLogin
from dualpool.answers import Answer, Column, Done, Kind, Notice, Table, Value
from dualpool.errors import CommandRefused, DualpoolError, RemoteProtocolError
from dualpool.postgres import messages, wire
from dualpool.postgres.codec import check_length
from dualpool.postgres.frontend import welcome
from dualpool.protocol import DescribeCommand, Exchange, Receive, RunCommand, Send

MAX_MESSAGE: Final = 1 << 20
MAX_STATEMENTS: Final = 1000
TYPES: Final[dict[Kind, tuple[int, int]]] = {"text": (25, -1), "int4": (23, 4), "int8": (20, 8), "numeric": (1700, -1)}
"""OID and size."""
TEXT_OID: Final = 25
INTEGER_OIDS: Final = frozenset((20, 21, 23))
PARAMETERS: Final = {
    "server_version": f"15.0 (dualpool {__version__})",
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "standard_conforming_strings": "on",
    "integer_datetimes": "on",
    "is_superuser": "off",
    "default_transaction_read_only": "off",
    "in_hot_standby": "off",
}
"""What a client is told. The version is one that every driver takes, for it is the protocol that they choose by it."""


def serve(login: ClientLogin, process_id: int, secret: bytes) -> Exchange[None]:
    """See Engine.console."""
    yield Send(welcome(login, PARAMETERS, process_id, secret))
    yield from _Console(login).run()


def ask(login: ServerLogin, command: str) -> Exchange[Answer]:
    """See Engine.ask."""
    yield Send(wire.query(messages.raw(command)))
    columns: tuple[Column, ...] | None = None
    rows: list[tuple[Value, ...]] = []
    notices: list[Notice] = []
    tag, error = "", None
    while True:
        kind, length = wire.HEADER.unpack((yield Receive(wire.HEADER.size)))
        payload = (yield Receive(length - 4)) if length > 4 else b""
        if kind == wire.ROW_DESCRIPTION:
            columns = parse_row_description(payload)
        elif kind == wire.DATA_ROW:
            rows.append(parse_data_row(payload, columns or ()))
        elif kind == wire.COMMAND_COMPLETE:
            tag = messages.text(payload[:-1])
        elif kind == wire.NOTICE:
            said = messages.parse_report(payload)
            notices.append(Notice(said.get("M", ""), said.get("D", ""), "WARNING" if said.get("S") == "WARNING" else "NOTICE"))
        elif kind == wire.ERROR_RESPONSE:
            said = messages.parse_report(payload)
            error = CommandRefused(said.get("M", ""), hint=said.get("H", ""), sqlstate=said.get("C"))
        elif kind == wire.READY:
            break
    if error is not None:
        raise error
    return Done(tag, tuple(notices)) if columns is None else Table(columns, rows)


class _Statement:
    """A prepared command. `oids`: the types of its parameters; `columns`: None where it answers with no table."""

    def __init__(self, text: str, oids: list[int], columns: tuple[Column, ...] | None) -> None:
        self.text = text
        self.oids = oids
        self.columns = columns


class _Portal:
    """A command with its parameters in place; once it has run, the rows that are left."""

    def __init__(self, statement: _Statement, text: str, formats: list[int]) -> None:
        self.statement = statement
        self.text = text
        self.formats = formats
        self.answer: Answer | None = None
        self.position = 0


class _Console:
    """One client's session. What it is sent waits in `out` until the client expects it."""

    def __init__(self, login: ClientLogin) -> None:
        self.login = login
        self.out: list[bytes] = []
        self.status = wire.IDLE
        self.failed = False
        """After an error everything up to Sync is discarded."""
        self.statements: dict[str, _Statement] = {}
        self.portals: dict[str, _Portal] = {}
        self.handlers: Final[dict[int, Callable[[bytes], Exchange[None]]]] = {
            wire.PARSE: self._parse,
            wire.BIND: self._bind,
            wire.DESCRIBE: self._describe,
            wire.EXECUTE: self._execute,
            wire.CLOSE: self._close,
        }

    def run(self) -> Exchange[None]:
        while True:
            kind, length = wire.HEADER.unpack((yield Receive(wire.HEADER.size)))
            check_length(length)
            if length > MAX_MESSAGE:
                raise RemoteProtocolError(f"a message of {length} bytes is too long for the console")
            payload = (yield Receive(length - 4)) if length > 4 else b""
            if kind == wire.TERMINATE:
                return
            if kind == wire.QUERY:
                yield from self._query(messages.text(payload.removesuffix(b"\0")))
            elif kind == wire.SYNC:
                self.failed = False
                self.portals.clear()
                self._ready()
            elif kind in self.handlers and not self.failed:
                yield from self._guarded(self.handlers[kind], payload)
            elif kind not in self.handlers and kind != wire.FLUSH:
                self._fail(RemoteProtocolError(f"the console does not take messages of kind {chr(kind)!r}"))
            if kind in {wire.QUERY, wire.SYNC, wire.FLUSH}:
                yield from self._flush()

    def _flush(self) -> Exchange[None]:
        data, self.out = b"".join(self.out), []
        if data:
            yield Send(data)

    def _ready(self) -> None:
        self.out.append(wire.ready(self.status))

    def _fail(self, error: DualpoolError) -> None:
        self.failed = True
        if self.status == wire.IN_TRANSACTION:
            self.status = wire.FAILED
        self.out.append(messages.error_message(error))

    def _guarded(self, handler: Callable[[bytes], Exchange[None]], payload: bytes) -> Exchange[None]:
        try:
            yield from handler(payload)
        except DualpoolError as error:
            self._fail(error)
        except (IndexError, ValueError, struct_error):
            self._fail(RemoteProtocolError("malformed message"))

    # ------------------------------------------------------------------------------------------------------------------ simple

    def _query(self, text: str) -> Exchange[None]:
        commands = split(text)
        if not commands:
            self.out.append(wire.message(wire.EMPTY_QUERY, b""))
        try:
            for command in commands:
                answer = yield from self._run(command)
                self._show(answer)
        except DualpoolError as error:
            self._fail(error)
            self.failed = False
        self._ready()

    def _run(self, text: str) -> Exchange[Answer]:
        """Carry out one command. What was gathered is sent first if it takes time."""
        said = small_talk(text, self.login)
        if said is None:
            yield from self._flush()
            answer: Answer = yield RunCommand(text)
            return answer
        if isinstance(said, Done):
            self.status = TRANSACTION_STATUS.get(said.tag, self.status)
        return said

    def _show(self, answer: Answer) -> None:
        if isinstance(answer, Table):
            self.out.append(row_description(answer.columns, []))
            self.out += [data_row(answer.columns, row, []) for row in answer.rows]
        self._complete(answer)

    def _complete(self, answer: Answer) -> None:
        if isinstance(answer, Done):
            self.out += [notice(said) for said in answer.notices]
        tag = answer.tag if isinstance(answer, Done) else "SHOW"
        self.out.append(wire.message(wire.COMMAND_COMPLETE, wire.cstring(tag.encode())))

    # ---------------------------------------------------------------------------------------------------------------- extended

    def _parse(self, payload: bytes) -> Exchange[None]:
        reader = _Reader(payload)
        name, text = reader.string(), " ".join(split(reader.string())[:1])
        given = [reader.int32() for _ in range(reader.int16())]
        if len(self.statements) >= MAX_STATEMENTS:
            raise CommandRefused(f"the console keeps at most {MAX_STATEMENTS} prepared statements", sqlstate="54000")
        if name and name in self.statements:
            raise CommandRefused(f'prepared statement "{name}" already exists', sqlstate="42P05")
        count = max([int(number) for number in PLACEHOLDER.findall(text)], default=0)
        oids = [(given[index] if index < len(given) else 0) or TEXT_OID for index in range(max(count, len(given)))]
        self.statements[name] = _Statement(text, oids, (yield from self._columns(text)))
        self.out.append(wire.PARSE_COMPLETE_MESSAGE)

    def _columns(self, text: str) -> Exchange[tuple[Column, ...] | None]:
        if not text:
            return None
        said = small_talk(text, self.login)
        if said is not None:
            return said.columns if isinstance(said, Table) else None
        found: tuple[Column, ...] | None = yield DescribeCommand(text)
        return found

    def _statement(self, name: str) -> _Statement:
        if name not in self.statements:
            raise CommandRefused(f'prepared statement "{name}" does not exist', sqlstate="26000")
        return self.statements[name]

    def _portal(self, name: str) -> _Portal:
        if name not in self.portals:
            raise CommandRefused(f'portal "{name}" does not exist', sqlstate="34000")
        return self.portals[name]

    def _bind(self, payload: bytes) -> Exchange[None]:
        yield from ()
        reader = _Reader(payload)
        portal, statement = reader.string(), self._statement(reader.string())
        formats = [reader.int16() for _ in range(reader.int16())]
        values = [reader.value() for _ in range(reader.int16())]
        if len(values) != len(statement.oids):
            raise CommandRefused(f"the command has {len(statement.oids)} parameters, and {len(values)} values came")
        texts = [
            parameter(value, oid, format_of(formats, index)) for index, (value, oid) in enumerate(zip(values, statement.oids, strict=True))
        ]
        wanted = [reader.int16() for _ in range(reader.int16())]
        self.portals[portal] = _Portal(statement, PLACEHOLDER.sub(lambda found: quoted(texts[int(found[1]) - 1]), statement.text), wanted)
        self.out.append(wire.message(wire.BIND_COMPLETE, b""))

    def _describe(self, payload: bytes) -> Exchange[None]:
        yield from ()
        name = messages.text(payload[1:].removesuffix(b"\0"))
        formats: list[int] = []
        if payload[:1] == b"S":
            statement = self._statement(name)
            types = b"".join(wire.INT32.pack(oid) for oid in statement.oids)
            self.out.append(wire.message(wire.PARAMETER_DESCRIPTION, wire.INT16.pack(len(statement.oids)) + types))
        else:
            portal = self._portal(name)
            statement, formats = portal.statement, portal.formats
        described = wire.message(wire.NO_DATA, b"") if statement.columns is None else row_description(statement.columns, formats)
        self.out.append(described)

    def _execute(self, payload: bytes) -> Exchange[None]:
        reader = _Reader(payload)
        portal, limit = self._portal(reader.string()), reader.int32()
        if not portal.text:
            self.out.append(wire.message(wire.EMPTY_QUERY, b""))
            return
        if portal.answer is None:
            portal.answer = yield from self._run(portal.text)
        answer = portal.answer
        if isinstance(answer, Table):
            end = portal.position + limit if limit else len(answer.rows)
            self.out += [data_row(answer.columns, row, portal.formats) for row in answer.rows[portal.position : end]]
            portal.position = min(end, len(answer.rows))
            if end < len(answer.rows):
                self.out.append(wire.message(wire.PORTAL_SUSPENDED, b""))
                return
        self._complete(answer)

    def _close(self, payload: bytes) -> Exchange[None]:
        yield from ()
        kept: dict[str, _Statement] | dict[str, _Portal] = self.statements if payload[:1] == b"S" else self.portals
        kept.pop(messages.text(payload[1:].removesuffix(b"\0")), None)
        self.out.append(wire.message(wire.CLOSE_COMPLETE, b""))


# ---------------------------------------------------------------------------------------------------------------------- messages


class _Reader:
    """The fields of a message, one after the other. Raises IndexError, ValueError or struct.error where they are cut."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def string(self) -> str:
        end = self.data.index(0, self.position)
        value = self.data[self.position : end]
        self.position = end + 1
        return messages.text(value)

    def int16(self) -> int:
        self.position += 2
        return int(wire.INT16.unpack_from(self.data, self.position - 2)[0])

    def int32(self) -> int:
        self.position += 4
        return int(wire.INT32.unpack_from(self.data, self.position - 4)[0])

    def value(self) -> bytes | None:
        size = self.int32()
        if size == 0xFFFFFFFF:
            return None
        start, self.position = self.position, self.position + size
        if self.position > len(self.data):
            raise ValueError
        return self.data[start : self.position]


def format_of(formats: list[int], index: int) -> int:
    """0 (text) or 1 (binary): none given means text, one holds for all (docs: Bind)."""
    if not formats:
        return 0
    return formats[0] if len(formats) == 1 else formats[index]


def parameter(value: bytes | None, oid: int, form: int) -> str:
    """A parameter as text. Raises CommandRefused for NULL, which means nothing in a command."""
    if value is None:
        raise CommandRefused("a parameter is NULL")
    if form and oid in INTEGER_OIDS:
        return str(int.from_bytes(value, "big", signed=True))
    return messages.text(value)


def quoted(text: str) -> str:
    """A word of a command, whatever it holds."""
    return "'" + text.replace("'", "''") + "'"


def row_description(columns: tuple[Column, ...], formats: list[int]) -> bytes:
    """RowDescription."""
    fields = [wire.INT16.pack(len(columns))]
    for index, column in enumerate(columns):
        oid, size = TYPES[column.kind]
        fields.append(wire.cstring(messages.raw(column.name)) + bytes(6) + wire.INT32.pack(oid))
        fields.append(wire.INT16.pack(size & 0xFFFF) + b"\xff\xff\xff\xff" + wire.INT16.pack(format_of(formats, index)))
    return wire.message(wire.ROW_DESCRIPTION, b"".join(fields))


def data_row(columns: tuple[Column, ...], row: tuple[Value, ...], formats: list[int]) -> bytes:
    """DataRow."""
    parts = [wire.INT16.pack(len(row))]
    for index, (column, value) in enumerate(zip(columns, row, strict=True)):
        if value is None:
            parts.append(b"\xff\xff\xff\xff")
            continue
        data = BINARY[column.kind](value) if format_of(formats, index) else messages.raw(str(value))
        parts.append(wire.INT32.pack(len(data)) + data)
    return wire.message(wire.DATA_ROW, b"".join(parts))


def parse_row_description(payload: bytes) -> tuple[Column, ...]:
    """The columns of a RowDescription; types that the console does not have are text."""
    reader = _Reader(payload)
    kinds = {oid: kind for kind, (oid, _) in TYPES.items()}
    columns: list[Column] = []
    for _ in range(reader.int16()):
        name = reader.string()
        reader.position += 6
        columns.append(Column(name, kinds.get(reader.int32(), "text")))
        reader.position += 8
    return tuple(columns)


def parse_data_row(payload: bytes, columns: tuple[Column, ...]) -> tuple[Value, ...]:
    """The values of a DataRow in text form."""
    reader = _Reader(payload)
    reader.int16()
    values = [(column, reader.value()) for column in columns]
    return tuple(None if value is None else messages.text(value) if column.kind == "text" else int(value) for column, value in values)


def binary_numeric(value: Value) -> bytes:
    """numeric_send of an integer: digits of base 10,000, without the zeros at its end."""
    number = int(value or 0)
    digits: list[int] = []
    rest = abs(number)
    while rest:
        rest, digit = divmod(rest, 10_000)
        digits.insert(0, digit)
    weight = max(0, len(digits) - 1)
    while digits and not digits[-1]:
        digits.pop()
    head = (len(digits), weight, 0x4000 if number < 0 else 0, 0)
    return b"".join(wire.INT16.pack(part) for part in (*head, *digits))


BINARY: Final[dict[Kind, Callable[[Value], bytes]]] = {
    "text": lambda value: messages.raw(str(value)),
    "int4": lambda value: int(value or 0).to_bytes(4, "big", signed=True),
    "int8": lambda value: int(value or 0).to_bytes(8, "big", signed=True),
    "numeric": binary_numeric,
}


def notice(said: Notice) -> bytes:
    """A NoticeResponse."""
    fields = [("S", said.severity), ("V", said.severity), ("C", "01000" if said.severity == "WARNING" else "00000"), ("M", said.message)]
    if said.detail:
        fields.append(("D", said.detail))
    return wire.message(wire.NOTICE, b"".join(kind.encode() + wire.cstring(messages.raw(value)) for kind, value in fields) + b"\0")


# -------------------------------------------------------------------------------------------------------------------------- text

PLACEHOLDER: Final = re.compile(r"\$([1-9][0-9]{0,3})\b")
TOKEN: Final = re.compile(r"""--[^\n]*|/\*.*?(?:\*/|$)|'(?:[^']|'')*'?|"(?:[^"]|"")*"?|;|[^;'"/-]+|.""", re.DOTALL)


def split(text: str) -> list[str]:
    """The commands in a text, without comments; empty ones are left out."""
    commands = [""]
    for token in TOKEN.findall(text):
        if token == ";":
            commands.append("")
        else:
            commands[-1] += " " if token.startswith(("--", "/*")) else token
    return [command.strip() for command in commands if command.strip()]


TRANSACTION_STATUS: Final = {"BEGIN": wire.IN_TRANSACTION, "COMMIT": wire.IDLE, "ROLLBACK": wire.IDLE}
TRANSACTION_WORDS: Final = {
    "begin": "BEGIN",
    "start": "BEGIN",
    "commit": "COMMIT",
    "end": "COMMIT",
    "rollback": "ROLLBACK",
    "abort": "ROLLBACK",
}
IGNORED_WORDS: Final = frozenset(("reset", "discard", "deallocate", "close", "unlisten", "savepoint", "release", "listen"))
DRIVER_SETTINGS: Final = frozenset(
    (
        "application_name", "bytea_output", "client_encoding", "client_min_messages", "datestyle", "extra_float_digits",
        "idle_in_transaction_session_timeout", "intervalstyle", "lock_timeout", "names", "row_security", "search_path",
        "standard_conforming_strings", "statement_timeout", "time", "timezone", "transaction", "session",
    )
)  # fmt: skip
"""What drivers SET for themselves. Here it changes nothing."""
SET: Final = re.compile(r"set\s+(?:(?:session|local)\s+(?!characteristics))?([a-z_]+)", re.IGNORECASE)
SELECT: Final = re.compile(r"select\s+(?:pg_catalog\.)?(.+?)(?:\s+as\s+\"?(\w+)\"?)?", re.IGNORECASE | re.DOTALL)
SETTING: Final = re.compile(r"(?:show\s+|current_setting\(')([\w ]+?)(?:'\))?", re.IGNORECASE)


def small_talk(text: str, login: ClientLogin) -> Answer | None:
    """The answer to what a driver says for itself; None for everything else: that is a command."""
    word = text.partition(" ")[0].lower()
    if word in TRANSACTION_WORDS:
        return Done(TRANSACTION_WORDS[word])
    if word in IGNORED_WORDS:
        return Done(word.upper())
    if word == "set":
        found = SET.match(text)
        return Done("SET") if found and found[1].lower() in DRIVER_SETTINGS else None
    if word == "select":
        return _selected(text, login)
    if word == "show" and (found := SETTING.fullmatch(text)) and (value := _parameter_named(found[1])) is not None:
        return Table((Column(found[1].lower().replace(" ", "_")),), [(value,)])
    return None


def _selected(text: str, login: ClientLogin) -> Table | None:
    """SELECT of one number, or of one of the functions that drivers call."""
    found = SELECT.fullmatch(text)
    if found is None:
        return None
    expression, alias = found[1].strip().lower(), found[2]
    if expression.isdecimal() and len(expression) < 10:
        return Table((Column(alias or "?column?", "int4"),), [(int(expression),)])
    name, known = expression.partition("(")[0], _known(expression, login)
    return None if known is None else Table((Column(alias or name),), [(known,)])


def _known(expression: str, login: ClientLogin) -> str | None:
    setting = SETTING.fullmatch(expression)
    if setting is not None:
        return _parameter_named(setting[1])
    return {
        "version()": f"PostgreSQL {PARAMETERS['server_version']}",
        "current_database()": login.account.database,
        "current_schema()": "public",
        "current_schema": "public",
        "current_user": login.account.user,
        "session_user": login.account.user,
        "pg_is_in_recovery()": "f",
        "pg_advisory_unlock_all()": "",
    }.get(expression)


def _parameter_named(name: str) -> str | None:
    lowered = name.lower()
    if lowered in {"transaction isolation level", "transaction_isolation"}:
        return "read committed"
    if lowered == "transaction_read_only":
        return "off"
    return next((value for known, value in PARAMETERS.items() if known.lower() == lowered), None)
