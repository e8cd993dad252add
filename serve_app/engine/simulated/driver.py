"""The scheduler on a real clock: one task steps it, each request listens at its own tap."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from serve_app.engine.simulated.latency import Scheduler, Sequence
from serve_app.engine.simulated.request import Ask


class ClientGone(Exception):
    """Nobody listens any more."""


class Tap:
    """Where one request's tokens come out.

    It hands out counts, not tokens: the text of a reply is known from the start.
    """

    __slots__ = ("_gone", "_seen", "_sequence", "_waiter")

    def __init__(self, sequence: Sequence) -> None:
        self._sequence = sequence
        self._waiter: asyncio.Future[None] | None = None
        self._seen = 0
        self._gone = False

    def ring(self) -> None:
        """Wake the listener if what it waits for is there."""
        there = self._gone or self._sequence.generated > self._seen
        if there and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Tell the listener that its client went away."""
        self._gone = True
        self.ring()

    async def beyond(self, seen: int) -> int:
        """Wait until there are more than ``seen`` tokens; return how many there are.

        Raises:
            ClientGone: the client went away first.
        """
        self._seen = seen
        while not self._gone:
            if self._sequence.generated > seen:
                return self._sequence.generated
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        raise ClientGone


class Driver:
    """Runs a scheduler in real time.

    Attributes:
        scheduler: its state; only the driver changes it.
        ready_at_ms: when the engine is up, on the driver's clock.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.ready_at_ms = now_ms() + scheduler.model.start_s * 1_000
        self._arrivals = count()
        self._taps: dict[int, Tap] = {}
        self._work = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Return whether ``start_s`` has passed."""
        return now_ms() >= self.ready_at_ms

    @contextmanager
    def serving(self, ask: Ask) -> Iterator[Tap]:
        """Run a request for as long as the block lasts; however it ends, the batch lets go."""
        tokens = len(ask.reply.pieces)
        sequence = Sequence(next(self._arrivals), ask.prompt_tokens, tokens, ask.priority)
        tap = self._taps[sequence.arrival] = Tap(sequence)
        self.scheduler.add(sequence)
        self._work.set()
        try:
            yield tap
        finally:
            del self._taps[sequence.arrival]
            if not sequence.finished:
                self.scheduler.abort(sequence)

    async def run(self) -> None:
        """Step the scheduler until cancelled.

        When it wakes up late, as every timer does, it catches up step by step and lets the
        listeners run in between, so a client still sees one token after the other.
        """
        while True:
            while self.scheduler.idle:
                self._work.clear()
                await self._work.wait()
            due_ms = self.scheduler.due_ms
            await asyncio.sleep(0 if due_ms is None else max(0.0, due_ms - now_ms()) / 1_000)
            for sequence in self.scheduler.step(now_ms()):
                if tap := self._taps.get(sequence.arrival):
                    tap.ring()


def now_ms() -> float:
    """Return milliseconds on a clock that never goes back."""
    return time.monotonic() * 1_000
