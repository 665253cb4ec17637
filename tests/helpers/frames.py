"""PostgreSQL's messages, built short, for tables and generators. Everything returns bytes."""

from dualpool.postgres import messages, wire
from dualpool.postgres.codec import split

LEXICAL = {"client_encoding": "UTF8", "standard_conforming_strings": "on"}
"""The reported settings by which texts are read."""

SYNC = wire.SYNC_MESSAGE
FLUSH = wire.FLUSH_MESSAGE
GOODBYE = wire.TERMINATE_MESSAGE

PARSED = wire.PARSE_COMPLETE_MESSAGE
BOUND = wire.message(wire.BIND_COMPLETE, b"")
CLOSED = wire.message(wire.CLOSE_COMPLETE, b"")
EMPTY = wire.message(wire.EMPTY_QUERY, b"")
NO_DATA = wire.message(wire.NO_DATA, b"")
SUSPENDED = wire.message(wire.PORTAL_SUSPENDED, b"")
COPY_IN = wire.message(wire.COPY_IN, b"\0\0\0")
COPY_OUT = wire.message(wire.COPY_OUT, b"\0\0\0")
COPY_DONE = wire.message(wire.COPY_DONE, b"")
READY = wire.ready(wire.IDLE)
READY_T = wire.ready(wire.IN_TRANSACTION)
READY_E = wire.ready(wire.FAILED)


def query(sql: bytes) -> bytes:
    """A simple Query."""
    return wire.query(sql)


def parse(name: bytes, sql: bytes, types: bytes = b"\0\0") -> bytes:
    """Parse; `types`: the count of parameter types, and the types."""
    return wire.message(wire.PARSE, name + b"\0" + sql + b"\0" + types)


def bind(portal: bytes, name: bytes, *values: bytes) -> bytes:
    """Bind with text parameters and text results."""
    parameters = b"".join(wire.INT32.pack(len(value)) + value for value in values)
    return wire.message(wire.BIND, portal + b"\0" + name + b"\0\0\0" + wire.INT16.pack(len(values)) + parameters + b"\0\0")


def execute(portal: bytes = b"", rows: int = 0) -> bytes:
    """Execute."""
    return wire.message(wire.EXECUTE, portal + b"\0" + wire.INT32.pack(rows))


def describe(what: bytes, name: bytes = b"") -> bytes:
    """Describe of a statement (`S`) or portal (`P`)."""
    return wire.message(wire.DESCRIBE, what + name + b"\0")


def close(what: bytes, name: bytes = b"") -> bytes:
    """Close of a statement (`S`) or portal (`P`)."""
    return wire.message(wire.CLOSE, what + name + b"\0")


def call(number: int = 952) -> bytes:
    """FunctionCall without arguments, of lo_open()."""
    return wire.message(wire.FUNCTION_CALL, wire.INT32.pack(number) + b"\0\0\0\0\0\0")


def copy_data(data: bytes) -> bytes:
    """CopyData, from either side."""
    return wire.message(wire.COPY_DATA, data)


def copy_fail(reason: bytes) -> bytes:
    """CopyFail."""
    return wire.message(wire.COPY_FAIL, reason + b"\0")


def row(*values: bytes) -> bytes:
    """DataRow."""
    columns = b"".join(wire.INT32.pack(len(value)) + value for value in values)
    return wire.message(wire.DATA_ROW, wire.INT16.pack(len(values)) + columns)


def description(columns: int) -> bytes:
    """RowDescription of so many text columns called `c`."""
    column = b"c\0" + b"\0\0\0\0\0\0" + b"\0\0\0\x19" + b"\xff\xff" + b"\xff\xff\xff\xff" + b"\0\0"
    return wire.message(wire.ROW_DESCRIPTION, wire.INT16.pack(columns) + column * columns)


def parameters(count: int) -> bytes:
    """ParameterDescription of so many text parameters."""
    return wire.message(wire.PARAMETER_DESCRIPTION, wire.INT16.pack(count) + b"\0\0\0\x19" * count)


def complete(tag: bytes) -> bytes:
    """CommandComplete."""
    return wire.message(wire.COMMAND_COMPLETE, tag + b"\0")


def status(name: bytes, value: bytes) -> bytes:
    """ParameterStatus."""
    return wire.message(wire.PARAMETER_STATUS, name + b"\0" + value + b"\0")


def error(code: bytes, text: bytes, severity: bytes = b"ERROR", context: bytes = b"") -> bytes:
    """ErrorResponse."""
    fields = b"S" + severity + b"\0V" + severity + b"\0C" + code + b"\0M" + text + b"\0" + (b"W" + context + b"\0" if context else b"")
    return wire.message(wire.ERROR_RESPONSE, fields + b"\0")


def warning(text: bytes) -> bytes:
    """NoticeResponse."""
    return wire.message(wire.NOTICE, b"SWARNING\0VWARNING\0C01000\0M" + text + b"\0\0")


def show(data: bytes) -> list[str]:
    """Messages of a server as lines, for failures that can be read."""
    whole, rest = split(data)
    lines = []
    for kind, payload in whole:
        text = str(messages.parse_report(payload)) if kind in {wire.ERROR_RESPONSE, wire.NOTICE} else repr(payload)
        lines.append(f"{chr(kind)} {text}")
    if rest:
        lines.append(f"... {rest!r}")
    return lines
