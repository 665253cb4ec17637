"""Record what a real PgBouncer's console answers: `python -m tests.golden.record postgresql://app:app@127.0.0.1:16432/pgbouncer`.

Writes pgbouncer.json: its version, for each SHOW the names and type OIDs of the columns, and for the tables whose rows have names, those.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

import psycopg

FILE: Final = Path(__file__).parent / "pgbouncer.json"
EXPORTER_FILE: Final = Path(__file__).parent / "exporter.json"
TABLES: Final = (
    "POOLS", "CLIENTS", "SERVERS", "DATABASES", "USERS", "STATS", "STATS_TOTALS", "STATS_AVERAGES", "TOTALS", "LISTS", "CONFIG", "VERSION",
    "STATE", "SOCKETS", "ACTIVE_SOCKETS", "MEM", "DNS_HOSTS", "DNS_ZONES", "PEERS", "PEER_POOLS",
)  # fmt: skip
NAMED_ROWS: Final = ("LISTS", "TOTALS", "STATE", "CONFIG")
REFUSED: Final = (
    "SHOW NONSENSE", "show", "foo", "PAUSE nosuch", "RESUME nosuch", "KILL nosuch", "RECONNECT nosuch", "WAIT_CLOSE nosuch",
    "DISABLE nosuch", "ENABLE nosuch", "RESUME", "KILL_CLIENT 99999999", "show pools extra", "SHUTDOWN FOO",
)  # fmt: skip
"""Commands that change nothing and are answered by an error, whose text is kept."""


def record(url: str) -> dict[str, Any]:
    """Ask everything."""
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as client:
        found: dict[str, Any] = {"tables": {}, "rows": {}, "errors": {}}
        for table in TABLES:
            result = client.pgconn.exec_(f"SHOW {table}".encode())
            found["tables"][table] = [[result.fname(i).decode(), result.ftype(i)] for i in range(result.nfields)]  # type: ignore[union-attr]
            first = [(result.get_value(row, 0) or b"").decode() for row in range(result.ntuples)]
            if table in NAMED_ROWS:
                found["rows"][table] = first
            if table == "VERSION":
                found["version"] = first[0]
        for command in REFUSED:
            result = client.pgconn.exec_(command.encode())
            message = result.error_field(psycopg.pq.DiagnosticField.MESSAGE_PRIMARY)
            found["errors"][command] = message.decode() if message is not None else None
        return found


def load() -> dict[str, Any]:
    """What was recorded."""
    return json.loads(FILE.read_text())


def exported() -> dict[str, list[str]]:
    """The samples and their labels that prometheus-community/pgbouncer_exporter 0.12.0 has of PgBouncer 1.26.1."""
    return json.loads(EXPORTER_FILE.read_text())


if __name__ == "__main__":
    FILE.write_text(json.dumps(record(sys.argv[1]), indent=1) + "\n")
