"""A small honest PostgreSQL: it parses what it is sent and answers as the documentation's rules say. No sockets, no tables.

It is there to be compared with itself: a client that talks to one directly must read the same bytes as a client that talks through relays
to several. So every result says all that a session could have wrong: the text, the parameters, and the settings.

Source: docs, "Message Flow"; `postgres.c` for what a failed transaction refuses and when a portal ends.
"""

import re

from dualpool.postgres import wire
from dualpool.postgres.codec import split
from tests.helpers import frames

REPORTED = {"application_name", "TimeZone"}
DEFAULTS = {"application_name": "", "TimeZone": "UTC", "work_mem": "4MB", "app.note": ""}
ENDS = ("COMMIT", "ROLLBACK", "END", "ABORT")
BAD_DATA = b"bad"
CALL = re.compile(r"pg_catalog\.set_config\('([^']*)', (NULL|'[^']*'), false\)")


class Failure(Exception):
    """An ErrorResponse."""

    def __init__(self, code: str, text: str, context: str = "") -> None:
        super().__init__(text)
        self.message = frames.error(code.encode(), text.encode(), context=context.encode())


class Portal:
    """A bound statement."""

    def __init__(self, text: str, values: list[bytes]) -> None:
        self.text = text
        self.values = values
        self.sent = 0
        self.done = False


Snapshot = tuple[dict[str, str], dict[str, str]]


class ModelServer:
    """One session. `feed()` it what a client sends; it returns what the server answers."""

    def __init__(self, start: dict[str, str] | None = None, *, report_at_once: bool = False) -> None:
        """`start`: the settings of the start-up packet. `report_at_once`: as before PostgreSQL 14, not only before ReadyForQuery."""
        self.defaults = DEFAULTS | (start or {})
        self.report_at_once = report_at_once
        self.values = dict(self.defaults)
        self.local: dict[str, str] = {}
        self.told = {name: self.defaults[name] for name in REPORTED}
        self.status = "I"
        self.implicit: Snapshot | None = None
        self.begun: Snapshot | None = None
        self.savepoints: list[tuple[str, Snapshot]] = []
        self.statements: dict[str, str] = {}
        self.unnamed: str | None = None
        self.portals: dict[str, Portal] = {}
        self.skipping = False
        self.copying = ""
        self.copy_rest: list[str] = []
        self.rows_copied = 0
        self.closed = False
        self.errors = 0
        self.parses = 0
        self.out: list[bytes] = []
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """The answer to `data`; half a message waits for the rest."""
        whole, self._rest = split(self._rest + data)
        for kind, payload in whole:
            self._message(chr(kind), payload)
        out, self.out = b"".join(self.out), []
        return out

    def would_ignore(self, data: bytes) -> bool:
        """True if `data` is nothing but late copy messages, and whole."""
        whole, rest = split(self._rest + data)
        return not rest and not self.copying and all(chr(kind) in "dcf" for kind, _ in whole)

    def setting(self, name: str) -> str:
        """What SHOW says."""
        return self.local.get(name, self.values[name])

    # ------------------------------------------------------------------------------------------------------------ messages

    def _message(self, kind: str, payload: bytes) -> None:
        if self.copying:
            self._copy(kind, payload)
            return
        if kind in "dcf":
            return  # late: the copy has failed
        if kind == "X":
            self.closed = True
            return
        if kind == "S":
            self._sync()
            return
        if self.skipping:
            return
        try:
            if kind == "Q":
                self._query(payload[:-1].decode())
            elif kind == "F":
                self._call()
            elif kind != "H":
                self._extended(kind, payload)
        except Failure as failure:
            self._fail(failure)
            if kind in "QF":
                self._ready()
            else:
                self.skipping = True

    def _extended(self, kind: str, payload: bytes) -> None:
        if kind == "P":
            name, text, _ = payload.split(b"\0", 2)
            self._parse(name.decode(), text.decode())
        elif kind == "B":
            self._bind(payload)
        elif kind == "E":
            name, _, rest = payload.partition(b"\0")
            self._execute(name.decode(), wire.INT32.unpack(rest)[0])
        elif kind == "D":
            self._describe(chr(payload[0]), payload[1:-1].decode())
        elif kind == "C":
            self._close(chr(payload[0]), payload[1:-1].decode())
        else:
            raise AssertionError(f"the relay sent a message of kind {kind!r}")

    def _sync(self) -> None:
        self.skipping = False
        self._end_implicit()
        self._ready()

    def _ready(self) -> None:
        if self.status == "I":
            self.portals.clear()
        self._report()
        self.out.append(wire.ready(ord(self.status)))

    def _report(self) -> None:
        for name in sorted(REPORTED):
            if self.told[name] != self.setting(name):
                self.told[name] = self.setting(name)
                self.out.append(frames.status(name.encode(), self.told[name].encode()))

    def _fail(self, failure: Failure) -> None:
        self.errors += 1
        self.out.append(failure.message)
        if self.status == "T":
            self.status = "E"
            self._back_to(self.savepoints[-1][1] if self.savepoints else self.begun)
        elif self.status == "I":
            self._back_to(self.implicit)
            self.implicit = None
            self.portals.clear()

    def _back_to(self, snapshot: Snapshot | None) -> None:
        if snapshot is not None:
            self.values, self.local = dict(snapshot[0]), dict(snapshot[1])
            if self.report_at_once:
                self._report()

    def _snapshot(self) -> Snapshot:
        return dict(self.values), dict(self.local)

    def _end_implicit(self) -> None:
        if self.status == "I" and self.implicit is not None:
            self.implicit = None
            self._forget_local()
            self.portals.clear()

    def _forget_local(self) -> None:
        self.local = {}
        if self.report_at_once:
            self._report()

    # ------------------------------------------------------------------------------------------------------------ statements

    def _refuse_if_failed(self, text: str) -> None:
        if self.status == "E" and text.partition(" ")[0] not in ENDS:
            raise Failure("25P02", "current transaction is aborted, commands ignored until end of transaction block")

    def _find(self, name: str) -> str:
        if not name:
            if self.unnamed is None:
                raise Failure("26000", "unnamed prepared statement does not exist")
            return self.unnamed
        if name not in self.statements:
            raise Failure("26000", f'prepared statement "{name}" does not exist')
        return self.statements[name]

    def _parse(self, name: str, text: str) -> None:
        self.parses += 1
        if not name:
            self.unnamed = None
        if text.startswith("SYNTAX"):
            raise Failure("42601", "syntax error")
        self._refuse_if_failed(text)
        if name and name in self.statements:
            raise Failure("42P05", f'prepared statement "{name}" already exists')
        if name:
            self.statements[name] = text
        else:
            self.unnamed = text
        self.out.append(frames.PARSED)

    def _bind(self, payload: bytes) -> None:
        portal, name, rest = payload.split(b"\0", 2)
        text = self._find(name.decode())
        values, position = [], 4
        for _ in range(wire.INT16.unpack_from(rest, 2)[0]):
            size = wire.INT32.unpack_from(rest, position)[0]
            values.append(rest[position + 4 : position + 4 + size])
            position += 4 + size
        if text.count("$") != len(values):
            raise Failure("08P01", f"bind message supplies {len(values)} parameters, but the statement requires {text.count('$')}")
        self._refuse_if_failed(text)
        if portal and portal.decode() in self.portals:
            raise Failure("42P03", f'cursor "{portal.decode()}" already exists')
        if self.implicit is None and self.status == "I":
            self.implicit = self._snapshot()
        self.portals[portal.decode()] = Portal(text, values)
        self.out.append(frames.BOUND)

    def _portal(self, name: str) -> Portal:
        if name not in self.portals:
            raise Failure("34000", f'portal "{name}" does not exist')
        return self.portals[name]

    def _describe(self, what: str, name: str) -> None:
        text = self._find(name) if what == "S" else self._portal(name).text
        self._refuse_if_failed(text)
        if what == "S":
            self.out.append(frames.parameters(text.count("$")))
        self.out.append(frames.description(4) if text.startswith("SELECT") else frames.NO_DATA)

    def _close(self, what: str, name: str) -> None:
        if what == "P":
            self.portals.pop(name, None)
        elif name:
            self.statements.pop(name, None)
        else:
            self.unnamed = None
        self.out.append(frames.CLOSED)

    def _execute(self, name: str, limit: int) -> None:
        portal = self._portal(name)
        self._refuse_if_failed(portal.text)
        if not portal.text:
            self.out.append(frames.EMPTY)
        elif portal.text.startswith("SELECT"):
            self._rows(portal, limit)
        elif portal.done:
            raise Failure("55000", f'portal "{name}" cannot be run')
        else:
            portal.done = True
            self._run(portal.text, extended=True)

    def _rows(self, portal: Portal, limit: int) -> None:
        """`SELECT what n` has n rows."""
        total = int(portal.text.split()[2])
        count = min(limit or total, total - portal.sent)
        self.out += [self._row(portal.text, portal.values)] * count
        portal.sent += count
        self.out.append(frames.SUSPENDED if limit and count == limit else frames.complete(b"SELECT %d" % count))

    def _row(self, text: str, values: list[bytes]) -> bytes:
        settings = ";".join(f"{name}={self.setting(name)}" for name in sorted(self.values))
        return frames.row(text.encode(), b",".join(values), settings.encode(), self.status.encode())

    def _call(self) -> None:
        self._refuse_if_failed("")
        self.out.append(wire.message(wire.FUNCTION_RESULT, b"\xff\xff\xff\xff"))
        self._ready()

    def _query(self, text: str) -> None:
        self.unnamed = None
        self.portals.pop("", None)
        if "SYNTAX" in text:
            raise Failure("42601", "syntax error")
        statements = [part.strip() for part in text.split(";") if part.strip()]
        if not statements:
            self.out.append(frames.EMPTY)
        self._simple(statements, alone=len(statements) == 1)

    def _simple(self, statements: list[str], alone: bool) -> None:
        while statements:
            statement = statements.pop(0)
            self._refuse_if_failed(statement)
            if self.implicit is None and self.status == "I":
                self.implicit = self._snapshot()
            if statement.startswith("SELECT pg_catalog.set_config("):
                self._set_config(statement)
            elif statement.startswith("SELECT ''::pg_catalog.text AS name"):
                self._probed()
            elif statement.startswith("SELECT"):
                self.out.append(frames.description(4))
                self._rows(Portal(statement, []), 0)
            else:
                self._run(statement, alone=alone)
            if self.copying:
                self.copy_rest = statements
                return
        self._end_implicit()
        self._ready()

    def _probed(self) -> None:
        """What the session holds: nothing but settings."""
        found = [(b"", b""), (b"role", b"none".hex().encode())]
        found += [
            (name.lower().encode(), self.setting(name).encode().hex().encode())
            for name in self.values
            if self.setting(name) != self.defaults[name]
        ]
        self.out += [frames.description(2), *(frames.row(*pair) for pair in found), frames.complete(b"SELECT")]

    # ------------------------------------------------------------------------------------------------------------ COPY

    def _copy(self, kind: str, payload: bytes) -> None:
        """In copy mode Flush and Sync are ignored (docs: COPY Operations)."""
        if kind in "HS":
            return
        try:
            if kind == "d":
                if BAD_DATA in payload:
                    raise Failure("22P02", "invalid input", "COPY t, line 1, column n")
                self.rows_copied += 1
                return
            if kind == "f":
                raise Failure("57014", "COPY from stdin failed: " + payload[:-1].decode(), "COPY t, line 2")
            if kind != "c":
                raise Failure("08P01", "unexpected message type during COPY from stdin")
        except Failure as failure:
            simple = self.copying == "simple"
            self.copying = ""
            self._fail(failure)
            if simple:
                self._ready()
            else:
                self.skipping = True
            return
        self.out.append(frames.complete(b"COPY %d" % self.rows_copied))
        if self.copying == "simple":
            self.copying = ""
            try:
                self._simple(self.copy_rest, alone=False)
            except Failure as failure:
                self._fail(failure)
                self._ready()
        else:
            self.copying = ""

    # ------------------------------------------------------------------------------------------------------------ SQL

    def _run(self, text: str, *, extended: bool = False, alone: bool = True) -> None:
        """Statements that return no rows."""
        words = text.split()
        verb = words[0]
        if verb == "ERROR":
            raise Failure("22012", "division by zero")
        if verb == "COPY":
            self._start_copy(words, extended)
            return
        if verb in {"BEGIN", *ENDS, "SAVEPOINT", "RELEASE"}:
            tag = self._transaction(words)
        elif verb in {"SET", "RESET"}:
            tag = self._set(words)
        elif verb == "DEALLOCATE":
            tag = self._deallocate(words[-1])
        elif verb == "DISCARD":
            tag = self._discard(words[1], alone)
        else:
            tag = verb
        if self.report_at_once:
            self._report()
        self.out.append(frames.complete(tag.encode()))

    def _start_copy(self, words: list[str], extended: bool) -> None:
        if words[-1] == "STDOUT":
            self.out += [frames.COPY_OUT, frames.copy_data(b"1"), frames.copy_data(b"2"), frames.COPY_DONE, frames.complete(b"COPY 2")]
            return
        self.copying = "extended" if extended else "simple"
        self.rows_copied = 0
        self.out.append(frames.COPY_IN)

    def _transaction(self, words: list[str]) -> str:
        verb = words[0]
        if verb == "BEGIN":
            if self.status == "T":
                self.out.append(frames.warning(b"there is already a transaction in progress"))
            else:
                self.begun, self.implicit = self.implicit or self._snapshot(), None
                self.status = "T"
            return "BEGIN"
        if verb in {"SAVEPOINT", "RELEASE"} or "TO" in words:
            return self._savepoint(verb, words[-1])
        commits = verb in {"COMMIT", "END"} and self.status != "E"
        if self.status == "I":
            self.out.append(frames.warning(b"there is no transaction in progress"))
        if not commits:
            self._back_to(self.begun if self.begun is not None else self.implicit)
        self.status, self.begun, self.implicit, self.savepoints = "I", None, None, []
        self.portals.clear()
        self._forget_local()
        return "COMMIT" if commits else "ROLLBACK"

    def _savepoint(self, verb: str, name: str) -> str:
        if self.status == "I":
            raise Failure("25P01", f"{verb} can only be used in transaction blocks")
        if verb == "SAVEPOINT":
            self.savepoints.append((name, self._snapshot()))
            return verb
        found = [index for index, (known, _) in enumerate(self.savepoints) if known == name]
        if not found:
            raise Failure("3B001", f'savepoint "{name}" does not exist')
        if verb == "RELEASE":
            del self.savepoints[found[-1] :]
            return verb
        self._back_to(self.savepoints[found[-1]][1])
        del self.savepoints[found[-1] + 1 :]
        self.status = "T"
        return "ROLLBACK"

    def _known(self, name: str) -> str:
        """A setting's own spelling; the server does not mind upper and lower case."""
        bare = name.replace('"', "").lower()
        return next(known for known in self.values if known.lower() == bare)

    def _set_config(self, text: str) -> None:
        """`SELECT pg_catalog.set_config('name', 'value', false), ...`, as the pooler says it; NULL: the default."""
        found = []
        for given, value in CALL.findall(text):
            name = self._known(given)
            self.values[name] = self.defaults[name] if value == "NULL" else value[1:-1]
            self.local.pop(name, None)
            found.append(self.values[name].encode())
        self.out += [frames.description(len(found)), frames.row(*found), frames.complete(b"SELECT 1")]

    def _set(self, words: list[str]) -> str:
        """`SET [LOCAL] name = value`, `RESET name`, `RESET ALL`."""
        if words[0] == "RESET":
            names = list(self.values) if words[1] == "ALL" else [self._known(words[1])]
            for name in names:
                self.values[name] = self.defaults[name]
                self.local.pop(name, None)
        elif words[1] == "LOCAL":
            if self.status == "I" and self.implicit is None:
                self.out.append(frames.warning(b"SET LOCAL can only be used in transaction blocks"))
            else:
                self.local[words[2]] = words[4].strip("'")
        else:
            # Both together: the value for the transaction is the value for the session.
            value = self.defaults[words[1]] if words[3] == "DEFAULT" else words[3].strip("'")
            self.values[words[1]] = value
            self.local.pop(words[1], None)
        return words[0]

    def _deallocate(self, name: str) -> str:
        if name == "ALL":
            self.statements.clear()  # but not the unnamed one
            return "DEALLOCATE ALL"
        self._find(name)
        del self.statements[name]
        return "DEALLOCATE"

    def _discard(self, what: str, alone: bool) -> str:
        if what == "ALL":
            if self.status != "I" or not alone:
                raise Failure("25001", "DISCARD ALL cannot run inside a transaction block")
            self.values, self.local = dict(self.defaults), {}
            self.statements.clear()
            self.portals.clear()
        return f"DISCARD {what}"
