"""A question to a server that many tasks have at the same time, about something that may change at any moment."""

from collections.abc import Awaitable, Callable
from math import inf

import trio


class SharedQuestion:
    """Put to the server once for all who wait for it. An answer counts only for those who had come before the question was sent.

    So what the server said a moment ago is never taken for what it says now. One question at most is under way, and at least `pause`
    seconds are between two.
    """

    def __init__(self, pause: float = 0.0) -> None:
        self._pause = pause
        self._sent_at = -inf
        """Of the last question that was answered (trio's clock)."""
        self._under_way: trio.Event | None = None
        self._failures = 0
        self.patient_from = -inf
        """Until then (trio's clock) nobody waits for a connection on which it can be asked: one has waited for nothing."""

    async def ask(self, since: float, put: Callable[[], Awaitable[float | None]]) -> bool:
        """Wait for the answer to a question that was sent after `since` (trio's clock). False: there was nobody to ask.

        `put` asks, and returns when the question was sent, or None.
        """
        while self._sent_at <= since:
            if self._under_way is None:
                return await self._put(put)
            failures = self._failures
            await self._under_way.wait()
            if self._failures != failures:
                return False
        return True

    async def _put(self, put: Callable[[], Awaitable[float | None]]) -> bool:
        self._under_way = ended = trio.Event()
        try:
            if trio.current_time() < self._sent_at + self._pause:
                await trio.sleep_until(self._sent_at + self._pause)
            sent = await put()
        finally:
            self._under_way = None
            ended.set()
        if sent is None:
            self._failures += 1
            return False
        self._sent_at = sent
        return True
