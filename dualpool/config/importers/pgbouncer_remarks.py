"""What an import of pgbouncer.ini says of the settings that have no equivalent."""

from typing import Final

TLS_LIBRARY: Final = "the TLS library's own choice is used: TLS 1.2 or newer, and its secure ciphers"
KERNEL: Final = "the operating system's setting is used"
LOGGING: Final = "see [log]"

NO_EQUIVALENT: Final = {
    "application_name_add_host": "SHOW CLIENTS tells where each client is",
    "auth_ldap_options": "LDAP is not possible",
    "autodb_idle_timeout": 'pools that were made for "*" stay, without connections',
    "client_tls13_ciphers": TLS_LIBRARY,
    "client_tls_ciphers": TLS_LIBRARY,
    "client_tls_dheparams": TLS_LIBRARY,
    "client_tls_ecdhcurve": TLS_LIBRARY,
    "client_tls_protocols": TLS_LIBRARY,
    "disable_pqexec": "simple queries are not refused",
    "dns_nxdomain_ttl": "a name that is not found is looked up again with the next connect",
    "dns_zone_check_period": "timeouts.dns says how soon another address is noticed",
    "log_pooler_errors": LOGGING,
    "log_stats": LOGGING,
    "login_notify_message": "clients are told nothing at login",
    "max_packet_size": "messages may have any length, and only their start is held",
    "peer_id": "a cancel request has to reach the process that serves the client",
    "pkt_buf": "buffers have a fixed size",
    "pool_idle_timeout": "pools stay, without connections",
    "resolv_conf": KERNEL,
    "sbuf_loopcnt": "every client gets its turn anyway",
    "scram_iterations": "4096 are used where a plain password is stored",
    "server_fast_close": "a session that is to be moved ends with its client",
    "server_reset_query": "DISCARD ALL, and only when a session has left something behind",
    "server_reset_query_always": "a session is reset when it has left something behind, in every mode",
    "server_round_robin": "the connection that was used last is used first",
    "server_tls13_ciphers": TLS_LIBRARY,
    "server_tls_ciphers": TLS_LIBRARY,
    "server_tls_protocols": TLS_LIBRARY,
    "stats_period": "averages are taken over a minute",
    "tcp_defer_accept": KERNEL,
    "tcp_keepalive": "keepalive is on",
    "tcp_keepcnt": KERNEL,
    "tcp_keepidle": KERNEL,
    "tcp_keepintvl": KERNEL,
    "tcp_socket_buffer": KERNEL,
    "tcp_user_timeout": KERNEL,
    "track_extra_parameters": "every setting is tracked",
    "conffile": "RELOAD reads the file that dualpool was started with",
    "job_name": "is for Windows",
    "service_name": "is for Windows",
}

DEFAULTS: Final = {
    "application_name_add_host": ("0",),
    "autodb_idle_timeout": ("3600", "3600.0"),
    "client_tls13_ciphers": ("",),
    "client_tls_ciphers": ("", "default", "secure", "fast", "normal"),
    "client_tls_dheparams": ("auto",),
    "client_tls_ecdhcurve": ("auto",),
    "client_tls_protocols": ("secure", "tlsv1.2,tlsv1.3"),
    "disable_pqexec": ("0",),
    "dns_nxdomain_ttl": ("15", "15.0"),
    "dns_zone_check_period": ("0", "0.0"),
    "log_pooler_errors": ("0", "1"),
    "log_stats": ("0", "1"),
    "login_notify_message": ("",),
    "max_packet_size": ("2147483647",),
    "peer_id": ("0",),
    "pkt_buf": ("4096",),
    "pool_idle_timeout": ("0",),
    "sbuf_loopcnt": ("5",),
    "scram_iterations": ("4096",),
    "server_fast_close": ("0",),
    "server_reset_query": ("discard all", "discard all;"),
    "server_reset_query_always": ("0",),
    "server_round_robin": ("0",),
    "server_tls13_ciphers": ("",),
    "server_tls_ciphers": ("", "default", "secure", "fast", "normal"),
    "server_tls_protocols": ("secure", "tlsv1.2,tlsv1.3"),
    "stats_period": ("60",),
    "tcp_defer_accept": ("0", "1"),
    "tcp_keepalive": ("1",),
    "tcp_keepcnt": ("0",),
    "tcp_keepidle": ("0",),
    "tcp_keepintvl": ("0",),
    "tcp_socket_buffer": ("0",),
    "tcp_user_timeout": ("0",),
    "job_name": ("pgbouncer",),
    "service_name": ("pgbouncer",),
}
"""Values that say nothing, so that nothing need be said of them."""

FIXED: Final = frozenset(
    {"listen_addr", "listen_backlog", "listen_port", "so_reuseport", "unix_socket_dir", "unix_socket_group", "unix_socket_mode"}
)
"""What is honoured, but only at the start."""

LIVE: Final = frozenset(
    {
        "admin_users", "auth_dbname", "auth_file", "auth_hba_file", "auth_ident_file", "auth_query", "auth_type", "auth_user",
        "cancel_wait_timeout", "client_idle_timeout", "client_login_timeout", "client_tls_ca_file", "client_tls_cert_file",
        "client_tls_key_file", "client_tls_sslmode", "default_pool_size", "dns_max_ttl", "idle_transaction_timeout",
        "ignore_startup_parameters", "log_connections", "log_disconnections", "max_client_conn", "max_db_client_connections",
        "max_db_connections", "max_prepared_statements", "max_user_client_connections", "max_user_connections", "min_pool_size",
        "pool_mode", "query_timeout", "query_wait_notify", "query_wait_timeout", "reserve_pool_size", "reserve_pool_timeout",
        "server_check_delay", "server_check_query", "server_connect_timeout", "server_idle_timeout", "server_lifetime",
        "server_login_retry", "server_tls_ca_file", "server_tls_cert_file", "server_tls_key_file", "server_tls_sslmode",
        "stats_users", "suspend_timeout", "transaction_timeout", "verbose",
    }
)  # fmt: skip
"""What is honoured, and may change at any time."""

DONE_BY_COMMAND: Final = frozenset({"logfile", "pidfile", "syslog", "syslog_facility", "syslog_ident", "user"})
"""What is done when the pgbouncer.ini itself runs, and is of no TOML file."""
ONLY_AS_INI: Final = "only when the pgbouncer.ini itself is run"

HONOURED: Final = frozenset(
    {
        "application_name", "client_encoding", "client_min_messages", "datestyle", "default_transaction_isolation",
        "default_transaction_read_only", "extra_float_digits", "geqo", "idle_in_transaction_session_timeout", "intervalstyle", "jit",
        "lock_timeout", "options", "role", "search_path", "standard_conforming_strings", "statement_timeout",
        "synchronous_commit", "timezone", "work_mem",
    }
)  # fmt: skip
"""Start-up parameters that PgBouncer had to be told to ignore, and that every server knows: here they are set for the client."""
