"""The configuration: attrs classes, and how they come out of a TOML file or out of URLs. Every error is one ConfigError."""

from dualpool.config.from_urls import DEFAULT_BINDS, from_urls
from dualpool.config.load import load, loads
from dualpool.config.model import (
    LANES,
    POOL_MODES,
    WILDCARD,
    Admin,
    Backend,
    Bind,
    Budget,
    Config,
    Database,
    Lane,
    Limits,
    Listener,
    Log,
    MemoryBudget,
    PoolMode,
    Protocol,
    Timeouts,
    Tls,
    User,
)
from dualpool.config.url import ServerUrl, parse_url

__all__ = [
    "DEFAULT_BINDS",
    "LANES",
    "POOL_MODES",
    "WILDCARD",
    "Admin",
    "Backend",
    "Bind",
    "Budget",
    "Config",
    "Database",
    "Lane",
    "Limits",
    "Listener",
    "Log",
    "MemoryBudget",
    "PoolMode",
    "Protocol",
    "ServerUrl",
    "Timeouts",
    "Tls",
    "User",
    "from_urls",
    "load",
    "loads",
    "parse_url",
]
