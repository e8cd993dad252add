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
import math
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

    def is_short(self, visit: "_Visit") -> bool:
        """Return whether ``visit``, if it is like the last, would be let in before its deadline."""
        return self.booked_s + self.refill_s <= visit.may_wait_s(self.queue_class)


@dataclass(frozen=True, slots=True)
class _Visit:
    """One request: since when it is here, and how long it would wait at most."""

    began_s: float
    most_s: float

    def may_wait_s(self, queue_class: QueueClass) -> float:
        """Return how long it may wait in a class, from its beginning."""
        return min(queue_class.max_wait_s, self.most_s)

    @property
    def here_s(self) -> float:
        """Return how long it has been here."""
        return time.monotonic() - self.began_s


class Patience:
    """The requests of one gateway that wait for their limits."""

    def __init__(self) -> None:
        self._turns: dict[Hashable, _Turn] = {}
        self._waiting: Counter[str] = Counter()

    async def held(self, whose: Hashable, hold: Ask, *, most_s: float = math.inf) -> Bill:
        """Return the bill that ``hold`` makes: let in, or refused in the end.

        Args:
            whose: names the caller, what proves it, the model and the class.
            hold: asks the store once.
            most_s: seconds that it would wait, if its class lets it wait longer.
        """
        visit = _Visit(time.monotonic(), most_s)
        turn = self._turns.get(whose)
        if turn is not None and turn.is_short(visit) and self._has_room(turn):
            return await self._in_turn(whose, turn, hold, visit, turn.refill_s)
        bill = await hold()
        turn = self._turns.get(whose)
        wait_s = _wait_s(bill, visit, turn.booked_s if turn else 0.0)
        if wait_s is None:
            return bill
        turn = turn or _Turn(bill.queue_class)
        if wait_s < 0 or not self._has_room(turn):
            return _refused(bill, abs(wait_s))
        return await self._in_turn(whose, turn, hold, visit, _refill_s(bill), bill)

    def _has_room(self, turn: _Turn) -> bool:
        """Return whether fewer wait of its class than may."""
        return self._waiting[turn.queue_class.name] < turn.queue_class.max_tickets

    async def _in_turn(
        self,
        whose: Hashable,
        turn: _Turn,
        hold: Ask,
        visit: _Visit,
        refill_s: float,
        bill: Bill | None = None,
    ) -> Bill:
        self._turns[whose], class_ = turn, turn.queue_class
        fresh = bill if turn.waiting == 0 else None
        turn.refill_s, turn.booked_s = refill_s, turn.booked_s + refill_s
        turn.waiting += 1
        self._waiting[class_.name] += 1
        try:
            if not await _is_first(turn, visit):
                return _timed(await hold(), visit)
            try:
                return await _waited(fresh, visit, hold)
            finally:
                turn.lock.release()
        finally:
            self._waiting[class_.name] -= 1
            turn.booked_s -= refill_s
            turn.waiting -= 1
            if not turn.waiting:
                del self._turns[whose]


async def _is_first(turn: _Turn, visit: _Visit) -> bool:
    """Return whether its turn came before the deadline; if so, the turn's lock is held."""
    try:
        async with asyncio.timeout(visit.may_wait_s(turn.queue_class) - visit.here_s):
            return await turn.lock.acquire()
    except TimeoutError:
        return False


async def _waited(bill: Bill | None, visit: _Visit, hold: Ask) -> Bill:
    """Return the bill of who is first: asked for until it is let in, or would wait too long."""
    bill = bill or _timed(await hold(), visit)
    while (wait_s := _wait_s(bill, visit, 0.0)) is not None:
        if wait_s < 0:
            return bill
        await asyncio.sleep(wait_s)
        bill = _timed(await hold(), visit)
    return bill


def _timed(bill: Bill, visit: _Visit) -> Bill:
    bill.waited_ms = visit.here_s * 1_000
    return bill


def _wait_s(bill: Bill, visit: _Visit, booked_s: float) -> float | None:
    """Return how long to wait before asking again, less than 0 if that is too long.

    None if there is nothing to wait for: it is let in, or refused for good, or would not wait.
    """
    said = bill.held.refusing
    if said is None or said.wait_us <= 0 or not bill.caller.over_limit_waits:
        return None
    left_s = visit.may_wait_s(bill.queue_class) - visit.here_s
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
