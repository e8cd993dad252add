"""A time limit that tells the store's silence from our own being busy."""

import asyncio
from types import TracebackType

TURNS = 8
"""Turns of the event loop in which an answer that has come is read and reaches whoever waits."""


class Patience:
    """Raises TimeoutError from the block when it takes longer than ``limit_s``.

    When the time is up, the answer may lie there unread, because the event loop had others to
    serve. So it takes :data:`TURNS` more turns: no time where nothing else is to do, and where
    there is much, at most as long again as the limit.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s, self._turns = limit_s, TURNS
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._timeout.__aenter__()
        self._due_s = self._loop.time() + self._limit_s
        self._next: asyncio.Handle = self._loop.call_at(self._due_s, self._ring)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._next.cancel()
        await self._timeout.__aexit__(kind, err, trace)

    def _ring(self) -> None:
        now_s = self._loop.time()
        if self._turns and now_s < self._due_s + self._limit_s:
            self._turns -= 1
            self._next = self._loop.call_soon(self._ring)
        else:
            self._timeout.reschedule(now_s)
