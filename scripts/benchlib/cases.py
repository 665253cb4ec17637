"""What is measured."""

import attrs

from benchlib.model import Case

ROWS = 20_000
"""Rows of the large select, and the size of a sysbench table."""


def _protocols(case: Case, quick: str) -> list[Case]:
    """One pgbench case per query protocol; --quick keeps the protocols that `quick` names."""
    return [
        attrs.evolve(
            case,
            name=f"{case.name}-{protocol}",
            about=f"{case.about}, {protocol} protocol",
            arguments=(*case.arguments, "-M", protocol),
            in_quick=protocol in quick.split(),
        )
        for protocol in ("simple", "extended", "prepared")
    ]


def _statements(case: Case, quick: str) -> list[Case]:
    """One sysbench case without and one with server-side prepared statements; --quick keeps "text" or "-ps"."""
    return [
        attrs.evolve(
            case,
            name=case.name + suffix,
            about=f"{case.about}, {words}",
            arguments=(*case.arguments, f"--db-ps-mode={mode}"),
            in_quick=quick == (suffix or "text"),
        )
        for suffix, words, mode in (("", "text protocol", "disable"), ("-ps", "prepared statements", "auto"))
    ]


CASES: list[Case] = [
    Case("postgres", "idle", "memory per idle client that has run one query", in_quick=True),
    *_protocols(Case("postgres", "select1", "select 1", script="select 1;\n"), "simple prepared"),
    *_protocols(Case("postgres", "lookup", "pgbench -S, one row by its key", ("-b", "select-only"), needs_tables=True), "prepared"),
    *_protocols(Case("postgres", "tpcb", "TPC-B-like, seven statements", ("-b", "tpcb-like"), needs_tables=True), ""),
    Case(
        "postgres",
        "rows",
        f"a select of {ROWS:,} rows (2 MB), simple protocol",
        ("-M", "simple"),
        f"select * from pgbench_accounts where aid <= {ROWS};\n",
        needs_tables=True,
    ),
    Case("mysql", "idle", "memory per idle client that has run one query", in_quick=True),
    *_statements(Case("mysql", "select1", "select 1", ("repeat",), "select 1"), "text"),
    *_statements(Case("mysql", "lookup", "oltp_point_select, one row by its key", ("oltp_point_select",), needs_tables=True), "-ps"),
    *_statements(Case("mysql", "read-write", "oltp_read_write, twenty statements", ("oltp_read_write",), needs_tables=True), "text"),
    Case(
        "mysql",
        "rows",
        f"a select of {ROWS:,} rows (1.5 MB), text protocol",
        ("repeat", "--db-ps-mode=disable"),
        f"select id, k, pad from sbtest1 limit {ROWS}",
        needs_tables=True,
    ),
]
