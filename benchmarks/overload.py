"""Overload: the line by class and weight, beside first come first served.

    .venv/bin/python -m benchmarks.overload

A whole gate with two gateways before two simulated replicas of sixteen seats, asked by this one
process over loopback, once as it comes and once with one class and one key for everybody: one flow
is first come first served. About three minutes; every part is bounded in time.

    shares     two tenants of weights 3 and 1 that both ask for more than there is
    lengths    ten tenants of one weight whose replies are 10 to 2,000 tokens long on average
    classes    batch comes four times as fast as it is served; beside it a few interactive streams

Tokens count as the line counts them, input + 2 × output, in the time in which they were made.
"""

import asyncio
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.house import PATH, REPLICAS, Answer, Crowd, crowd_before, crowded
from tests.running import ADMIN_KEY, RunningGate, chat

SEATS = 16
ENGINE = {"decode_ms": 5.0, "decode_ms_per_sequence": 0.1}
STEP_S = 0.005 + (SEATS - 1) * 0.0001
"""How long a step of a full batch takes."""

FAIR = [
    {"name": "interactive", "max_seats": 1.25, "max_wait_s": 600, "promote_after_s": 5},
    {"name": "batch", "max_wait_s": 600, "promote_after_s": 60, "max_tickets": 10_000},
]
FIRST_COME = [{"name": "all", "max_wait_s": 600, "max_tickets": 10_000}]

WARM_S, SHARES_S, LENGTHS_S, CLASSES_S, QUIET_S = 3.0, 8.0, 18.0, 15.0, 10.0
LENGTHS = [round(10 * 200 ** (number / 9)) for number in range(10)]
SPREAD = (0.8, 1.2)
LAST_S = LENGTHS[-1] * SPREAD[1] * STEP_S + 1
"""How long the longest reply takes, beside fifteen others."""

BATCH_TOKENS, INTERACTIVE_TOKENS, INTERACTIVE_PER_S, OVERLOAD = 256, 32, 10.0, 4
BATCH_PER_S = REPLICAS * SEATS / (BATCH_TOKENS * STEP_S)
"""Batch requests that all nominal seats serve a second."""


@contextmanager
def gate(classes: list[dict[str, Any]]) -> Iterator[RunningGate]:
    """Run a gate with ``classes``."""
    config = crowded(classes, seats=SEATS)
    (model,) = config["applications"][0]["args"]["models"]
    model |= {"simulated": ENGINE, "engine_args": {"max_model_len": 4_096}}
    with tempfile.TemporaryDirectory() as folder:
        running = RunningGate(Path(folder), config, {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY}).start()
        try:
            yield running.ready()
        finally:
            running.end()


def made_within(answer: Answer, from_s: float, to_s: float) -> float:
    """Return the tokens of ``answer`` that were made in a span of time, as the line counts them."""
    usage, seated_s = answer.body["usage"], answer.sent_s + answer.queue_ms / 1_000
    tokens = usage["prompt_tokens"] + 2 * usage["completion_tokens"]
    within_s = min(answer.done_s, to_s) - max(seated_s, from_s)
    return float(tokens * max(0.0, within_s) / (answer.done_s - seated_s))


async def served(
    crowd: Crowd, asking: list[tuple[str, int]], *, callers: int, seconds: float, last_s: float
) -> list[float]:
    """Return the tokens of each pair of key and mean length while ``callers`` of each ask on."""
    answers: list[list[Answer]] = [[] for _ in asking]

    async def caller(number: int) -> None:
        key, mean = asking[number]
        while True:
            tokens = round(mean * random.uniform(*SPREAD))
            answers[number].append(await crowd.ask(key, tokens))

    each = [caller(number) for number in range(len(asking)) for _ in range(callers)]
    async with crowd.under_way(*each):
        from_s = time.monotonic() + WARM_S
        to_s = from_s + seconds
        await asyncio.sleep(WARM_S + seconds + last_s)
    return [sum(made_within(one, from_s, to_s) for one in of) for of in answers]


def jain(shares: list[float]) -> float:
    """Return Jain's index: 1 if all are equal, 1/n if one has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


@dataclass
class Waits:
    """What interactive streams saw, ms; who was not served in time waited at least so long."""

    queue: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    unserved: int = 0
    tokens_per_s: float = 0.0
    oldest_s: float = 0.0

    async def stream(self, crowd: Crowd, key: str) -> None:
        """Send one stream and read it."""
        began_s, body = time.monotonic(), chat(max_tokens=INTERACTIVE_TOKENS, stream=True)
        bearer, queue_ms = {"authorization": f"Bearer {key}"}, None
        try:
            async with crowd.session.post(PATH, json=body, headers=bearer) as told:
                queue_ms = float(told.headers["x-queue-time-ms"])
                await told.content.readany()
                self.note(began_s, queue_ms)
                await told.read()
        except (asyncio.CancelledError, aiohttp.ClientError):
            if queue_ms is None:
                self.unserved += 1
                self.note(began_s, (time.monotonic() - began_s) * 1_000)
            raise

    def note(self, began_s: float, queue_ms: float) -> None:
        """Note a stream that has its first byte, or never will."""
        self.queue.append(queue_ms)
        self.first.append((time.monotonic() - began_s) * 1_000)


async def at_rate(per_s: float, ask: Any) -> None:
    """Start what ``ask`` returns at random times, ``per_s`` a second; cancel what is left."""
    started: set[asyncio.Task[Any]] = set()
    next_s = time.monotonic()
    try:
        while True:
            next_s += random.expovariate(per_s)
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))
            started.add(asyncio.create_task(ask()))
    finally:
        for task in started:
            task.cancel()
        await asyncio.gather(*started, return_exceptions=True)


async def generated(crowd: Crowd) -> float:
    """Return the tokens that all replicas made until now, asked for beside the event loop."""

    def asked() -> float:
        replicas = crowd.gate.replicas().values()
        return sum(crowd.gate.gauge("generation_tokens_total", at) for at in replicas)

    return await asyncio.to_thread(asked)


async def classes(crowd: Crowd, interactive: str, batch: Any, seconds: float) -> Waits:
    """Return what interactive streams see beside the load ``batch``."""
    waits = Waits()
    async with crowd.under_way(batch):
        await asyncio.sleep(WARM_S)
        before, from_s = await generated(crowd), time.monotonic()
        async with crowd.under_way(
            at_rate(INTERACTIVE_PER_S, lambda: waits.stream(crowd, interactive))
        ):
            await asyncio.sleep(seconds)
            made = await generated(crowd) - before
            waits.tokens_per_s = made / (time.monotonic() - from_s)
            waits.oldest_s = max(one["oldest_s"] for one in (await crowd.line())["classes"])
    return waits


async def overloaded(crowd: Crowd, interactive: str, batch: str) -> Waits:
    """Return what interactive streams see beside four times the batch that is served."""
    load = at_rate(OVERLOAD * BATCH_PER_S, lambda: crowd.ask(batch, BATCH_TOKENS))
    return await classes(crowd, interactive, load, CLASSES_S)


async def fair(running: RunningGate) -> tuple[float, list[float], Waits, Waits]:
    """Measure the gate as it comes: the ratio, what each length got, overload, no overload."""
    async with crowd_before(running) as crowd:
        pair = [(crowd.key("batch", crowd.tenant(weight)), 64) for weight in (3.0, 1.0)]
        heavy, light = await served(crowd, pair, callers=30, seconds=SHARES_S, last_s=1)
        ten = [(crowd.key("batch"), mean) for mean in LENGTHS]
        shares = await served(crowd, ten, callers=12, seconds=LENGTHS_S, last_s=LAST_S)
        interactive, batch = crowd.key("interactive"), crowd.key("batch")
        full = crowd.keep_asking(batch, REPLICAS * SEATS, BATCH_TOKENS)
        quiet = await classes(crowd, interactive, full, QUIET_S)
        return heavy / light, shares, await overloaded(crowd, interactive, batch), quiet


async def first_come(running: RunningGate) -> tuple[list[float], Waits]:
    """Measure one flow: what each length got, and overload."""
    async with crowd_before(running) as crowd:
        key = crowd.key("all")
        ten = [(key, mean) for mean in LENGTHS]
        shares = await served(crowd, ten, callers=12, seconds=LENGTHS_S, last_s=LAST_S)
        return shares, await overloaded(crowd, key, key)


def p(values: list[float], percent: int) -> str:
    """Return a percentile of milliseconds."""
    return f"{statistics.quantiles(values, n=100, method='inclusive')[percent - 1]:,.0f} ms"


def rows(ours: Waits, theirs: Waits, quiet: Waits) -> Iterator[tuple[str, str, str]]:
    """Yield what the classes do under overload, beside first come first served."""
    for percent in (50, 99):
        yield (
            f"interactive in line, p{percent}",
            p(ours.queue, percent),
            p(theirs.queue, percent),
        )
    both = f"{p(ours.first, 99)} (seated at once: {p(quiet.first, 99)})"
    yield "interactive, first token, p99", both, p(theirs.first, 99)
    both = f"{p(ours.first, 50)} (seated at once: {p(quiet.first, 50)})"
    yield "interactive, first token, p50", both, p(theirs.first, 50)
    counts = [f"{len(one.first) - one.unserved} of {len(one.first)}" for one in (ours, theirs)]
    yield "interactive served meanwhile", counts[0], counts[1]
    yield "tokens/s of both replicas", f"{ours.tokens_per_s:,.0f}", f"{theirs.tokens_per_s:,.0f}"
    yield "oldest in line at the end", f"{ours.oldest_s:.1f} s", f"{theirs.oldest_s:.1f} s"


def main() -> None:
    """Measure both, and print the table."""
    with gate(FAIR) as running:
        ratio, shares, ours, quiet = asyncio.run(fair(running))
    with gate(FIRST_COME) as running:
        their_shares, theirs = asyncio.run(first_come(running))
    print("| | Sluicegate | first come first served |\n|---|--:|--:|")
    print(f"| tokens of weights 3 : 1 | {ratio:.3f} : 1 | |")
    print(f"| Jain's index, ten lengths | {jain(shares):.4f} | {jain(their_shares):.4f} |")
    for what, mine, other in rows(ours, theirs, quiet):
        print(f"| {what} | {mine} | {other} |")
    print(f"\ntokens by length, of the mean: {told(shares)}; first come: {told(their_shares)}")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def told(shares: list[float]) -> str:
    """Return what each length got of an equal share."""
    mean = statistics.mean(shares)
    return " ".join(f"{share / mean:.2f}" for share in shares)


if __name__ == "__main__":
    main()
