"""The little that is read of a statement's text, and the SQL that brings a session to its settings.

What a statement has done to the session is the server's to say (its session trackers, its status flags). Read here are only the few
questions whose answer depends on which server connection they reach: LAST_INSERT_ID(), ROW_COUNT(), SHOW WARNINGS, KILL and their like.

Sources: MySQL Reference Manual, "SET Syntax for Variable Assignment", "Information Functions", "SHOW WARNINGS", "KILL",
"Server Tracking of Client Session State".
"""

import re
from typing import Final

from dualpool.state import Differences, Settings, settings

# ---------------------------------------------------------------------------------------------------------- marks of a statement

M_INSERT_ID: Final = 1
"""It reads LAST_INSERT_ID(), or @@last_insert_id, or @@identity."""
M_SETS_INSERT_ID: Final = 2
"""LAST_INSERT_ID(expression): the session's value changes, which no reply says."""
M_CALC_FOUND_ROWS: Final = 4
M_COLLATES: Final = 8
"""It may set what the trackers do not report, or not reliably: a collation, or a default."""
M_LOCAL: Final = 16
"""It may be one that we answer ourselves; `local_question()` says which."""
M_KILL: Final = 32
M_USE: Final = 64
M_VARIABLE: Final = 256
"""It names a user variable. If it sets system variables, too, the trackers do not tell of both."""
M_DIAGNOSTICS: Final = 128
"""It reads the diagnostics area of the statement before it."""

LOOKED_AT: Final = 1 << 16
"""Bytes of a statement that are looked at."""


def marks(text: bytes) -> int:
    """What in `text` must be known before it may run, as M_ bits. Too many of them cost time, too few a wrong answer."""
    if len(text) > LOOKED_AT:
        text = text[:LOOKED_AT]
    upper = text.upper()
    found = 0
    if b"INSERT_ID" in upper or b"@@IDENTITY" in upper or b"IDENTITY" in upper:
        found = M_INSERT_ID
        if SETS_INSERT_ID.search(upper):
            found |= M_SETS_INSERT_ID
    if b"_ROWS" in upper and b"CALC_FOUND_ROWS" in upper:
        found |= M_CALC_FOUND_ROWS
    if b"@" in upper and USER_VARIABLE.search(upper):
        found |= M_VARIABLE
    first = upper[:1]
    if first > b"Z" or first < b"A":
        upper = skip_space(upper)
        first = upper[:1]
    if first == b"S":
        if upper.startswith(b"SET"):
            if b"COLLAT" in upper or b"DEFAULT" in upper or b"CHARSET" in upper or b"CHARACTER" in upper or b"," in upper:
                found |= M_COLLATES
        elif len(upper) < LONGEST_LOCAL and LOCAL_WORDS.search(upper):
            found |= M_LOCAL
    elif first == b"K" and upper.startswith(b"KILL"):
        found |= M_KILL
    elif first == b"U" and upper[:4].rstrip() == b"USE":
        found |= M_USE
    elif (first == b"G" and upper.startswith(b"GET") and b"DIAGNOSTICS" in upper) or (first == b"C" and upper.startswith(b"CALL")):
        found |= M_DIAGNOSTICS if first == b"G" else M_COLLATES
    return found


LONGEST_LOCAL: Final = 200
SETS_INSERT_ID: Final = re.compile(rb"LAST_INSERT_ID\s*\(\s*[^)\s]")
USER_VARIABLE: Final = re.compile(rb"(?<!@)@(?!@)")
LOCAL_WORDS: Final = re.compile(rb"WARNING|ERROR|CONNECTION_ID|PSEUDO_THREAD_ID|ROW_COUNT|FOUND_ROWS")
SPACE: Final = re.compile(rb"(?:\s+|--[ \t][^\n]*(?:\n|\Z)|#[^\n]*(?:\n|\Z)|/\*(?![!M])(?:[^*]|\*(?!/))*\*/)*")


def skip_space(text: bytes) -> bytes:
    """`text` without the white space and the comments that it begins with."""
    match = SPACE.match(text)
    return text[match.end() :] if match else text


# ------------------------------------------------------------------------------------------------------- what we answer ourselves

Q_NONE: Final = 0
Q_CONNECTION_ID: Final = 1
Q_ROW_COUNT: Final = 2
Q_FOUND_ROWS: Final = 3
Q_WARNING_COUNT: Final = 4
Q_ERROR_COUNT: Final = 5
Q_SHOW_WARNINGS: Final = 6
Q_SHOW_ERRORS: Final = 7

ALIAS: Final = rb"(?:\s+(?:AS\s+)?[`\"']?(\w+)[`\"']?)?"
QUESTION: Final = re.compile(
    rb"\s*(?:"
    rb"SELECT\s+(?:"
    rb"(?P<connection>(?:CONNECTION_ID\s*\(\s*\)|@@(?:SESSION\.)?PSEUDO_THREAD_ID))"
    rb"|(?P<rowcount>ROW_COUNT\s*\(\s*\))"
    rb"|(?P<found>FOUND_ROWS\s*\(\s*\))"
    rb"|(?P<warnings>@@(?:SESSION\.)?WARNING_COUNT)"
    rb"|(?P<errors>@@(?:SESSION\.)?ERROR_COUNT)"
    rb")" + ALIAS + rb"|SHOW\s+(?:(?P<countwarnings>COUNT\s*\(\s*\*\s*\)\s*WARNINGS)|(?P<counterrors>COUNT\s*\(\s*\*\s*\)\s*ERRORS)"
    rb"|(?P<showwarnings>WARNINGS)|(?P<showerrors>ERRORS))(?P<limit>\s+LIMIT\s+\d+(?:\s*,\s*\d+)?)?"
    rb")\s*;?\s*\Z",
    re.IGNORECASE,
)
KINDS: Final = {
    "connection": Q_CONNECTION_ID,
    "rowcount": Q_ROW_COUNT,
    "found": Q_FOUND_ROWS,
    "warnings": Q_WARNING_COUNT,
    "errors": Q_ERROR_COUNT,
    "countwarnings": Q_WARNING_COUNT,
    "counterrors": Q_ERROR_COUNT,
    "showwarnings": Q_SHOW_WARNINGS,
    "showerrors": Q_SHOW_ERRORS,
}


class Question:
    """A statement whose answer is the session's own: `kind` is a Q_ number, `name` the name of its column, the rest is its LIMIT."""

    __slots__ = ("count", "kind", "name", "offset")

    def __init__(self, kind: int, name: bytes, offset: int, count: int) -> None:
        self.kind = kind
        self.name = name
        self.offset = offset
        self.count = count


UNLIMITED: Final = 1 << 30


def local_question(text: bytes) -> Question | None:
    """What `text` asks, if it is exactly one of the questions that we can answer, with or without an alias."""
    match = QUESTION.match(text)
    if match is None:
        return None
    for group, kind in KINDS.items():
        words = match[group]
        if words is not None:
            offset, count = _limit(match["limit"])
            return Question(kind, match[6] or _column_name(group, words), offset, count)
    return None


def _column_name(group: str, words: bytes) -> bytes:
    if group == "countwarnings":
        return b"@@session.warning_count"
    return b"@@session.error_count" if group == "counterrors" else words


def _limit(clause: bytes | None) -> tuple[int, int]:
    if not clause:
        return 0, UNLIMITED
    numbers = [int(word) for word in re.findall(rb"\d+", clause)]
    return (0, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])


KILL: Final = re.compile(rb"KILL\s+(?:(?:HARD|SOFT)\s+)?(?:(CONNECTION|QUERY)\s+)?(\d+)\s*;?\s*\Z", re.IGNORECASE)


def kill_target(text: bytes) -> tuple[int, bool] | None:
    """Whom a KILL statement means: a connection id, and whether the connection goes too. None for its other forms."""
    match = KILL.match(skip_space(text))
    if match is None:
        return None
    return int(match[2]), (match[1] or b"").upper() != b"QUERY"


# ---------------------------------------------------------------------------------------------------------------- settings

CONNECTION: Final = "character_set_connection"
COLLATION: Final = "collation_connection"
"""Each of these two changes the other when it is set. So they are one setting, under the name of the first, in the order of its value."""
CHARACTER_SETTINGS: Final = ("character_set_client", CONNECTION, "character_set_results")

SESSION_ONLY: Final = frozenset(
    (
        "gtid_next", "pseudo_replica_mode", "pseudo_slave_mode", "pseudo_thread_id", "require_row_format", "resultset_metadata",
        "show_create_table_skip_secondary_engine", "sql_log_bin", "transaction_allow_batching", "use_secondary_engine",
        "skip_replication", "gtid_domain_id", "gtid_seq_no", "server_id", "in_transaction", "xa_detach_on_prepare",
    )
)  # fmt: skip
"""Without a global value: DEFAULT brings them back."""

IGNORED: Final = frozenset(
    (
        "session_track_gtids", "character_set_database", "collation_database", "last_insert_id", "identity", "statement_id",
        "warning_count", "error_count",
    )
)  # fmt: skip
"""Reported, and followed by other means or not the client's to set."""

TRACKING: Final = "session_track_system_variables"
TRACKERS: Final = frozenset((TRACKING, "session_track_schema", "session_track_state_change", "session_track_transaction_info"))
"""They are as the relay needs them to be (`trackers`), whatever a client sets."""

PINNING: Final = frozenset(
    (
        "timestamp", "insert_id", "rand_seed1", "rand_seed2", "gtid_next", "pseudo_replica_mode", "pseudo_slave_mode", "pseudo_thread_id",
        "original_commit_timestamp", "original_server_version", "immediate_server_version", "gtid_seq_no", "skip_replication",
        "last_gtid",
    )
)  # fmt: skip
"""Used up by the next statement, or not readable again: they cannot be replayed."""

MYSQL_VARIABLES: Final = (
    "auto_increment_increment auto_increment_offset autocommit big_tables binlog_direct_non_transactional_updates binlog_format "
    "binlog_row_image binlog_row_value_options binlog_rows_query_log_events binlog_transaction_compression "
    "binlog_transaction_compression_level_zstd block_encryption_mode bulk_insert_buffer_size character_set_client "
    "character_set_connection character_set_filesystem character_set_results character_set_server collation_connection "
    "collation_server completion_type connection_memory_chunk_size connection_memory_limit cte_max_recursion_depth "
    "default_collation_for_utf8mb4 default_storage_engine default_table_encryption default_tmp_storage_engine default_week_format "
    "div_precision_increment end_markers_in_json eq_range_index_dive_limit explain_format explain_json_format_version "
    "explicit_defaults_for_timestamp foreign_key_checks generated_random_password_length global_connection_memory_tracking "
    "group_concat_max_len group_replication_consistency gtid_next histogram_generation_max_mem_size immediate_server_version "
    "information_schema_stats_expiry innodb_ddl_buffer_size innodb_ddl_threads innodb_ft_enable_stopword "
    "innodb_ft_user_stopword_table innodb_lock_wait_timeout innodb_parallel_read_threads innodb_strict_mode innodb_table_locks "
    "innodb_tmpdir insert_id interactive_timeout internal_tmp_disk_storage_engine internal_tmp_mem_storage_engine join_buffer_size "
    "keep_files_on_create last_insert_id lc_messages lc_time_names lock_wait_timeout long_query_time low_priority_updates "
    "max_delayed_threads "
    "max_error_count max_execution_time max_heap_table_size max_insert_delayed_threads max_join_size max_length_for_sort_data "
    "max_points_in_geometry max_seeks_for_key max_sort_length max_sp_recursion_depth max_statement_time max_tmp_tables "
    "min_examined_row_limit multi_range_count myisam_repair_threads myisam_sort_buffer_size myisam_stats_method "
    "ndb_allow_copying_alter_table net_buffer_length net_read_timeout net_retry_count net_write_timeout new old_alter_table "
    "old_passwords optimizer_prune_level optimizer_search_depth optimizer_switch optimizer_trace optimizer_trace_features "
    "optimizer_trace_limit optimizer_trace_max_mem_size optimizer_trace_offset original_commit_timestamp original_server_version "
    "parser_max_mem_size preload_buffer_size print_identified_with_as_hex profiling profiling_history_size pseudo_replica_mode "
    "pseudo_slave_mode pseudo_thread_id query_alloc_block_size query_cache_type query_cache_wlock_invalidate query_prealloc_size "
    "rand_seed1 rand_seed2 range_alloc_block_size range_optimizer_max_mem_size rbr_exec_mode read_buffer_size read_rnd_buffer_size "
    "require_row_format resultset_metadata secondary_engine_cost_threshold select_into_buffer_size select_into_disk_sync "
    "select_into_disk_sync_delay session_track_gtids session_track_schema session_track_state_change session_track_system_variables "
    "session_track_transaction_info set_operations_buffer_size show_create_table_skip_secondary_engine show_create_table_verbosity "
    "show_gipk_in_create_table_and_information_schema show_old_temporals sort_buffer_size sql_auto_is_null sql_big_selects "
    "sql_buffer_result sql_generate_invisible_primary_key sql_log_bin sql_log_off sql_mode sql_notes sql_quote_show_create "
    "sql_require_primary_key sql_safe_updates sql_select_limit sql_warnings terminology_use_previous time_zone timestamp "
    "tmp_table_size transaction_alloc_block_size transaction_allow_batching transaction_isolation transaction_prealloc_size "
    "transaction_read_only transaction_write_set_extraction tx_isolation tx_read_only unique_checks updatable_views_with_limit "
    "use_secondary_engine wait_timeout windowing_use_high_precision xa_detach_on_prepare"
)
"""What can be set in a session of MySQL 5.7 to 9.7. It is asked for by name, because '*' contains `statement_id`, which is new in every
reply. (A name that a server does not know costs a warning there, once.)"""

PLAIN: Final = re.compile(r"[A-Za-z0-9_ ,:+./@=*-]*\Z")
NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?\Z")
UTF8MB4_LITERAL: Final = "CONVERT(0x{} USING utf8mb4)"
NULLABLE: Final = frozenset(("character_set_results", "innodb_tmpdir", "innodb_ft_user_stopword_table"))


SWITCHES: Final = {b"ON": "1", b"OFF": "0"}
"""A report says ON where SELECT says 1. As numbers they are the same, so that equal settings are equal."""


def literal(name: str, value: bytes) -> str:
    """`value`, as the server reported it for the variable `name`, as SQL that means it in every SQL mode and character set."""
    text = SWITCHES.get(value) or value.decode("utf-8", "surrogateescape")
    if not text and name in NULLABLE:
        return "NULL"
    if NUMBER.match(text):
        return text
    if PLAIN.match(text):
        return f"'{text}'"
    return UTF8MB4_LITERAL.format(value.hex())


def connection_value(charset: bytes, collation: bytes) -> str:
    """The value of CONNECTION. Without a collation: the character set's default one."""
    if not collation:
        return literal(CONNECTION, charset)
    return f"{literal(CONNECTION, charset or collation.partition(b'_')[0])},SESSION {COLLATION}={literal(COLLATION, collation)}"


def with_reports(current: Settings, reports: dict[str, bytes]) -> Settings:
    """`current`, and what the server says has been set since."""
    values = dict(current.values)
    for name, value in reports.items():
        if name not in IGNORED and name not in PINNING and name not in TRACKERS and name not in (CONNECTION, COLLATION):
            values[name] = literal(name, value)
    if CONNECTION in reports or COLLATION in reports:
        values[CONNECTION] = connection_value(reports.get(CONNECTION, b""), reports.get(COLLATION, b""))
    return settings(values)


def login_settings(charset: str, collation: str) -> Settings:
    """What a login with this character set and collation (its number in the handshake names both) means."""
    if not charset:
        return settings({})
    value = literal(CONNECTION, charset.encode())
    connection = connection_value(charset.encode(), collation.encode())
    return settings({"character_set_client": value, CONNECTION: connection, "character_set_results": value})


def render_difference(gone: list[str], wanted: dict[str, str]) -> bytes:
    """One SET statement. Not DEFAULT but the global value: SET foreign_key_checks=DEFAULT turns it off (MySQL 9.7)."""
    values = {name: "DEFAULT" if name in SESSION_ONLY else f"@@global.{name}" for name in gone} | wanted
    if CONNECTION in gone:
        values[CONNECTION] += f",SESSION {COLLATION}=@@global.{COLLATION}"
    return ("SET " + assignments({name: values[name] for name in sorted(values)})).encode("utf-8", "surrogateescape")


DIFFERENCES: Final = Differences(render_difference)


def joined(text: bytes, assignments: bytes) -> bytes:
    """`text`, a SET statement or nothing, with more assignments."""
    return text + b"," + assignments if text else b"SET " + assignments


def trackers(version: str) -> dict[str, str]:
    """The variables by which a server of this version reports what we must know, and their values as SQL."""
    variables = "*" if "MariaDB" in version else MYSQL_VARIABLES.replace(" ", ",")
    return {
        TRACKING: f"'{variables}'",
        "session_track_schema": "ON",
        "session_track_state_change": "ON",
        "session_track_transaction_info": "'CHARACTERISTICS'",
    }


def assignments(values: dict[str, str]) -> str:
    """The part of a SET statement that gives the session these values."""
    return ",".join(f"SESSION {name}={value}" for name, value in values.items())


def to_be_verified(reports: dict[str, bytes]) -> set[str]:
    """Of the variables that the server has reported: which must be read to know their values."""
    names = {name for name in reports if name not in IGNORED and name not in PINNING and name not in TRACKERS and NAME.match(name)}
    if CONNECTION in names or COLLATION in names:
        names |= {CONNECTION, COLLATION}
    return names


def select_values(names: tuple[str, ...]) -> bytes:
    """A query for the values of these variables."""
    return ("SELECT " + ",".join(f"@@session.{name}" for name in names)).encode()


NAME: Final = re.compile(r"[a-z0-9_]+\Z")
PARSING: Final = ("sql_mode", "character_set_client", CONNECTION)


def parsing(wanted: Settings) -> str:
    """The settings by which a statement's text is read. Statements are shared only where these are equal."""
    values = wanted.values
    return "|".join(values.get(name, "") for name in PARSING)


UNKNOWN: Final = settings(dict.fromkeys(CHARACTER_SETTINGS, "?"))
"""A session after its login: its character set is the login's, whatever that was, so the first client sets its own."""
