"""The admin console as MySQL clients see it: commands as text and as prepared statements. Nothing here knows a command.

Drivers ask a server things of their own (SET NAMES, SELECT @@version_comment, ...); `small_talk` answers those, and everything else is a
command. Source: MySQL Source Code Documentation, "Command Phase", "Prepared Statements", "Binary Protocol Resultset".
"""

import re
from collections.abc import Callable
from typing import Final

from dualpool import __version__
from dualpool.accounts import ClientLogin, ServerLogin
from dualpool.answers import Answer, Column, Done, Kind, Notice, Table, Value
from dualpool.errors import CommandRefused, DualpoolError, RemoteProtocolError
from dualpool.mysql import codec, messages, wire
from dualpool.mysql.codec import Ok, build_ok
from dualpool.mysql.frontend import CHARACTER_SET, SERVER_VERSION, welcome
from dualpool.mysql.messages import Conversation
from dualpool.mysql.statements import HEAD_SIZE, bound_types, types_flag
from dualpool.protocol import DescribeCommand, Exchange, RunCommand, Send

MAX_COMMAND: Final = 1 << 20
MAX_STATEMENTS: Final = 1000
BINARY_CHARSET: Final = 63
NOT_NULL_NUMBER: Final = 0x0081
TYPES: Final[dict[Kind, tuple[int, int, int, int]]] = {
    "text": (codec.VAR_STRING, CHARACTER_SET, 1 << 16, 0),
    "int4": (codec.LONG, BINARY_CHARSET, 11, NOT_NULL_NUMBER - 1),
    "int8": (codec.LONGLONG, BINARY_CHARSET, 20, NOT_NULL_NUMBER - 1),
    "numeric": (0xF6, BINARY_CHARSET, 31, NOT_NULL_NUMBER - 1),
}
"""Type (NEWDECIMAL for numeric), character set, length, flags."""
SIGNED: Final = {0x01: 1, 0x02: 2, 0x03: 4, 0x08: 8}
"""Integer types of parameters, and their bytes."""
NEITHER: Final = frozenset((0x04, 0x05, 0x06, 0x07, 0x09, 0x0A, 0x0B, 0x0C, 0x0D))
"""FLOAT, DOUBLE, NULL, and dates and times."""
UNKNOWN_COMMAND: Final = 1047
UNKNOWN_STATEMENT: Final = 1243


def serve(login: ClientLogin, process_id: int, secret: bytes) -> Exchange[None]:
    """See Engine.console."""
    yield Send(welcome(login, {}, process_id, secret))
    yield from _Console(login).run()


def ask(login: ServerLogin, command: str) -> Exchange[Answer]:
    """See Engine.ask."""
    talk = Conversation(wire.MAX_PAYLOAD)
    attributes = b"\0\1" if login.capabilities & wire.CLIENT_QUERY_ATTRIBUTES else b""
    yield from talk.send(bytes((wire.COM_QUERY,)) + attributes + command.encode())
    first = yield from talk.receive()
    if first[:1] == bytes((wire.ERR,)):
        said = messages.parse_error(first)
        raise CommandRefused(said.message, errno=said.errno, sqlstate=said.sqlstate)
    if first[:1] == bytes((wire.OK,)):
        return Done(command.split(maxsplit=1)[0].upper())
    columns: list[Column] = []
    while len(columns) < wire.get_lenenc(first, 0)[0]:
        columns.append(parse_definition((yield from talk.receive())))
    if not login.capabilities & wire.CLIENT_DEPRECATE_EOF:
        yield from talk.receive()
    rows: list[tuple[Value, ...]] = []
    while not messages.is_end(payload := (yield from talk.receive()), login.capabilities):
        values = zip(columns, codec.row_values(payload), strict=True)
        rows.append(tuple(None if value is None else messages.text(value) if of.kind == "text" else int(value) for of, value in values))
    return Table(tuple(columns), rows)


class _Statement:
    """A prepared command; `types`: of its parameters, as the client bound them last; `long_data`: values that came ahead."""

    def __init__(self, text: str, params: int) -> None:
        self.text = text
        self.params = params
        self.types = b""
        self.long_data: dict[int, bytes] = {}


class _Console:
    """One client's session."""

    def __init__(self, login: ClientLogin) -> None:
        self.login = login
        self.capabilities = login.capabilities
        self.talk = Conversation(MAX_COMMAND)
        self.statements: dict[int, _Statement] = {}
        self.prepared = 0
        self.notices: tuple[Notice, ...] = ()
        """Those of the last command, for SHOW WARNINGS."""
        self.handlers: Final[dict[int, Callable[[bytes], Exchange[bytes]]]] = {
            wire.COM_QUERY: self._query,
            wire.COM_STMT_PREPARE: self._prepare,
            wire.COM_STMT_EXECUTE: self._execute,
            wire.COM_STMT_SEND_LONG_DATA: self._long_data,
            wire.COM_STMT_CLOSE: self._close,
            wire.COM_STMT_RESET: self._reset,
            wire.COM_STATISTICS: self._statistics,
            wire.COM_PING: self._nothing,
            wire.COM_INIT_DB: self._nothing,
            wire.COM_RESET_CONNECTION: self._forget,
            wire.COM_SET_OPTION: self._option,
        }

    def run(self) -> Exchange[None]:
        while True:
            self.talk.sequence = 0
            payload = yield from self.talk.receive()
            command = payload[0] if payload else wire.COM_SLEEP
            if command == wire.COM_QUIT:
                return
            try:
                if command not in self.handlers:
                    raise CommandRefused("Unknown command", errno=UNKNOWN_COMMAND)
                reply = yield from self.handlers[command](payload)
            except RemoteProtocolError as error:
                yield Send(messages.error_message(error))
                raise
            except DualpoolError as error:
                reply = messages.error_message(error)
            except (IndexError, ValueError):
                reply = messages.error_message(CommandRefused("Malformed communication packet.", errno=1835))
            if reply:
                yield Send(reply)

    # ------------------------------------------------------------------------------------------------------------------- text

    def _query(self, payload: bytes) -> Exchange[bytes]:
        answer = yield from self._run(clean(messages.text(payload[1:])))
        return self._reply(answer, text_row)

    def _run(self, text: str) -> Exchange[Answer]:
        said = small_talk(text, self.login, self.notices)
        if said is not None:
            return said
        answer: Answer = yield RunCommand(text)
        self.notices = answer.notices if isinstance(answer, Done) else ()
        return answer

    def _reply(self, answer: Answer, row: Callable[[tuple[Column, ...], tuple[Value, ...]], bytes]) -> bytes:
        if isinstance(answer, Done) and answer.tag == "SHOW":
            # What psql prints as a notice would be lost here.
            answer = Table(
                (Column("help"),), [(line.strip(),) for said in answer.notices for line in said.detail.splitlines() if line.strip()]
            )
        if isinstance(answer, Done):
            return wire.packet(1, build_ok(Ok(warnings=len(answer.notices)), self.capabilities, wire.OK))
        rows = [row(answer.columns, values) for values in answer.rows]
        return codec.result(definitions(answer.columns), rows, wire.STATUS_AUTOCOMMIT, self.capabilities)

    # --------------------------------------------------------------------------------------------------------------- prepared

    def _prepare(self, payload: bytes) -> Exchange[bytes]:
        text = clean(messages.text(payload[1:]))
        if len(self.statements) >= MAX_STATEMENTS:
            raise CommandRefused(f"the console keeps at most {MAX_STATEMENTS} prepared statements", errno=1461)
        said = small_talk(text, self.login, self.notices)
        columns: tuple[Column, ...] | None
        if said is None:
            columns = yield DescribeCommand(text)
        else:
            columns = said.columns if isinstance(said, Table) else None
        self.prepared += 1
        statement = self.statements[self.prepared] = _Statement(text, sum(token == "?" for token in TOKEN.findall(text)))
        described = definitions(columns or ())
        counts = wire.INT16.pack(len(described)) + wire.INT16.pack(statement.params)
        parts = [b"\0" + wire.INT32.pack(self.prepared) + counts + b"\0\0\0"]
        for group in (definitions((Column("?"),) * statement.params), described):
            parts += group
            if group and not self.capabilities & wire.CLIENT_DEPRECATE_EOF:
                parts.append(build_ok(Ok(), self.capabilities, wire.EOF))
        return b"".join(wire.packet(number, part) for number, part in enumerate(parts, 1))

    def _statement(self, payload: bytes) -> _Statement:
        number = int.from_bytes(payload[1:5], "little")
        if number not in self.statements:
            raise CommandRefused(f"Unknown prepared statement handler ({number})", errno=UNKNOWN_STATEMENT)
        return self.statements[number]

    def _execute(self, payload: bytes) -> Exchange[bytes]:
        statement = self._statement(payload)
        values = iter(self._values(statement, payload))
        text = "".join(quoted(next(values)) if token == "?" else token for token in TOKEN.findall(statement.text))
        answer = yield from self._run(text)
        return self._reply(answer, binary_row)

    def _values(self, statement: _Statement, payload: bytes) -> list[str]:
        """The parameters' values as text. Raises CommandRefused for NULL, which means nothing in a command."""
        types = bound_types(payload, statement.params)
        if types is None:
            raise CommandRefused("Incorrect arguments to mysqld_stmt_execute", errno=1210)
        statement.types = types or statement.types
        values: list[str] = []
        position = types_flag(statement.params) + 1 + len(types)
        for index in range(statement.params):
            if index in statement.long_data:
                values.append(messages.text(statement.long_data[index]))
            elif payload[HEAD_SIZE + index // 8] >> index % 8 & 1:
                raise CommandRefused("a parameter is NULL")
            else:
                value, position = parameter(payload, position, statement.types[2 * index], statement.types[2 * index + 1])
                values.append(value)
        statement.long_data = {}
        return values

    def _long_data(self, payload: bytes) -> Exchange[bytes]:
        yield from ()
        statement = self.statements.get(int.from_bytes(payload[1:5], "little"))
        if statement is not None:
            index = int.from_bytes(payload[5:7], "little")
            statement.long_data[index] = (statement.long_data.get(index, b"") + payload[7:])[:MAX_COMMAND]
        return b""

    def _close(self, payload: bytes) -> Exchange[bytes]:
        yield from ()
        self.statements.pop(int.from_bytes(payload[1:5], "little"), None)
        return b""

    def _reset(self, payload: bytes) -> Exchange[bytes]:
        self._statement(payload).long_data = {}
        return (yield from self._nothing(payload))

    # ------------------------------------------------------------------------------------------------------------- the others

    def _nothing(self, payload: bytes) -> Exchange[bytes]:
        yield from ()
        return wire.packet(1, build_ok(Ok(), self.capabilities, wire.OK))

    def _forget(self, payload: bytes) -> Exchange[bytes]:
        self.statements.clear()
        return (yield from self._nothing(payload))

    def _option(self, payload: bytes) -> Exchange[bytes]:
        yield from ()
        return wire.packet(1, build_ok(Ok(), self.capabilities, wire.EOF))

    def _statistics(self, payload: bytes) -> Exchange[bytes]:
        yield from ()
        return wire.packet(1, b"dualpool console")


# ---------------------------------------------------------------------------------------------------------------------- messages


def definitions(columns: tuple[Column, ...]) -> list[bytes]:
    """The column definitions of a result."""
    return [codec.column(column.name.encode(), *TYPES[column.kind]) for column in columns]


def parse_definition(payload: bytes) -> Column:
    """A column definition: its name, after catalog, schema and two names of its table; its type behind the other name."""
    position = 0
    words: list[bytes] = []
    for _ in range(6):
        word, position = wire.get_lenenc_bytes(payload, position)
        words.append(word)
    kinds = {kind[0]: name for name, kind in TYPES.items()}
    return Column(messages.text(words[4]), kinds.get(payload[position + 7], "text"))


def text_row(columns: tuple[Column, ...], row: tuple[Value, ...]) -> bytes:
    """A row of the text protocol."""
    return b"".join(bytes((wire.NULL,)) if value is None else wire.put_lenenc_bytes(str(value).encode()) for value in row)


def binary_row(columns: tuple[Column, ...], row: tuple[Value, ...]) -> bytes:
    """A row of the binary protocol: a zero, the NULLs as bits from the third on, the values."""
    nulls = bytearray((len(row) + 9) // 8)
    values: list[bytes] = []
    for index, (column, value) in enumerate(zip(columns, row, strict=True)):
        if value is None:
            nulls[(index + 2) // 8] |= 1 << (index + 2) % 8
        elif column.kind in {"int4", "int8"}:
            values.append(int(value).to_bytes(4 if column.kind == "int4" else 8, "little", signed=True))
        else:
            values.append(wire.put_lenenc_bytes(str(value).encode()))
    return b"\0" + bytes(nulls) + b"".join(values)


def parameter(payload: bytes, position: int, kind: int, flags: int) -> tuple[str, int]:
    """The value at `position` as text, and the position behind it. Raises CommandRefused for types that no command takes."""
    size = SIGNED.get(kind)
    if size is not None:
        data = payload[position : position + size]
        return str(int.from_bytes(data, "little", signed=not flags & 0x80)), position + size
    if kind in NEITHER:
        raise CommandRefused("parameters of commands are texts or integers", errno=1210)
    data, position = wire.get_lenenc_bytes(payload, position)
    return messages.text(data), position


def quoted(text: str) -> str:
    """A word of a command, whatever it holds."""
    return "'" + text.replace("'", "''") + "'"


# -------------------------------------------------------------------------------------------------------------------------- text

TOKEN: Final = re.compile(
    r"""--\s[^\n]*|\#[^\n]*|/\*.*?(?:\*/|$)|'(?:[^'\\]|''|\\.)*'?|"(?:[^"\\]|""|\\.)*"?|`[^`]*`?|\?|[^?'"`/#-]+|.""", re.DOTALL
)
VARIABLES: Final[dict[str, Value]] = {
    "version": SERVER_VERSION,
    "version_comment": f"dualpool {__version__}",
    "autocommit": 1,
    "auto_increment_increment": 1,
    "character_set_client": "utf8mb4",
    "character_set_connection": "utf8mb4",
    "character_set_database": "utf8mb4",
    "character_set_results": "utf8mb4",
    "character_set_server": "utf8mb4",
    "collation_connection": "utf8mb4_general_ci",
    "collation_database": "utf8mb4_general_ci",
    "collation_server": "utf8mb4_general_ci",
    "init_connect": "",
    "interactive_timeout": 28800,
    "license": "MIT",
    "lower_case_table_names": 0,
    "max_allowed_packet": MAX_COMMAND,
    "net_buffer_length": 16384,
    "net_write_timeout": 60,
    "performance_schema": 0,
    "sql_mode": "STRICT_TRANS_TABLES",
    "system_time_zone": "UTC",
    "time_zone": "SYSTEM",
    "transaction_isolation": "REPEATABLE-READ",
    "transaction_read_only": 0,
    "tx_isolation": "REPEATABLE-READ",
    "tx_read_only": 0,
    "wait_timeout": 28800,
}
"""The system variables that drivers read when they connect; the others are NULL."""
NO_COMMANDS: Final = re.compile(
    r"(?:set\s+(?:names\b|character\s+set\b|charset\b|@|(?:session|local)\s|transaction\b|autocommit\b|sql_mode\b|character_set_\w+\b"
    r"|collation_\w+\b|net_\w+\b|sql_\w+\b|time_zone\b|foreign_key_checks\b|unique_checks\b|wait_timeout\b|interactive_timeout\b))"
    r"|begin\b|start\s+transaction\b|commit\b|rollback\b|use\s|unlock\s+tables\b",
    re.IGNORECASE,
)
EXPRESSION: Final = re.compile(
    r"(?:@@(?:session\.|global\.|local\.)?`?(\w+)`?|(\w+)\(\)|(\d{1,9}))(?:\s+(?:as\s+)?[`'\"]?(\w+)[`'\"]?)?", re.IGNORECASE
)
LIMIT: Final = re.compile(r"\s+limit\s+\d+$", re.IGNORECASE)
WARNING_COLUMNS: Final = (Column("Level"), Column("Code", "int4"), Column("Message"))
VARIABLE_COLUMNS: Final = (Column("Variable_name"), Column("Value"))


def clean(text: str) -> str:
    """A text without comments and without its last semicolon."""
    parts = (" " if token.startswith(("/*", "-- ", "--\t", "--\n", "#")) else token for token in TOKEN.findall(text))
    return "".join(parts).strip().removesuffix(";").strip()


def small_talk(text: str, login: ClientLogin, notices: tuple[Notice, ...]) -> Answer | None:
    """The answer to what a driver says for itself; None for everything else: that is a command. `notices`: of the last command."""
    if NO_COMMANDS.match(text):
        return Done("OK")
    lowered = " ".join(text.lower().split())
    if lowered == "show warnings":
        return Table(WARNING_COLUMNS, [(said.severity.title().replace("Notice", "Note"), 1105, said.message) for said in notices])
    if lowered.startswith(("show variables", "show session variables", "show global variables")):
        pattern = re.search(r"like '([^']*)'", lowered)
        shape = re.compile(re.escape(pattern[1]).replace("%", ".*")) if pattern else re.compile("")
        found = [(name, str(value)) for name, value in VARIABLES.items() if (shape.fullmatch(name) if pattern else True)]
        return Table(VARIABLE_COLUMNS, list(found))
    if lowered in {"show tables", "show full tables"} or lowered.startswith(("show status", "show session status", "show collation")):
        return Table(VARIABLE_COLUMNS, [])
    if lowered.startswith("select "):
        return _selected(LIMIT.sub("", text)[7:], login)
    return None


def _selected(text: str, login: ClientLogin) -> Table | None:
    """SELECT of system variables, numbers, and the functions that drivers call."""
    functions: dict[str, Value] = {
        "version": SERVER_VERSION,
        "database": login.account.database,
        "schema": login.account.database,
        "user": login.account.user,
        "current_user": login.account.user,
        "connection_id": login.connection_id,
    }
    columns: list[Column] = []
    row: list[Value] = []
    for part in text.split(","):
        found = EXPRESSION.fullmatch(part.strip())
        if found is None:
            return None
        variable, function, number, alias = found.groups()
        if function is not None and function.lower() not in functions:
            return None
        value = int(number) if number else functions[function.lower()] if function else VARIABLES.get(variable.lower())
        columns.append(Column(alias or part.strip(), "int8" if isinstance(value, int) else "text"))
        row.append(value)
    return Table(tuple(columns), [tuple(row)])
