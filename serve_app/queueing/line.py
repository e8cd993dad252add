"""Take a seat, or wait in line for one, and give it back however it ends.

One :class:`Line` serves all requests of one gateway. Its background tasks *hear* (a seat came free
for one of ours), *tend* (we live; whom did a lost message forget?) and do the gateway's *chores*,
which make no sign of life late; what could not be given back because the store was away is given
back later. What fails for one model, or in one chore, keeps none of the others waiting.
"""

import asyncio
import itertools
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from serve_app.errors import NoCapacity, QueueFull, QueueTimeout, ShuttingDown, StoreUnavailable
from serve_app.queueing.local import LocalSeats
from serve_app.queueing.drain import retry_after_s
from serve_app.queueing.seat import Load, Seat
from serve_app.settings import QueueClass
from serve_app.store import Address, Store, keys, registry

TEND_S = 0.25
PAID_AT_ONCE = 1_000
"""Tickets of one model that leave with one look, in one round trip."""

_log = logging.getLogger("sluicegate.queueing")


@dataclass(slots=True)
class _Waiter:
    """One request that waits here: for which model, since when, and how it is woken."""

    model: str
    turn: "asyncio.Future[tuple[str, str]]"
    arrived_us: int


class Line:
    """The line as one gateway sees it; :meth:`open` before use, :meth:`close` after.

    Attributes:
        gateway: this gateway's id.
        loads: what the store counted of each model at the last look.
    """

    def __init__(self, store: Store, models: Iterable[str], *, on_loss: str = "closed") -> None:
        self._store = store
        self._local = LocalSeats(open_=on_loss == "local")
        self._keys = {model: keys.line(model) for model in models}
        self.gateway = secrets.token_hex(8)
        self._channel = keys.wake_channel(self.gateway)
        self._numbers = itertools.count(1)
        self._waiting: dict[str, _Waiter] = {}
        self._owed: dict[str, str] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._also: list[Callable[[], Awaitable[None]]] = []
        self._closing = False
        self.loads = {model: Load() for model in self._keys}
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

    async def close(self) -> None:
        """Turn away whoever waits, give everything back and stop. Never raises."""
        self._closing = True
        for waiter in self._waiting.values():
            if not waiter.turn.done():
                waiter.turn.set_exception(
                    ShuttingDown("This gateway is shutting down; try again.", retry_after_s=1.0)
                )
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(StoreUnavailable):
            for names in self._keys.values():
                await self._store.run("line_retire", names, [self._channel])

    @asynccontextmanager
    async def seat(
        self,
        model: str,
        queue_class: QueueClass,
        *,
        arrived_us: int = 0,
        waited_ms: float = 0.0,
        avoid: str = "",
    ) -> AsyncIterator[Seat]:
        """Lend a seat on a replica of ``model`` for as long as the block runs.

        Args:
            model: its name in the settings.
            queue_class: how long and among how many it may wait.
            arrived_us: when the request first came, if it enters again.
            waited_ms: how much of its patience it has used up before.
            avoid: the replica that just failed it.

        Raises:
            QueueFull: nothing was reserved.
            QueueTimeout, NoCapacity, ShuttingDown: the ticket was given back.
            StoreUnavailable: what was reserved is given back when the store is there again.
        """
        ticket = f"{self._channel}/{next(self._numbers)}"
        try:
            waiter = _Waiter(model, asyncio.get_running_loop().create_future(), arrived_us)
            yield await self._take(ticket, waiter, queue_class, waited_ms, avoid)
        finally:
            await asyncio.shield(asyncio.create_task(self._leave(model, ticket)))

    async def _take(
        self,
        ticket: str,
        waiter: "_Waiter",
        queue_class: QueueClass,
        waited_ms: float,
        avoid: str,
    ) -> Seat:
        began_s = time.monotonic()
        self._waiting[ticket] = waiter  # before the store can call us
        try:
            said, *rest = await self._enter(ticket, waiter, queue_class, waited_ms, avoid)
            if said == "full":
                raise _full(waiting=rest[0], rate=float(rest[3]))
            waiter.arrived_us = rest[2]
            if said == "waiting":
                asked_ms = (time.monotonic() - began_s) * 1_000
                replica, info = await self._turn(waiter, queue_class, waited_ms + asked_ms)
            else:
                waiter.turn.cancel()
                replica, info = rest[0], rest[1]
            waited_ms += (time.monotonic() - began_s) * 1_000 if said != "seated" else 0.0
            self._local.lent(ticket, replica)
            at = Address.from_json(info)
            return Seat(replica, at, waiter.arrived_us, waited_ms, queue_class.name)
        finally:
            del self._waiting[ticket]

    async def _enter(
        self,
        ticket: str,
        waiter: "_Waiter",
        queue_class: QueueClass,
        waited_ms: float,
        avoid: str,
    ) -> list[Any]:
        """Return what the store says to a ticket; while it is away, a seat of our own share."""
        args: list[str | int | float] = [ticket, queue_class.max_tickets, waiter.arrived_us, avoid]
        ends_s = time.monotonic() + max(0.0, queue_class.max_wait_s - waited_ms / 1_000)
        while True:
            try:
                reply: list[Any] = await self._store.run(
                    "line_enter", self._keys[waiter.model], args
                )
                return reply
            except StoreUnavailable:
                left_s = ends_s - time.monotonic()
                in_vain = left_s <= TEND_S or not self._local.has(waiter.model)
                seat = await self._local.take(
                    ticket, waiter.model, avoid=avoid, patience_s=min(left_s, TEND_S)
                )
                if seat is not None:
                    return ["here", *seat, waiter.arrived_us]
                if in_vain:
                    raise

    async def _turn(
        self, waiter: "_Waiter", queue_class: QueueClass, waited_ms: float
    ) -> tuple[str, str]:
        """Wait until it is this ticket's turn; refuse when the class's patience ends."""
        model, began_s = waiter.model, time.monotonic()
        try:
            patience_s = max(0.0, queue_class.max_wait_s - waited_ms / 1_000)
            return await asyncio.wait_for(waiter.turn, patience_s)
        except TimeoutError:
            refusal = self._too_late(model, queue_class)
            refusal.waited_ms = waited_ms + (time.monotonic() - began_s) * 1_000
            raise refusal from None

    def _too_late(self, model: str, queue_class: QueueClass) -> NoCapacity | QueueTimeout:
        load = self.loads[model]
        after_s = retry_after_s(load.waiting, load.drain_per_s, random.random())
        waited = f"waited {queue_class.max_wait_s:g} s"
        if load.replicas == 0:
            told = f"The model '{model}' has no replica; {waited} for one to start."
            return NoCapacity(told, retry_after_s=after_s)
        told = f"No seat came free for the model '{model}'; {waited}."
        return QueueTimeout(told, retry_after_s=after_s)

    async def _leave(self, model: str, ticket: str) -> None:
        self._local.leave(ticket)
        try:
            await self._store.run("line_leave", self._keys[model], [ticket])
        except StoreUnavailable:
            self._owed[ticket] = model  # the tender pays it

    async def _hear(self) -> None:
        """Wake whom the store has seated, for as long as this gateway lives."""
        while not self._closing:
            with suppress(StoreUnavailable):
                async for message in self._store.hear(self._channel):
                    self._wake(*message.split("\n", 2))
            await asyncio.sleep(TEND_S)  # the store is away; the tender says so

    def _wake(self, ticket: str, replica: str, info: str) -> None:
        waiter = self._waiting.get(ticket)
        if waiter is not None and not waiter.turn.done():
            waiter.turn.set_result((replica, info))

    async def _tend(self) -> None:
        parts = [partial(do, model) for do in (self._look, self._pay) for model in self._keys]
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

    async def _look(self, model: str) -> None:
        """Show that we live, take the counts, and wake whom a lost message forgot."""
        names = self._keys[model]
        told = await self._store.run("line_tend", names, [self._channel])
        running, waiting, replicas, seats, oldest_ms, rate, gateways = told
        failing = replicas == 0 and await registry.has_failed(self._store, model)
        counts = running, waiting, replicas, seats, oldest_ms
        self.loads[model] = Load(*counts, float(rate), failing, gateways)
        if self._local.open:
            self._local.know(model, *await self._store.hashes(names[:2]), gateways=gateways)
        mine = [t for t, waiter in self._waiting.items() if waiter.model == model]
        if not mine:
            return
        seated = await self._store.fields(names[5], *mine)
        in_line = await self._store.scores(names[4], *mine)
        for ticket, replica, score in zip(mine, seated, in_line, strict=True):
            if replica is not None:
                (info,) = await self._store.fields(names[0], replica)
                if info is not None:
                    self._wake(ticket, replica, info)
            elif score is None:
                await self._enter_again(ticket)

    async def _enter_again(self, ticket: str) -> None:
        """Put back a ticket that the store forgot, in its old place."""
        waiter = self._waiting.get(ticket)
        if waiter is None or waiter.turn.done() or not waiter.arrived_us:
            return
        names = self._keys[waiter.model]
        said, *rest = await self._store.run("line_enter", names, [ticket, 0, waiter.arrived_us, ""])
        if said == "seated":
            self._wake(ticket, rest[0], rest[1])

    async def _pay(self, model: str) -> None:
        """Give back a bounded part of what is owed to the line of ``model``."""
        names = self._keys[model]
        owed = [ticket for ticket, whose in self._owed.items() if whose == model][:PAID_AT_ONCE]
        await self._store.run_many("line_leave", [(names, [ticket]) for ticket in owed])
        for ticket in owed:
            del self._owed[ticket]


def _full(*, waiting: int, rate: float) -> QueueFull:
    after_s = retry_after_s(waiting, rate, random.random())
    told = f"{waiting} requests wait already, as many as may."
    return QueueFull(told, retry_after_s=after_s)
