"""Wait for a limit to refill, for callers that would rather wait than be refused.

Who waits holds nothing: no seat, no place in line, nothing of any limit. Requests of one caller
wait in the order in which they came here; only the first of them asks the store.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from serve_app.ingress.bill import Bill

SEAT_WAIT_S = 0.25
"""How often to ask whether one of as many requests as may run at once has ended."""


@dataclass(slots=True)
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class Patience:
    """The requests of one gateway that wait for their limits."""

    def __init__(self) -> None:
        self._turns: dict[str, _Turn] = {}
        self._waiting: Counter[str] = Counter()

    async def held(self, bucket: str, hold: Callable[[], Awaitable[Bill]]) -> Bill:
        """Return the bill that ``hold`` makes: let in, or refused in the end.

        Args:
            bucket: whose limits it is about.
            hold: asks the store once.
        """
        began_s = time.monotonic()
        bill = await hold()
        if _wait_s(bill, began_s) is None or self._full(bill):
            return bill
        turn, class_ = self._turns.setdefault(bucket, _Turn()), bill.queue_class
        turn.waiting += 1
        self._waiting[class_.name] += 1
        try:
            async with asyncio.timeout(class_.max_wait_s), turn.lock:
                return await _waited(bill, began_s, hold)
        except TimeoutError:
            return bill
        finally:
            self._waiting[class_.name] -= 1
            turn.waiting -= 1
            if not turn.waiting:
                del self._turns[bucket]

    def _full(self, bill: Bill) -> bool:
        """Return whether as many wait already as may wait in line."""
        return self._waiting[bill.queue_class.name] >= bill.queue_class.max_tickets


async def _waited(bill: Bill, began_s: float, hold: Callable[[], Awaitable[Bill]]) -> Bill:
    while (wait_s := _wait_s(bill, began_s)) is not None:
        await asyncio.sleep(wait_s)
        bill = await hold()
        bill.waited_ms = (time.monotonic() - began_s) * 1_000
    return bill


def _wait_s(bill: Bill, began_s: float) -> float | None:
    """Return how long to wait before asking again; None if it is let in, or refused for good."""
    said = bill.held.refusing
    if said is None or said.wait_us <= 0 or not bill.caller.over_limit_waits:
        return None
    left_s = bill.queue_class.max_wait_s - (time.monotonic() - began_s)
    wait_s = said.wait_us / 1e6 if said.kind.period else SEAT_WAIT_S
    return wait_s if wait_s <= left_s else None
