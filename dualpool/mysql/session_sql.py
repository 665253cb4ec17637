"""The SQL that we write ourselves: what brings a session to its settings and variables, and what asks for them and for what else it holds.

What a client has set is the server's to say (its session trackers); these are the texts that make another session the same.

Sources: MySQL Reference Manual, "SET Syntax for Variable Assignment", "Server System Variables", "Server Tracking of Client Session State".
"""

import re
from collections.abc import Iterable
from typing import Final
from weakref import WeakValueDictionary

from dualpool.mysql import codec
from dualpool.state import Differences, Settings, settings

# ---------------------------------------------------------------------------------------------------------------- settings

CONNECTION: Final = "character_set_connection"
COLLATION: Final = "collation_connection"
CLIENT: Final = "character_set_client"
"""Each of these two changes the other when it is set. So they are one setting, under the name of the first, in the order of its value."""
CHARACTER_SETTINGS: Final = (CLIENT, CONNECTION, "character_set_results")

OF_CHARACTERS: Final = frozenset((*CHARACTER_SETTINGS, COLLATION))

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
        "session_track_gtids", "last_insert_id", "identity", "statement_id", "warning_count", "error_count",
    )
)  # fmt: skip
"""Reported, and followed by other means or not the client's to set."""

DATABASE_COLLATION: Final = "collation_database"
OF_DATABASE: Final = ("character_set_database", DATABASE_COLLATION)
"""The current schema's, from when it was chosen: COM_INIT_DB alone brings them back. Each of the two changes the other when it is set."""
NO_DATABASE_S: Final = f"SET SESSION {DATABASE_COLLATION}=DEFAULT".encode()
"""Does so in a session that has never chosen a schema. (In another one it may be an older value of the schema's.)"""
IGNORING_SPACE: Final = "CONCAT_WS(',',NULLIF(@@global.sql_mode,''),'IGNORE_SPACE')"
AFTER_RESET: Final = f"@@global.{DATABASE_COLLATION}"
"""What COM_RESET_CONNECTION leaves there, although the schema stays what it was."""

TRACKING: Final = "session_track_system_variables"
TRACKERS: Final = frozenset((TRACKING, "session_track_schema", "session_track_state_change", "session_track_transaction_info"))
"""They are as the relay needs them to be (`trackers`), whatever a client sets."""

PINNING: Final = frozenset(
    (
        "timestamp", "insert_id", "rand_seed1", "rand_seed2", "gtid_next", "pseudo_replica_mode", "pseudo_slave_mode", "pseudo_thread_id",
        "original_commit_timestamp", "original_server_version", "immediate_server_version", "gtid_seq_no", "skip_replication",
        "last_gtid", "profiling", "sql_auto_is_null",
    )
)  # fmt: skip
"""Used up by the next statement, or not readable again: they cannot be replayed. (With sql_auto_is_null, IS NULL finds the row that the
session's last INSERT has made; in MariaDB once.)"""

SWITCHED: Final = frozenset(("profiling", "sql_auto_is_null", "pseudo_slave_mode", "pseudo_replica_mode", "insert_id", "skip_replication"))


def is_over(name: str, value: bytes) -> bool:
    """True when `value` is what the variable, one of PINNING, has in a new session."""
    return value == b"AUTOMATIC" or (name in SWITCHED and value in (b"OFF", b"0"))


MYSQL_VARIABLES: Final = (
    "auto_increment_increment auto_increment_offset autocommit big_tables binlog_direct_non_transactional_updates binlog_format "
    "binlog_row_image binlog_row_value_options binlog_rows_query_log_events binlog_transaction_compression "
    "binlog_transaction_compression_level_zstd block_encryption_mode bulk_insert_buffer_size character_set_client "
    "character_set_connection character_set_database character_set_filesystem character_set_results character_set_server "
    "collation_connection collation_database collation_server completion_type connection_memory_chunk_size connection_memory_limit "
    "cte_max_recursion_depth "
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

PLAIN: Final = re.compile(r"[A-Za-z0-9_ ,:+./=*-]*\Z")
"""Letters that mean the same in each character set that a client may have."""
NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?\Z")
UTF8MB4_LITERAL: Final = "CONVERT(0x{} USING utf8mb4)"
NULLABLE: Final = frozenset(("character_set_results", "innodb_tmpdir", "innodb_ft_user_stopword_table"))

SWITCHES: Final = {b"ON": "1", b"OFF": "0"}
"""A report says ON where SELECT says 1. As numbers they are the same, so that equal settings are equal."""


def literal(name: str, value: bytes) -> str:
    """`value`, as the server reported it for the variable `name`, as SQL that means it in every SQL mode and character set."""
    text = SWITCHES.get(value) or value.decode("utf-8", "surrogateescape")
    if text == "\0" or (not text and name in NULLABLE):
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
        if name not in IGNORED and name not in PINNING and name not in TRACKERS and name not in PAIRED:
            values[name] = literal(name, value)
    if CONNECTION in reports or COLLATION in reports:
        values[CONNECTION] = connection_value(reports.get(CONNECTION, b""), reports.get(COLLATION, b""))
    for name in OF_DATABASE:
        if name in reports:
            values = {**_without(values, OF_DATABASE), name: literal(name, reports[name])}
    return settings(values)


def of_schema(current: Settings) -> Settings:
    """`current`, when a schema has just been chosen."""
    if current.values.keys().isdisjoint(OF_DATABASE):
        return current
    return settings(_without(current.values, OF_DATABASE))


def keeps_database(actual: Settings, wanted: Settings) -> bool:
    """True when no choice of a schema is needed to take back what `actual` has set of its character set."""
    values = actual.values
    return all(name not in values or wanted.values.get(name) == values[name] for name in OF_DATABASE)


def after_reset(login: Settings, initial: "Defaults", version: str) -> Settings:
    """What a client has that came in with the settings `login`, behind a COM_RESET_CONNECTION: its character set is the server's default
    one then. In MariaDB it is that of the login, but CLIENT_IGNORE_SPACE counts no longer."""
    values = login.values | {DATABASE_COLLATION: AFTER_RESET}
    if "MariaDB" in version and values.get("sql_mode") == IGNORING_SPACE:
        del values["sql_mode"]
    names = initial.values
    if "MariaDB" not in version and names.keys() >= OF_CHARACTERS:
        values |= {name: names[name] for name in OF_CHARACTERS if name != COLLATION}
        values[CONNECTION] += f",SESSION {COLLATION}={names[COLLATION]}"
    return settings(values)


def _without(values: dict[str, str], names: Iterable[str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if name not in names}


PAIRED: Final = frozenset((CONNECTION, COLLATION, *OF_DATABASE))


def login_settings(charset: str, collation: str) -> Settings:
    """What a login with this character set and collation (its number in the handshake names both) means."""
    if not charset:
        return settings({})
    value = literal(CONNECTION, charset.encode())
    connection = connection_value(charset.encode(), collation.encode())
    return settings({"character_set_client": value, CONNECTION: connection, "character_set_results": value})


def with_ignore_space(wanted: Settings) -> Settings:
    """CLIENT_IGNORE_SPACE: the login adds a mode to those that the server gives a new session."""
    return settings(wanted.values | {"sql_mode": IGNORING_SPACE})


class Defaults:
    """What a new session has, by the variables' names, as SQL. Equal ones are the same object. Make one with `defaults()` only.

    While they are the server's, `@@global.name` is written in their place: it means the same, and needs no quoting.
    """

    __slots__ = ("__weakref__", "_differences", "superseded", "values")

    def __init__(self, values: dict[str, str]) -> None:
        self.values = values
        self.superseded = False
        """SET GLOBAL has changed something since."""
        self._differences = Differences(self.render)

    def supersede(self) -> None:
        """The server has others now."""
        if not self.superseded:
            self.superseded = True
            self._differences = Differences(self.render)

    def difference(self, actual: Settings, wanted: Settings) -> bytes:
        """The SET statement between the two, b"" if there is none. Not remembered if user variables are in it."""
        have, want = actual.values, wanted.values
        if not any(name[0] == "@" for name in (*have, *want)):
            return self._differences.between(actual, wanted)
        gone = [name for name in have if name not in want]
        changed = {name: value for name, value in want.items() if have.get(name) != value}
        return self.render(gone, changed) if gone or changed else b""

    def render(self, gone: list[str], wanted: dict[str, str]) -> bytes:
        """One SET statement, user variables last.

        Not DEFAULT but the global value: SET foreign_key_checks=DEFAULT turns it off (MySQL 9.7).
        """
        values = {name: self._initial(name) for name in gone if name not in OF_DATABASE} | wanted
        if not values:
            return b""
        if CONNECTION in gone:
            values[CONNECTION] += f",SESSION {COLLATION}=@@global.{COLLATION}"
        order = sorted(values, key=lambda name: (name[0] == "@", name))
        return ("SET " + assignments({name: values[name] for name in order})).encode("utf-8", "surrogateescape")

    def _initial(self, name: str) -> str:
        """The value of a new session."""
        if name[0] == "@":
            return "NULL"
        if self.superseded and name in self.values and name not in OF_CHARACTERS:
            return self.values[name]
        return "DEFAULT" if name in SESSION_ONLY else f"@@global.{name}"

    def seen_from(self, other: "Defaults", current: Settings) -> Settings:
        """The settings `current` of a session with these defaults, for a client that has `other` ones: what differs is a setting."""
        values = {
            name: value for name, value in self.values.items() if other.values.get(name, value) != value and name not in OF_CHARACTERS
        }
        return settings(values | current.values) if values else current


_defaults: "WeakValueDictionary[frozenset[tuple[str, str]], Defaults]" = WeakValueDictionary()


def defaults(values: dict[str, str]) -> Defaults:
    """The one `Defaults` with these values, as the server tells them."""
    if not values:
        return UNKNOWN_DEFAULTS
    key = frozenset(values.items())
    found = _defaults.get(key)
    if found is None:
        found = Defaults({name: literal(name, value.encode("utf-8", "surrogateescape")) for name, value in values.items()})
        _defaults[key] = found
    return found


UNKNOWN_DEFAULTS: Final = Defaults({})


def with_defaults(version: str, there: set[str]) -> tuple[str, ...]:
    """Of the variables that are `there`, those of which a session has a value of its own that begins as the global one."""
    if "MariaDB" not in version:
        there = there.intersection(MYSQL_VARIABLES.split())
    others = IGNORED | PINNING | TRACKERS | frozenset(OF_DATABASE) | SESSION_ONLY
    return tuple(sorted(name for name in there - others if NAME.match(name)))


def select_defaults(names: tuple[str, ...]) -> str:
    """A query for the global values of these variables: one value, a line for each; in every character set of the session the same.

    (MariaDB's max_statement_time applies: SET STATEMENT would be told to the next client as a change of the session.)
    """
    values = ",".join(f"IFNULL(@@global.{name},0x00)" for name in names)
    return f"SELECT /*+ MAX_EXECUTION_TIME(60000) */ CONCAT_WS(0x0A,{values}) LIMIT 1"


def foreign_names(actual: Settings, wanted: Settings) -> bool:
    """Is there a user variable between the two whose name is not in ASCII? Such a name is read by the session's character set."""
    return any(name[0] == "@" and not name.isascii() for values in (actual.values, wanted.values) for name in values)


def neutral_difference(actual: Settings, wanted: Settings, initial: Defaults) -> tuple[bytes, bytes]:
    """As `difference`, in two statements: user variables, for a session that reads UTF-8 (READ_UTF8), then the rest, in ASCII."""
    have, want = actual.values, wanted.values
    changed = {name: value for name, value in want.items() if have.get(name) != value}
    gone = [name for name in have if name not in want]
    variables = {name: changed.get(name, "NULL") for name in (*gone, *changed) if name[0] == "@"}
    others = {name: value for name, value in changed.items() if name[0] != "@"}
    if CLIENT in want:
        others[CLIENT] = want[CLIENT]
    first = b"SET " + assignments(variables).encode("utf-8", "surrogateescape") if variables else b""
    gone = [name for name in gone if name[0] != "@" and name != CLIENT]
    return first, initial.render(gone if CLIENT in want else [*gone, CLIENT], others)


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
    """The part of a SET statement that gives the session these values. A name that begins with @ is a user variable's."""
    return ",".join(f"{_quoted(name)}={value}" if name[0] == "@" else f"SESSION {name}={value}" for name, value in values.items())


def _quoted(variable: str) -> str:
    """A user variable as SQL."""
    return "@`" + variable[1:].replace("`", "``") + "`"


# ------------------------------------------------------------------------------------------------------------------ strict mode

VOLATILE: Final = IGNORED | TRACKERS | PINNING | {"in_transaction", "wsrep_gtid_seq_no", *OF_DATABASE}
"""Not a setting, or watched by other means."""
ONLY_IN_MARIADB: Final = "join_cache_level"
"""A variable of each version of MariaDB, and of no other server."""
UNLIMITED_TIME: Final = "SET STATEMENT max_statement_time=0 FOR "
"""MariaDB: what a client has set for its statements is not for ours."""
MANY: Final = 1 << 20
"""A LIMIT, so that the session's sql_select_limit does not apply."""
VARIABLES: Final = "SELECT LOWER(s.VARIABLE_NAME), CAST(s.VARIABLE_VALUE AS BINARY) FROM performance_schema.session_variables s"
MARIADB_VARIABLES: Final = (
    "SELECT LOWER(VARIABLE_NAME), CAST(SESSION_VALUE AS BINARY) FROM information_schema.SYSTEM_VARIABLES WHERE VARIABLE_SCOPE <> 'GLOBAL'"
)
ROLE: Final = "current_role()"
NO_ROLE: Final = ""
ROLES_SINCE: Final = 8
DIFFERING: Final = (
    f"{VARIABLES} LEFT JOIN performance_schema.global_variables g ON g.VARIABLE_NAME = s.VARIABLE_NAME"
    " WHERE NOT (s.VARIABLE_VALUE <=> g.VARIABLE_VALUE) OR s.VARIABLE_NAME IN ({}){} LIMIT {}"
)
MARIADB_DIFFERING: Final = f"{MARIADB_VARIABLES} AND (NOT (SESSION_VALUE <=> GLOBAL_VALUE) OR VARIABLE_NAME IN ({{}})){{}} LIMIT {{}}"
THREAD: Final = "(SELECT THREAD_ID FROM performance_schema.threads WHERE PROCESSLIST_ID = CONNECTION_ID())"
REST: Final = (
    "SELECT CAST(CONCAT('VARIABLE:', VARIABLE_NAME) AS BINARY) FROM performance_schema.user_variables_by_thread"
    f" WHERE VARIABLE_VALUE IS NOT NULL AND THREAD_ID = {THREAD}"
    " UNION ALL SELECT CAST(CONCAT(LOWER(OBJECT_TYPE), ' lock ', COALESCE(OBJECT_NAME, '')) AS BINARY) FROM"
    f" performance_schema.metadata_locks WHERE LOCK_DURATION = 'EXPLICIT' AND OWNER_THREAD_ID = {THREAD}"
    " UNION ALL SELECT CAST(CONCAT('prepared statement ', STATEMENT_NAME) AS BINARY) FROM"
    f" performance_schema.prepared_statements_instances WHERE STATEMENT_NAME IS NOT NULL AND OWNER_THREAD_ID = {THREAD} LIMIT {MANY}"
)
"""User variables, table locks and handlers, prepared statements of SQL: for those who may read these tables."""
MARIADB_REST: Final = (
    "SELECT CAST(CONCAT('VARIABLE:', VARIABLE_NAME) AS BINARY) FROM information_schema.USER_VARIABLES"
    f" WHERE VARIABLE_VALUE IS NOT NULL LIMIT {MANY}"
)
LOCK_NAME: Final = re.compile(rb"[A-Za-z0-9_ ,:+./=*$()-]+\Z")
"""A lock's name that needs no escaping and means the same in each character set. (To swe7, `@` and brackets are letters.)"""
HELD: Final = (
    "SELECT CAST(CONCAT('VARIABLE:', VARIABLE_NAME) AS BINARY) FROM performance_schema.user_variables_by_thread"
    f" WHERE THREAD_ID = {THREAD}"
    " UNION ALL SELECT CAST(CONCAT(OBJECT_TYPE, ':', COALESCE(OBJECT_NAME, '')) AS BINARY) FROM"
    f" performance_schema.metadata_locks WHERE LOCK_DURATION = 'EXPLICIT' AND OWNER_THREAD_ID = {THREAD}"
    " UNION ALL SELECT CAST(CONCAT('PREPARED:', STATEMENT_NAME) AS BINARY) FROM"
    f" performance_schema.prepared_statements_instances WHERE STATEMENT_NAME IS NOT NULL AND OWNER_THREAD_ID = {THREAD}"
    " UNION ALL SELECT CONCAT('INSTRUMENT ', ENABLED) FROM performance_schema.setup_instruments"
    f" WHERE NAME = 'wait/lock/metadata/sql/mdl' LIMIT {MANY}"
)
"""The names of all that the server tells of a session, and whether it tells of locks."""
MARIADB_HELD: Final = f"SELECT CAST(CONCAT('VARIABLE:', VARIABLE_NAME) AS BINARY) FROM information_schema.USER_VARIABLES LIMIT {MANY}"
SHOWING: Final = {
    CLIENT: "utf8mb4", "max_execution_time": "0", "max_join_size": "18446744073709551615", "sql_big_selects": "1",
    "sql_select_limit": "18446744073709551615",
}  # fmt: skip
TEMPORARY_CREATED: Final = "WHERE VARIABLE_NAME='Com_create_temporary_table'"
TELL_ALL: Final = b"SET SESSION session_track_schema=ON"
"""MariaDB: it changes nothing, but its OK packet tells of all changes that wait to be told."""
READ_UTF8: Final = b"SET SESSION character_set_client=utf8mb4"
RELEASE_ALL_LOCKS: Final = b"SELECT RELEASE_ALL_LOCKS() LIMIT 1"
"""Its answer is how many there were. (The LIMIT is there in the place of sql_select_limit.)"""


def select_all(version: str) -> bytes:
    """A query for all session variables, and ROLE. (The global ones may change while the session lasts.)"""
    return f"{MARIADB_VARIABLES if 'MariaDB' in version else VARIABLES}{_union_role(version)} LIMIT {MANY}".encode()


def select_role(version: str) -> str:
    """A query for the current role, NO_ROLE if there is none; nothing where the server has no roles."""
    number = re.match(r"\d+", version)
    return f"SELECT COALESCE(NULLIF(CURRENT_ROLE(), 'NONE'), '{NO_ROLE}') LIMIT 1" if number and int(number[0]) >= ROLES_SINCE else ""


def _union_role(version: str) -> str:
    """More of a query: the current role, in the place of a variable."""
    query = select_role(version)
    return f" UNION ALL SELECT '{ROLE}', CAST(({query}) AS BINARY)" if query else ""


def select_differing(version: str, names: Iterable[str]) -> bytes:
    """A query for the session variables whose values are not the global ones, and those of `names`."""
    template = MARIADB_DIFFERING if "MariaDB" in version else DIFFERING
    listed = ",".join(f"'{name}'" for name in ("", *sorted(names)) if name[:1] != "@")
    return template.format(listed, _union_role(version), MANY).encode()


def select_held(version: str) -> bytes:
    """A query for what the session holds: of MySQL all that there is, of MariaDB user variables."""
    return (UNLIMITED_TIME + MARIADB_HELD if "MariaDB" in version else HELD).encode()


def count_created(version: str) -> bytes:
    """A query for the number of tables that the session has created, in the last column. (MariaDB counts the temporary ones apart.)"""
    if "MariaDB" in version:
        return f"{UNLIMITED_TIME}SELECT VARIABLE_VALUE FROM information_schema.SESSION_STATUS {TEMPORARY_CREATED} LIMIT 1".encode()
    return b"SHOW SESSION STATUS LIKE 'Com_create_table'"


def without_limits(current: Settings) -> tuple[bytes, bytes]:
    """SET statements around a SHOW, to which the limits of a session with these settings would apply; b"" where there are none.

    (As to the character set: MySQL's own text behind SHOW STATUS cannot be read in swe7.)
    """
    values = current.values
    names = [name for name in SHOWING if name in values and (name != CLIENT or "swe7" in values[name])]
    if not names:
        return b"", b""
    before = assignments({name: SHOWING[name] for name in names})
    return f"SET {before}".encode(), f"SET {assignments({name: values[name] for name in names})}".encode("utf-8", "surrogateescape")


def read_again(wanted: Settings) -> bytes:
    """After READ_UTF8: as it was."""
    return f"SET SESSION {CLIENT}={wanted.values.get(CLIENT, '@@global.' + CLIENT)}".encode()


def select_rest(version: str) -> bytes:
    """A query for the names of what else a session holds, as far as the server can tell."""
    return (MARIADB_REST if "MariaDB" in version else REST).encode()


def unexpected(believed: Settings, baseline: dict[str, bytes], found: dict[str, bytes], initial: Defaults) -> list[str]:
    """The session variables in `found` that are neither as believed nor, where nothing is believed of them, as in `baseline`.

    Or as in `initial`: a client keeps the defaults of its login, also on a connection that was made behind a SET GLOBAL.
    """
    values = believed.values
    wrong: list[str] = []
    for name, value in found.items():
        wanted = values.get(CONNECTION if name == COLLATION else name)
        if name in VOLATILE or "(" in (wanted or ""):
            continue
        if wanted is None:
            as_it_was = baseline.get(name) == value or initial.values.get(name) == literal(name, value)
        elif name in (CONNECTION, COLLATION):
            as_it_was = literal(name, value) in wanted or (name == COLLATION and "," not in wanted)
        else:
            as_it_was = literal(name, value) == wanted
        if not as_it_was:
            wrong.append(name)
    return sorted(wrong)


# ---------------------------------------------------------------------------------------------------------------- user variables

MAX_USER_VARIABLES: Final = 128
MAX_USER_VARIABLE_BYTES: Final = 1 << 16
UNSIGNED: Final = 0x20
PARTS: Final = 4
"""Columns for each variable in the answer to `select_user_variables`."""


def select_user_variables(names: tuple[bytes, ...]) -> bytes:
    """A query for the values of user variables, and what is needed to make them again; without a row if they are too long."""
    quoted = [_quoted("@" + name.decode("utf-8", "surrogateescape")) for name in names]
    columns = ",".join(f"{name},HEX({name}),CHARSET({name}),COLLATION({name})" for name in quoted)
    size = "+".join(f"COALESCE(OCTET_LENGTH({name}),0)" for name in quoted)
    return f"SELECT {columns} FROM DUAL WHERE {size}<={MAX_USER_VARIABLE_BYTES} LIMIT 1".encode("utf-8", "surrogateescape")


def user_variables(names: tuple[bytes, ...], result: codec.Result) -> dict[str, str | None] | None:
    """From the answer to that query: the variables' values as SQL, None for NULL. None where there is no answer, and where a value has
    bytes that its character set has not: no SQL makes such a value."""
    if not result.ended or len(result.rows) != 1 or len(result.columns) != PARTS * len(names):
        return None
    row = codec.row_values(result.rows[0])
    found: dict[str, str | None] = {}
    for index, name in enumerate(names):
        value, digits, charset, collation = row[PARTS * index : PARTS * index + PARTS]
        literal = None
        if value is not None:
            literal = _variable_literal(result.columns[PARTS * index], value, digits or b"", charset or b"", collation or b"")
            if literal is None:
                return None
        found["@" + name.decode("utf-8", "surrogateescape")] = literal
    return found


TWO_BYTES: Final = rb"(?:[\x00-\x7f]|[%b][%b])*+\Z"
WELL_FORMED: Final = {
    b"ascii": re.compile(rb"[\x00-\x7f]*+\Z"),
    b"big5": re.compile(TWO_BYTES % (rb"\xa1-\xf9", rb"\x40-\x7e\xa1-\xfe")),
    b"gb2312": re.compile(TWO_BYTES % (rb"\xa1-\xf7", rb"\xa1-\xfe")),
    b"gbk": re.compile(TWO_BYTES % (rb"\x81-\xfe", rb"\x40-\x7e\x80-\xfe")),
    b"euckr": re.compile(TWO_BYTES % (rb"\x81-\xfe", rb"\x41-\x5a\x61-\x7a\x81-\xfe")),
    b"gb18030": re.compile(rb"(?:[\x00-\x7f]|[\x81-\xfe](?:[\x40-\x7e\x80-\xfe]|[0-9][\x81-\xfe][0-9]))*+\Z"),
    **dict.fromkeys((b"sjis", b"cp932"), re.compile(rb"(?:[\x00-\x7f\xa1-\xdf]|[\x81-\x9f\xe0-\xfc][\x40-\x7e\x80-\xfc])*+\Z")),
    **dict.fromkeys((b"ujis", b"eucjpms"),
                    re.compile(rb"(?:[\x00-\x7f]|\x8e[\xa0-\xdf]|\x8f[\xa1-\xfe][\xa1-\xfe]|[\xa1-\xfe][\xa1-\xfe])*+\Z")),
}  # fmt: skip
"""What a literal of these character sets may have in it. (Those that are not here or in UNICODE have one byte for each letter.)"""
UNICODE: Final = {
    b"utf8": "utf-8", b"utf8mb3": "utf-8", b"utf8mb4": "utf-8", b"ucs2": "utf-16-be", b"utf16": "utf-16-be", b"utf16le": "utf-16-le",
    b"utf32": "utf-32-be",
}  # fmt: skip


def _is_well_formed(digits: bytes, charset: bytes) -> bool:
    """Is the value with these hexadecimal digits text in this character set? (PREPARE in gbk makes literals that are UTF-8, called gbk.)"""
    data = bytes.fromhex(digits.decode())
    pattern = WELL_FORMED.get(charset)
    if pattern is not None:
        return pattern.match(data) is not None
    try:
        data.decode(UNICODE.get(charset, "latin-1"))
    except UnicodeDecodeError:
        return False
    return True


def _variable_literal(definition: bytes, value: bytes, digits: bytes, charset: bytes, collation: bytes) -> str | None:
    """SQL for a value of exactly this type; None where no literal has it."""
    kind, flags = codec.column_type(definition)
    text = value.decode("ascii", "replace")
    if kind == codec.LONGLONG:
        return f"CAST({text} AS UNSIGNED)" if flags & UNSIGNED else text
    if kind == codec.NEWDECIMAL:
        return text if "." in text else f"CAST({text} AS DECIMAL(65,0))"
    if kind == codec.DOUBLE:
        return text if "e" in text else text + "e0"
    if not _is_well_formed(digits, charset):
        return None
    literal = f"x'{digits.decode()}'"
    return literal if charset == b"binary" else f"_{charset.decode()} {literal} COLLATE {collation.decode()}"


def with_user_variables(current: Settings, found: dict[str, str | None]) -> Settings | None:
    """`current` with these values of user variables; None if there would be too many."""
    values = {name: value for name, value in current.values.items() if name not in found}
    values |= {name: value for name, value in found.items() if value is not None}
    sizes = [len(name) + len(value) for name, value in values.items() if name[0] == "@"]
    if len(sizes) > MAX_USER_VARIABLES or sum(sizes) > 2 * MAX_USER_VARIABLE_BYTES:
        return None
    return settings(values)


# ---------------------------------------------------------------------------------------------------------------------- questions


def are_locks_mine(names: tuple[bytes, ...]) -> bytes:
    """A query that answers 1 for each lock that the session holds, else 0. The names need no escaping (`LOCKS`)."""
    return b"SELECT " + b",".join(b"COALESCE(IS_USED_LOCK('%s')=CONNECTION_ID(),0)" % name for name in names) + b" LIMIT 1"


def count_locks(version: str) -> bytes:
    """A query for the number of GET_LOCK()'s locks that the session holds. An error or NULL: this user, or this server, cannot tell."""
    if "MariaDB" in version:
        return b"SELECT COUNT(*) FROM information_schema.metadata_lock_info WHERE THREAD_ID=CONNECTION_ID() AND LOCK_TYPE='User lock'"
    return (
        b"SELECT IF((SELECT ENABLED FROM performance_schema.setup_instruments WHERE NAME='wait/lock/metadata/sql/mdl')='YES',COUNT(*),NULL)"
        b" FROM performance_schema.metadata_locks WHERE OBJECT_TYPE IN ('USER LEVEL LOCK','LOCKING SERVICE') AND OWNER_THREAD_ID="
        b"(SELECT THREAD_ID FROM performance_schema.threads WHERE PROCESSLIST_ID=CONNECTION_ID())"
    )


def counted_column(table: bytes) -> bytes:
    """A query for the column of this table, given as SQL, that has AUTO_INCREMENT."""
    return b"SHOW COLUMNS FROM " + table + b" WHERE Extra LIKE '%auto_increment%'"


def to_be_verified(reports: dict[str, bytes]) -> set[str]:
    """Of the variables that the server has reported: which must be read to know their values."""
    names = {name for name in reports if name not in IGNORED and name not in PINNING and name not in TRACKERS and NAME.match(name)}
    for pair in ((CONNECTION, COLLATION), OF_DATABASE):
        if not names.isdisjoint(pair):
            names |= set(pair)
    return names


def select_values(names: tuple[str, ...]) -> bytes:
    """A query for the values of these variables."""
    return ("SELECT " + ",".join(f"@@session.{name}" for name in names) + " LIMIT 1").encode()


NAME: Final = re.compile(r"[a-z0-9_]+\Z")
PARSING: Final = (
    "sql_mode", "character_set_client", CONNECTION, "default_collation_for_utf8mb4", "default_week_format", "div_precision_increment",
    "group_concat_max_len", "old_mode", "sql_auto_is_null", "time_zone", "windowing_use_high_precision",
)  # fmt: skip
"""What some server works out of when it prepares a statement, and not again when it executes it."""


def parsing(wanted: Settings) -> str:
    """The settings by which a statement's text is read. Statements are shared only where these are equal."""
    values = wanted.values
    return "|".join(values.get(name, "") for name in PARSING)


def as_read(current: Settings, prepared: Settings) -> Settings:
    """`current`, but for the settings by which texts are read: these are those of `prepared`."""
    values = {name: value for name, value in current.values.items() if name not in PARSING}
    return settings(values | {name: prepared.values[name] for name in PARSING if name in prepared.values})


UNKNOWN: Final = settings(dict.fromkeys(CHARACTER_SETTINGS, "?"))
"""A session after its login: its character set is the login's, whatever that was, so the first client sets its own."""
