"""Take a seat, or wait in line for one, and give it back however it ends.

One :class:`Line` serves all requests of one gateway. Its background tasks are in :mod:`tending`.
"""

import asyncio
import itertools
import random
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from serve_app.errors import (
    Dropped,
    NoCapacity,
    QueueFull,
    QueueTimeout,
    QueueWaitTooLong,
    ShuttingDown,
    StoreUnavailable,
)
from serve_app.queueing.local import LocalSeats
from serve_app.queueing.order.drain import retry_after_s
from serve_app.queueing.seat import Asks, Seat, Telling
from serve_app.queueing.tending import TEND_S, Tending, Turn, Waiter
from serve_app.settings import QueueClass
from serve_app.store import Address, Store, keys

MILLION = 1_000_000


class Line(Tending):
    """The line as one gateway sees it; :meth:`open` before use, :meth:`close` after.

    Args:
        store: where the lines are.
        models: their names.
        classes: highest first.
        output_weight: what an output token costs in fairness, in input tokens.
        on_loss: whether it lends seats while the store is away, ``closed`` or ``local``.
        release: the deployment whose replicas it has; what failed in another one is forgotten.

    Attributes:
        gateway: this gateway's id.
        loads: what the store counted of each model at the last look.
    """

    def __init__(
        self,
        store: Store,
        models: Iterable[str],
        classes: Sequence[QueueClass],
        *,
        output_weight: float = 2.0,
        on_loss: str = "closed",
        release: str = "",
    ) -> None:
        self.gateway = secrets.token_hex(8)
        channel = keys.wake_channel(self.gateway)
        super().__init__(
            store, models, classes, channel=channel, local=LocalSeats(open_=on_loss == "local")
        )
        self._release = release
        self._numbers = itertools.count(1)
        self._output_weight = output_weight

    @asynccontextmanager
    async def seat(
        self,
        model: str,
        asks: Asks,
        *,
        arrived_us: int = 0,
        avoid: str = "",
        telling: Telling | None = None,
    ) -> AsyncIterator[Seat]:
        """Lend a seat on a replica of ``model`` for as long as the block runs.

        Args:
            model: its name in the settings.
            asks: who asks, in which class, and what it may cost.
            arrived_us: when the request first came, if it enters again.
            avoid: the replica that just failed it.
            telling: how the client hears that it still waits.

        Raises:
            QueueFull, QueueWaitTooLong: nothing was reserved.
            QueueTimeout, QueueCancelled, NoCapacity, ShuttingDown: the ticket was given back.
            StoreUnavailable: what was reserved is given back when the store is there again.
        """
        ticket, seat = f"{self._channel}/{next(self._numbers)}", None
        patience_s = asks.queue_class.max_wait_s
        waiter = Waiter(
            model,
            asyncio.get_running_loop().create_future(),
            self._args(asks),
            round(patience_s * MILLION),
            time.monotonic() + patience_s - asks.waited_ms / 1_000,
            arrived_us,
            asks.is_first_try,
            asks.prefix and f"{asks.tenant}/{asks.prefix}",
            asks.prefer,
        )
        try:
            seat = await self._take(ticket, waiter, asks, avoid, telling)
            yield seat
        finally:
            cost = 0 if seat is None else -1 if seat.used is None else self._cost(*seat.used)
            if (
                not waiter.entered
            ):  # the store may yet take it in, after it has left: it leaves twice
                self._owed[ticket] = model, cost
            await asyncio.shield(asyncio.create_task(self._leave(model, ticket, cost)))

    def _cost(self, input_tokens: int, output_tokens: int) -> int:
        return round(input_tokens + self._output_weight * output_tokens)

    def _args(self, asks: Asks) -> list[str | int | float]:
        """Return what every try of a request hands to the store."""
        return [
            self._ranks.index(asks.queue_class.name),
            asks.tenant,
            asks.caller.replace("|", "/"),  # what stands between names in the store
            asks.tenant_weight,
            asks.caller_weight,
            self._cost(asks.input_tokens, asks.output_tokens),
            asks.body_bytes,
        ]

    async def _take(
        self, ticket: str, waiter: Waiter, asks: Asks, avoid: str, telling: Telling | None
    ) -> Seat:
        began_s, waited_ms = time.monotonic(), asks.waited_ms
        if self._closing:
            raise self._closed()
        self._waiting[ticket] = waiter  # before the store can call us
        try:
            said, *rest = await self._enter(ticket, waiter, avoid)
            waiter.entered = True
            if said in ("full", "late", "draining"):
                raise self._refused(waiter.model, asks.queue_class, said, rest)
            if said == "waiting":
                waiter.arrived_us = int(rest[2])
                turn = await self._turn(waiter, asks, began_s, telling)
            else:
                waiter.turn.cancel()
                turn = Turn(rest[1], int(rest[0]), rest[2])
                waiter.arrived_us = int(rest[3])
            waited_ms += (time.monotonic() - began_s) * 1_000 if said != "seated" else 0.0
            self._local.lent(ticket, turn.replica)
            at, served = Address.from_json(turn.info), self._ranks[turn.rank]
            return Seat(turn.replica, at, waiter.arrived_us, waited_ms, served)
        finally:
            del self._waiting[ticket]

    async def _enter(self, ticket: str, waiter: Waiter, avoid: str) -> list[Any]:
        """Return what the store says to a ticket; while it is away, a seat of our own share."""
        while True:
            args = [
                ticket,
                *waiter.args,
                *waiter.times,
                "" if avoid == waiter.prefer else avoid,
                waiter.prefer or self._rings[waiter.model].near(waiter.prefix),
                int(waiter.is_first_try),
                self._rules,
            ]
            try:
                reply: list[Any] = await self._store.run(
                    "line_enter", self._keys[waiter.model], args
                )
                return reply
            except StoreUnavailable:
                left_s = waiter.left_s
                in_vain = left_s <= TEND_S or not self._local.has(waiter.model)
                seat = await self._local.take(
                    ticket, waiter.model, avoid=avoid, patience_s=min(left_s, TEND_S)
                )
                if seat is not None:
                    arrived_us = waiter.arrived_us or time.time_ns() // 1_000
                    return ["here", waiter.args[0], *seat, arrived_us]
                if in_vain:
                    raise

    async def _turn(
        self, waiter: Waiter, asks: Asks, began_s: float, telling: Telling | None
    ) -> Turn:
        """Wait until it is this ticket's turn; refuse when the class's patience ends."""
        while True:
            pause_s = min(waiter.left_s, telling.every_s if telling else waiter.left_s)
            done, _ = await asyncio.wait([waiter.turn], timeout=pause_s)
            refusal = waiter.turn.exception() if done else None
            if done and refusal is None:
                return waiter.turn.result()
            if not done and not waiter.left_s:
                refusal = self._too_late(waiter.model, asks.queue_class)
            if isinstance(refusal, Dropped):
                refusal.waited_ms = asks.waited_ms + (time.monotonic() - began_s) * 1_000
            if refusal is not None:
                raise refusal
            if telling:
                ahead = self._ahead(waiter.model, asks.queue_class)
                await telling.tell(ahead, time.monotonic() - began_s)

    def _ahead(self, model: str, queue_class: QueueClass) -> int:
        """Return how many wait in the class and above, one of them itself, as of the last look."""
        upto = self._ranks.index(queue_class.name) + 1
        return max(0, sum(one.waiting for one in self.loads[model].classes[:upto]) - 1)

    def _refused(
        self, model: str, queue_class: QueueClass, said: str, rest: list[Any]
    ) -> QueueFull | QueueWaitTooLong | ShuttingDown:
        """Return why a newcomer may not even wait."""
        if said == "draining":
            return ShuttingDown(f"The model '{model}' is being drained.", retry_after_s=60.0)
        waiting, _, wait_ms, after_ms, _ = rest
        after_s = retry_after_s(float(after_ms) / 1_000, random.random())
        wait_s = float(wait_ms) / 1_000
        details = {"waiting": waiting, "predicted_wait_s": round(wait_s, 3) or None}
        if said == "full":
            told = f"{waiting} requests of the class '{queue_class.name}' wait already."
            return QueueFull(told, retry_after_s=after_s, details=details)
        told = f"It would wait about {wait_s:.1f} s; it may wait {queue_class.max_wait_s:g} s."
        if not queue_class.max_wait_s:
            told = "No seat is free now, and it may not wait."
        return QueueWaitTooLong(told, retry_after_s=after_s, details=details)

    def _too_late(self, model: str, queue_class: QueueClass) -> NoCapacity | QueueTimeout:
        """Return why nobody was seated in time."""
        load, rank = self.loads[model], self._ranks.index(queue_class.name)
        wait_ms = load.classes[rank].predicted_wait_ms if load.classes else None
        after_s = retry_after_s((wait_ms or 0.0) / 1_000, random.random())
        waited = f"waited {queue_class.max_wait_s:g} s"
        if load.mode == "paused":
            told = f"The model '{model}' is paused by an operator; {waited}."
            return NoCapacity(told, retry_after_s=after_s)
        if load.replicas == 0:
            failed = f"; its last start failed: {load.failing}" if load.failing else ""
            told = f"The model '{model}' has no replica; {waited} for one to start{failed}."
            return NoCapacity(told, retry_after_s=after_s)
        told = f"No seat came free for the model '{model}'; {waited}."
        return QueueTimeout(told, retry_after_s=after_s)

    async def _leave(self, model: str, ticket: str, cost: int) -> None:
        self._local.leave(ticket)
        try:
            await self._store.run("line_leave", self._keys[model], [ticket, cost])
        except StoreUnavailable:
            self._owed[ticket] = model, cost  # the tender pays it

    async def close(self) -> None:
        """Turn away whoever waits, give everything back and stop. Never raises."""
        await self._stop()
        for names in self._keys.values():
            with suppress(StoreUnavailable):
                await self._store.run("line_retire", names, [self._channel])
