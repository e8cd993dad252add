"""A time limit that a busy event loop does not trip."""

import asyncio
from types import TracebackType

STALLED_S = 0.02
"""A timer that rings this late tells that the event loop stood still, and nothing of the store."""


class Patience:
    """Raises TimeoutError from the block when it takes longer than ``limit_s``.

    When the event loop stood still meanwhile, the answer may lie there unread: there is once more
    :data:`STALLED_S` for it.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s, self._spared = limit_s, False
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._timeout.__aenter__()
        self._due_s = self._loop.time() + self._limit_s
        self._timer = self._loop.call_at(self._due_s, self._ring)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        await self._timeout.__aexit__(kind, err, trace)

    def _ring(self) -> None:
        now_s = self._loop.time()
        if now_s - self._due_s > STALLED_S and not self._spared:
            self._spared, self._due_s = True, now_s + STALLED_S
            self._timer = self._loop.call_at(self._due_s, self._ring)
        else:
            self._timeout.reschedule(now_s)
