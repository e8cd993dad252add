"""Wait for a limit to refill, for callers that would rather wait than be refused.

Who waits holds nothing: no seat, no place in line, nothing of any limit. Requests of one caller to
one model are let in in the order in which they came here: only the first of those that wait asks
the store, and who comes later stands behind them. Who would wait for longer than its class may is
refused at once, and told how long that would have been.

Nobody waits in the turn of another: only who was refused by the store, which knew it, opens a turn,
and only who shows the same proof joins it. What asks the store is never broken off: whoever asks
again would meet what the first may still hold.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field, replace

from serve_app.ingress.bill import Bill
from serve_app.settings import QueueClass

SEAT_WAIT_S = 0.25
"""How often to ask whether one of as many requests as may run at once has ended."""

MINUTE_S = 60
Ask = Callable[[], Awaitable[Bill]]


@dataclass(slots=True)
class _Turn:
    """The requests of one caller that wait: for how long, and in which class."""

    queue_class: QueueClass
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    booked_s: float = 0.0
    refill_s: float = 0.0

    @property
    def is_short(self) -> bool:
        """Whether one more that is like the last would be let in before its deadline."""
        return self.booked_s + self.refill_s <= self.queue_class.max_wait_s


class Patience:
    """The requests of one gateway that wait for their limits."""

    def __init__(self) -> None:
        self._turns: dict[Hashable, _Turn] = {}
        self._waiting: Counter[str] = Counter()

    async def held(self, whose: Hashable, hold: Ask) -> Bill:
        """Return the bill that ``hold`` makes: let in, or refused in the end.

        Args:
            whose: names the caller, what proves it, and the model.
            hold: asks the store once.
        """
        began_s = time.monotonic()
        turn = self._turns.get(whose)
        if turn is not None and turn.is_short and self._has_room(turn):
            return await self._in_turn(whose, turn, hold, began_s, turn.refill_s)
        bill = await hold()
        turn = self._turns.get(whose)
        wait_s = _wait_s(bill, began_s, turn.booked_s if turn else 0.0)
        if wait_s is None:
            return bill
        turn = turn or _Turn(bill.queue_class)
        if wait_s < 0 or not self._has_room(turn):
            return _refused(bill, abs(wait_s))
        return await self._in_turn(whose, turn, hold, began_s, _refill_s(bill), bill)

    def _has_room(self, turn: _Turn) -> bool:
        """Return whether fewer wait of its class than may."""
        return self._waiting[turn.queue_class.name] < turn.queue_class.max_tickets

    async def _in_turn(
        self,
        whose: Hashable,
        turn: _Turn,
        hold: Ask,
        began_s: float,
        refill_s: float,
        bill: Bill | None = None,
    ) -> Bill:
        self._turns[whose], class_ = turn, turn.queue_class
        fresh = bill if turn.waiting == 0 else None
        turn.refill_s, turn.booked_s = refill_s, turn.booked_s + refill_s
        turn.waiting += 1
        self._waiting[class_.name] += 1
        try:
            if not await _is_first(turn):
                return _timed(await hold(), began_s)
            try:
                return await _waited(fresh, began_s, hold)
            finally:
                turn.lock.release()
        finally:
            self._waiting[class_.name] -= 1
            turn.booked_s -= refill_s
            turn.waiting -= 1
            if not turn.waiting:
                del self._turns[whose]


async def _is_first(turn: _Turn) -> bool:
    """Return whether its turn came before the deadline; if so, the turn's lock is held."""
    try:
        async with asyncio.timeout(turn.queue_class.max_wait_s):
            return await turn.lock.acquire()
    except TimeoutError:
        return False


async def _waited(bill: Bill | None, began_s: float, hold: Ask) -> Bill:
    """Return the bill of who is first: asked for until it is let in, or would wait too long."""
    bill = bill or _timed(await hold(), began_s)
    while (wait_s := _wait_s(bill, began_s, 0.0)) is not None:
        if wait_s < 0:
            return bill
        await asyncio.sleep(wait_s)
        bill = _timed(await hold(), began_s)
    return bill


def _timed(bill: Bill, began_s: float) -> Bill:
    bill.waited_ms = (time.monotonic() - began_s) * 1_000
    return bill


def _wait_s(bill: Bill, began_s: float, booked_s: float) -> float | None:
    """Return how long to wait before asking again, less than 0 if that is too long.

    None if there is nothing to wait for: it is let in, or refused for good, or would not wait.
    """
    said = bill.held.refusing
    if said is None or said.wait_us <= 0 or not bill.caller.over_limit_waits:
        return None
    left_s = bill.queue_class.max_wait_s - (time.monotonic() - began_s)
    if not said.kind.period:
        return SEAT_WAIT_S if left_s > SEAT_WAIT_S else -SEAT_WAIT_S
    wait_s = said.wait_us / 1e6 + booked_s
    return wait_s if wait_s <= left_s else -wait_s


def _refill_s(bill: Bill) -> float:
    """Return how long the limit that refuses takes to refill what this request asks of it."""
    held, said = bill.held, bill.held.refusing
    if said is None or said.kind.period != "minute":
        return 0.0
    tokens = {"input": held.input_tokens, "output": held.output_tokens}
    tokens["tokens"] = held.input_tokens + held.output_tokens
    return min(tokens.get(said.kind.unit, 1), said.burst) * MINUTE_S / said.limit


def _refused(bill: Bill, wait_s: float) -> Bill:
    """Return ``bill``, telling the wait behind all that wait already."""
    said = bill.held.refusing
    if said is not None and said.kind.period == "minute":
        said = replace(said, wait_us=max(said.wait_us, round(wait_s * 1e6)))
        bill.held = replace(bill.held, refusing=said)
    return bill
