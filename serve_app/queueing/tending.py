"""What a gateway does for the line beside its requests, for as long as it lives.

It *hears* (a seat came free for one of ours), *tends* (we live; whom did a lost message forget?)
and does the gateway's *chores*, which make no sign of life late; what could not be given back
because the store was away is given back later. What fails for one model, or in one chore, keeps
none of the others waiting.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from serve_app.errors import QueueCancelled, ShuttingDown, StoreUnavailable
from serve_app.queueing.affinity import Ring
from serve_app.queueing.desk import Desk
from serve_app.queueing.local import LocalSeats
from serve_app.queueing.seat import Load
from serve_app.settings import QueueClass
from serve_app.store import Store

TEND_S = 0.25
AT_ONCE = 1_000
"""Tickets of one model that are paid, or asked for, in one round trip."""

RING_LOOKS = 20
"""After so many looks at as many replicas, they are asked for by name."""

AGAIN_AT_ONCE = 200
"""Tickets that are put back in one round trip."""

_log = logging.getLogger("sluicegate.queueing")


class Turn(NamedTuple):
    """A turn that has come: where, as which class, and how to get there."""

    replica: str
    rank: int
    info: str


@dataclass(slots=True)
class Waiter:
    """One request that waits here.

    Attributes:
        model: what it waits for.
        turn: is set when its turn has come, or is never to come.
        args: who it is and what it costs, as the store takes it.
        patience_us: how long it may wait in all.
        ends_s: until when it waits, on this machine's clock.
        arrived_us: when it first came; 0 until the store has said.
        is_first_try: whether its client says that it was not told to come again.
        prefix: of its tenant and its conversation; empty for none.
        prefer: the replica that it asks for by name; empty for none.
        entered: whether the store has answered.
    """

    model: str
    turn: "asyncio.Future[Turn]"
    args: list[str | int | float]
    patience_us: int
    ends_s: float
    arrived_us: int = 0
    is_first_try: bool = False
    prefix: str = ""
    prefer: str = ""
    entered: bool = False

    @property
    def left_s(self) -> float:
        """How long it may still wait."""
        return max(0.0, self.ends_s - time.monotonic())

    @property
    def times(self) -> list[str | int | float]:
        """Its times as the store takes them."""
        return [self.arrived_us, self.patience_us, round(self.left_s * 1_000_000)]


class Tending(Desk):
    """The tasks of one gateway's line.

    Attributes:
        loads: what the store counted of each model at the last look.
    """

    def __init__(
        self,
        store: Store,
        models: Iterable[str],
        classes: Sequence[QueueClass],
        *,
        channel: str,
        local: LocalSeats,
    ) -> None:
        super().__init__(store, models, classes)
        self._channel, self._local = channel, local
        self._waiting: dict[str, Waiter] = {}
        self._owed: dict[str, tuple[str, int]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._also: list[Callable[[], Awaitable[None]]] = []
        self._closing = False
        self._forgotten = set(self._keys)
        self.loads = {model: Load() for model in self._keys}
        self._rings = {model: Ring() for model in self._keys}
        self._looks = dict.fromkeys(self._keys, 0)
        self._troubled = {"the line": True, "the chores": True}

    @property
    def tended(self) -> bool:
        """Whether the last look at every model, and each chore, reached the store."""
        return not any(self._troubled.values())

    @property
    def alive(self) -> bool:
        """Whether it still hears and tends; a line that does not is of no use to anybody."""
        return not any(task.done() for task in self._tasks)

    def tend_also(self, chore: Callable[[], Awaitable[None]]) -> None:
        """Run ``chore`` with every look; it may raise StoreUnavailable."""
        self._also.append(chore)

    async def open(self) -> None:
        """Begin to hear and to tend."""
        loops = (self._hear(), self._tend(), self._do_chores())
        self._tasks = [asyncio.create_task(loop) for loop in loops]

    @staticmethod
    def _closed() -> ShuttingDown:
        return ShuttingDown("This gateway is shutting down; try again.", retry_after_s=1.0)

    async def _stop(self) -> None:
        """Turn away whoever waits, and stop."""
        self._closing = True
        for waiter in self._waiting.values():
            if not waiter.turn.done():
                waiter.turn.set_exception(self._closed())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _hear(self) -> None:
        """Wake whom the store has seated, for as long as this gateway lives."""
        while not self._closing:
            with suppress(StoreUnavailable):
                async for message in self._store.hear(self._channel):
                    self._wake(*message.split("\n", 3))
            await asyncio.sleep(TEND_S)  # the store is away; the tender says so

    def _wake(self, ticket: str, replica: str = "", rank: str = "0", info: str = "") -> None:
        """Wake one that was seated; without a replica, one that an operator took out."""
        waiter = self._waiting.get(ticket)
        if waiter is None or waiter.turn.done():
            return
        if replica:
            waiter.turn.set_result(Turn(replica, int(rank), info))
        else:
            told = "An operator took this request out of the line."
            waiter.turn.set_exception(QueueCancelled(told))

    async def _tend(self) -> None:
        parts = [partial(do, model) for do in (self._see_to, self._pay) for model in self._keys]
        while not self._closing:
            await self._try("the line", parts)
            await asyncio.sleep(TEND_S)  # the look that catches a lost message

    async def _do_chores(self) -> None:
        """Beside the looks: however long a chore takes, nobody takes this gateway for dead."""
        while not self._closing:
            await self._try("the chores", self._also)
            await asyncio.sleep(TEND_S)

    async def _try(self, what: str, parts: Iterable[Callable[[], Awaitable[None]]]) -> None:
        """Do each of ``parts``, whichever fail; a store that is away refuses at once."""
        failed: StoreUnavailable | None = None
        for part in parts:
            try:
                await part()
            except StoreUnavailable as err:
                failed = failed or err
        if failed is not None and not self._troubled[what]:
            _log.warning("%s cannot be tended: %s", what, failed)
        self._troubled[what] = failed is not None

    async def _see_to(self, model: str) -> None:
        """Show that we live, take the counts, and wake whom a lost message forgot."""
        known = model not in self._forgotten
        self._forgotten.add(model)  # until we know better: an answer may be lost
        self.loads[model], is_new = await self._counted(model, self._channel)
        await self._know_replicas(model)
        if is_new or not known:
            await self._enter_again(model)
        self._forgotten.discard(model)
        if any(waiter.model == model for waiter in self._waiting.values()):
            await self._wake_the_seated(model)

    async def _know_replicas(self, model: str) -> None:
        """Take note of who the replicas are; only now and then while there are as many as before.

        A conversation whose replica is not known yet, or no more, is seated where there is room.
        """
        self._looks[model] += 1
        same = self.loads[model].replicas == len(self._rings[model].replicas)
        if same and not self._local.open and self._looks[model] % RING_LOOKS:
            return
        info, seats = await self._store.hashes(self._keys[model][:2])
        self._local.know(model, info, seats, gateways=self.loads[model].gateways)
        if info.keys() != self._rings[model].replicas:
            self._rings[model] = Ring(info)

    async def _wake_the_seated(self, model: str) -> None:
        after = ""
        while True:
            args: list[str | int | float] = [self._channel, after, AT_ONCE]
            told = await self._store.run("line_look", self._keys[model], args)
            for at in range(0, len(told), 4):
                self._wake(*map(str, told[at : at + 4]))
            if len(told) < 4 * AT_ONCE:
                return
            after = told[-4]

    async def _enter_again(self, model: str) -> None:
        """Put back the tickets that the store may have forgotten, in their old places."""
        mine = [
            (ticket, waiter)
            for ticket, waiter in self._waiting.items()
            if waiter.model == model and waiter.arrived_us and not waiter.turn.done()
        ]
        for at in range(0, len(mine), AGAIN_AT_ONCE):
            some = mine[at : at + AGAIN_AT_ONCE]
            try:
                await self._store.run_many(
                    "line_enter",
                    [
                        (
                            self._keys[model],
                            [ticket, *waiter.args, *waiter.times, "", "", 0, self._rules],
                        )
                        for ticket, waiter in some
                    ],
                )
            finally:
                for ticket, _ in some:
                    if ticket not in self._waiting:  # it has left meanwhile, perhaps before
                        self._owed[ticket] = model, 0

    async def _pay(self, model: str) -> None:
        """Give back a bounded part of what is owed to the line of ``model``."""
        names = self._keys[model]
        owed = [(one, cost) for one, (whose, cost) in self._owed.items() if whose == model]
        told = await self._store.run_each(
            "line_leave", [(names, [ticket, cost]) for ticket, cost in owed[:AT_ONCE]]
        )
        for (ticket, _), said in zip(owed, told, strict=False):
            if not isinstance(said, StoreUnavailable):
                del self._owed[ticket]
