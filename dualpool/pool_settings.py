"""What a pool is told: its sizes and its times."""


class PoolSettings:
    """Sizes, and times in seconds. 0 means "no limit" for every time but `lifetime` (0: each connection serves once)."""

    __slots__ = (
        "check_delay",
        "idle_after",
        "idle_timeout",
        "lifetime",
        "lifetime_jitter",
        "login_retry",
        "max_waiting",
        "min_size",
        "query_wait",
        "query_wait_name",
        "query_wait_notify",
        "reserve_after",
        "reserve_size",
        "rotates",
        "size",
    )

    def __init__(
        self,
        size: int = 20,
        min_size: int = 0,
        query_wait: float = 120.0,
        query_wait_notify: float = 5.0,
        idle_timeout: float = 600.0,
        lifetime: float = 3600.0,
        lifetime_jitter: float = 0.0,
        login_retry: float = 1.0,
        check_delay: float = 30.0,
        reserve_size: int = 0,
        reserve_after: float = 5.0,
        idle_after: float = 0.0,
        max_waiting: int = 0,
        query_wait_name: str = "timeouts.query_wait",
        rotates: bool = False,
    ) -> None:
        self.size = size
        self.reserve_size = reserve_size
        """More connections than `size`, for as long as somebody has waited for `reserve_after`. They are closed when nobody waits."""
        self.reserve_after = reserve_after
        self.idle_after = idle_after
        """A pool that nobody has used for this long goes to sleep: no connections, no minimum."""
        self.max_waiting = max_waiting
        """So many may wait; whoever comes then is refused at once. 0: no limit."""
        self.min_size = min_size
        """Kept open while there are clients (`Pool.clients`); without clients there is no minimum."""
        self.query_wait = query_wait
        self.query_wait_name = query_wait_name
        """The setting that `query_wait` comes from, for messages."""
        self.query_wait_notify = query_wait_notify
        self.idle_timeout = idle_timeout
        self.lifetime = lifetime
        self.lifetime_jitter = lifetime_jitter
        """Each connection's lifetime is shortened by a random part of this, so that they do not all end at once."""
        self.login_retry = login_retry
        self.check_delay = check_delay
        self.rotates = rotates
        """First in, first out: each lease gets the connection that has been idle for longest. For development."""
