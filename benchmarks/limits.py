"""What limits cost, and whether they are exact; each figure beside what it is judged against.

    .venv/bin/python -m benchmarks.limits               # all, with a million keys
    .venv/bin/python -m benchmarks.limits hold 100000   # among that many keys at most

    accuracy  admitted of what is allowed, over any window: benchmarks/accuracy.py
    hold      the store's time of hold, renew and settle, beside an empty script and a GET
    memory    bytes of a key, of what it used, and of what its requests hold
    loss      share of what is allowed that gets through, by a request's duration and estimate

All on loopback, beside whatever else the machine does: the load average stands beside the figures,
and the least of the rounds is what the step itself costs.
"""

import asyncio
import dataclasses
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import redis

from benchmarks import accuracy
from serve_app import auth
from serve_app.limits import Charge, Demand, Hold, Holds, Usage
from serve_app.limits.gcra import MINUTE_US, Bucket, Rate, Taken, ask, settle, take
from serve_app.store import EmbeddedStore, Store, keys
from tests.holding import Claim, limits

ROUNDS, REQUESTS, CALLERS = 30, 128, 64
MODEL, DEMAND = "smollm2-135m", Demand(text_bytes=400, choices=1, cap=50)
CHARGE = Charge(Usage(90, 40), cost_nanos=700, class_="standard", sample=(400, 90, 40))
MANY = 10**6
KINDS = {
    "one limit": ({"requests_per_minute": MANY}, {}),
    "eight limits": (
        {
            "requests_per_minute": MANY,
            "tokens_per_minute": 10**8,
            "requests_per_day": 10**9,
            "tokens_per_day": 10**12,
            "concurrency": 100_000,
            "models": {MODEL: {"requests_per_minute": MANY, "tokens_per_minute": 10**8}},
        },
        {"requests_per_minute": MANY},
    ),
}
"""Limits of the key, and of its tenant."""


def load() -> str:
    """Return how busy the machine is, to stand beside a figure."""
    return f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


@dataclass
class Bench:
    """A store of its own, and keys in it that all have the same limits."""

    url: str
    store: Store
    piped: "Piped"
    client: "redis.Redis[Any]"
    requests: Iterator[int] = field(default_factory=count)
    keys: int = 0

    def write(self, number: int, kind: str) -> None:
        """Write ``number`` keys with the limits of ``kind``, and nothing else."""
        self.client.flushall()
        mine, theirs = (limits(**told) for told in KINDS[kind])
        attributes = "x" * 300  # a record as the API writes it
        told = {"attributes": attributes, "limits": theirs} if theirs else {"attributes": "{}"}
        self.client.hset(keys.tenant_record("t"), mapping=told)
        told = {"sha256": "s", "attributes": attributes, "limits": mine}
        for start in range(0, number, 10_000):
            pipe = self.client.pipeline(transaction=False)
            for at in range(start, min(start + 10_000, number)):
                pipe.hset(keys.key_record("t", f"k{at}"), mapping=told)
            pipe.execute()
        self.keys = number

    async def hold(self, holds: Holds) -> Hold:
        """Hold for a key drawn at random."""
        name = f"k{random.randrange(self.keys)}"
        claim = Claim(key_id=name, bucket=name, kind="key", proof="s")
        request = f"{next(self.requests):032x}"
        held = await holds.hold(claim, DEMAND, model=MODEL, request=request)
        assert any(held.leases)
        return held

    async def renew(self, held: Hold) -> None:
        """Renew what ``held`` holds."""
        names = keys.scopes(held.claim.tenant, held.claim.bucket, held.model)
        await self.piped.run("renew", names[1::2], [120_000, *held.leases])


class Piped:
    """A store that sends what all its callers ask in one trip."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asked: list[tuple[list[str], list[str | int | float], asyncio.Future[Any]]] = []

    async def run(self, step: str, names: list[str], args: list[str | int | float]) -> Any:
        """Run one step together with those of others."""
        told = asyncio.get_running_loop().create_future()
        self._asked.append((names, args, told))
        if len(self._asked) == 1:
            self._sending = asyncio.create_task(self._send(step))
        return await told

    async def _send(self, step: str) -> None:
        asked, self._asked = self._asked, []
        replies = await self._store.run_many(step, [(names, args) for names, args, _ in asked])
        for (*_, told), reply in zip(asked, replies, strict=True):
            told.set_result(reply)


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    """Start a store, and leave nothing of it."""
    with tempfile.TemporaryDirectory() as folder:
        embedded = EmbeddedStore(Path(folder))
        store = Store(embedded.url, timeout_ms=60_000)
        client = redis.Redis.from_url(embedded.url, decode_responses=True)
        try:
            yield Bench(embedded.url, store, Piped(store), client)
        finally:
            client.close()
            await store.close()
            embedded.stop()


async def each(work: Callable[[Any], Awaitable[Any]], todo: list[Any], callers: int) -> list[Any]:
    """Do ``work`` with each of ``todo``, by so many callers at once."""
    left, done = iter(todo), []

    async def caller() -> None:
        for one in left:
            done.append(await work(one))

    await asyncio.gather(*(caller() for _ in range(callers)))
    return done


Figures = dict[str, list[tuple[float, list[int]]]]
"""Of each step, in each round: the mean by ``commandstats``, all by ``SLOWLOG``; us."""


async def timed(at: Bench, told: Figures, name: str, work: Awaitable[list[Any]]) -> list[Any]:
    """Add the store's time of each call of ``work`` to what is told of ``name``."""
    at.client.config_resetstat()
    at.client.slowlog_reset()
    done = await work
    stats, command = at.client.info("commandstats"), "get" if name == "GET" else "evalsha"
    mean_us = stats[f"cmdstat_{command}"]["usec_per_call"]
    slow = at.client.slowlog_get(len(done) + 10)
    each_us = [
        one["duration"] for one in slow if one["command"].lower().startswith(command.encode())
    ]
    told.setdefault(name, []).append((mean_us, each_us))
    return done


async def rounds(at: Bench, callers: int, several: int = ROUNDS) -> Figures:
    """Return what each step costs with so many callers at once, in turn with what it is beside."""
    told: Figures = {}
    async with asyncio.timeout(300):
        bare = at.client.script_load("return 1")
        plain = redis.asyncio.Redis.from_url(at.url)
        names, args = keys.scopes("t", "k0", MODEL) + ["a"] * 4, ["x"] * 9
        for _ in range(several):
            holds, todo = Holds(at.piped), [*range(REQUESTS)]
            held = await timed(at, told, "hold", each(lambda _: at.hold(holds), todo, callers))  # noqa: B023
            await timed(at, told, "renew", each(at.renew, held, callers))
            await timed(
                at,
                told,
                "settle",
                each(lambda one: holds.settle(one, CHARGE), held, callers),  # noqa: B023
            )
            for name, work in (
                ("`return 1`, as many arguments", lambda _: plain.evalsha(bare, 12, *names, *args)),
                ("`return 1`", lambda _: plain.evalsha(bare, 0)),
                ("GET", lambda _: plain.get("nothing")),
            ):
                await timed(at, told, name, each(work, todo, min(callers, 32)))
        await plain.aclose()
    return told


def row(what: str, told: list[tuple[float, list[int]]]) -> str:
    """Return a row of the table: least and median mean, median p50, median p99."""
    means, many = zip(*told, strict=True)
    p50 = statistics.median(statistics.median(one) for one in many)
    p99 = statistics.median(statistics.quantiles(one, n=100)[-1] for one in many)
    return f"| {what} | {min(means):.0f} | {statistics.median(means):.0f} | {p50:.0f} | {p99:.0f} |"


async def hold(most: int) -> None:
    """Print what the steps cost: with one limit and eight, alone and 64 a trip; among many keys."""
    head = "| us in the store | least | median | p50 | p99 |\n|---|--:|--:|--:|--:|"
    async with bench() as at:
        at.client.config_set("slowlog-log-slower-than", 0)
        at.client.config_set("slowlog-max-len", 2 * REQUESTS)
        print(head)
        for kind in KINDS:
            at.write(1_000, kind)
            for callers in (1, CALLERS):
                for name, told in (await rounds(at, callers)).items():
                    print(row(f"{name}: {kind}, {callers} a trip", told))
        print(load())
        print(head)
        for number in (one for one in (1_000, 100_000, 1_000_000) if one <= most):
            at.write(number, "eight limits")
            told = await rounds(at, CALLERS)
            for name in ("hold", "settle", "renew"):
                print(row(f"{name}, among {number:,} keys", told[name]))
        print(f"{at.client.info('memory')['used_memory'] / 2**20:,.0f} MiB in the end; {load()}")


def sizes(at: Bench, tenant: str) -> dict[str, list[int]]:
    """Return the bytes of each key of a tenant, by what it is."""
    found: dict[str, list[int]] = {}
    names = [*at.client.scan_iter(f"sg:{{t:{tenant}}}:*", count=10_000)]
    for start in range(0, len(names), 10_000):
        pipe = at.client.pipeline(transaction=False)
        some = names[start : start + 10_000]
        for name in some:
            pipe.memory_usage(name, samples=0)
        for name, size in zip(some, pipe.execute(), strict=True):
            if size:  # it may have gone meanwhile
                found.setdefault(name.split(":")[3], []).append(size)
    return found


def left_ms(at: Bench) -> int:
    """Return how long the last of all that was used is kept."""
    names = [*at.client.scan_iter("*:spent*", count=10_000)]
    pipe = at.client.pipeline(transaction=False)
    for name in names:
        pipe.pttl(name)
    return max(pipe.execute(), default=0)


def month_left_ms() -> float:
    """Return how long this month, the longest window, goes on."""
    now = datetime.now(UTC)
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return ((first + timedelta(days=32)).replace(day=1) - now).total_seconds() * 1_000


MEASURED = ("key", "keys", "spent", "leases", "settled", "usage")
"""Parts of the store's names: records, their list, what was used, what is held, marks, ledger."""


async def memory() -> None:
    """Print the bytes of a key, of what it used and of what its requests hold."""
    rates = {"requests_per_minute": 60_000, "tokens_per_minute": 6_000_000}
    days = {"requests_per_day": 10**6, "tokens_per_day": 10**9, "cost_per_month": 100}
    print("| bytes for each key | " + " | ".join(MEASURED) + " |")
    print("|---|" + "--:|" * len(MEASURED))
    async with bench() as at:
        for kind, told in (
            ("one limit", {"requests_per_minute": 60_000}),
            ("two, and two on a model", rates | {"models": {MODEL: rates}}),
            ("five, and two on a model", rates | days | {"models": {MODEL: rates}}),
        ):
            at.client.flushall()
            await _memory(at, kind, told)
    print(load())


async def _memory(at: Bench, kind: str, told: dict[str, Any], number: int = 5_000) -> None:
    """Print what so many keys take: idle, with requests that run, after them, and later."""
    made: list[auth.MadeKey] = []
    await auth.import_keys(at.store, lines(number, made, told))
    holds = Holds(at.store)

    def say(when: str) -> None:
        found = sizes(at, "default")
        cells = [f"{sum(found.get(part, [])) / number:.0f}" for part in MEASURED]
        print(f"| {kind}: {when} | " + " | ".join(cells) + " |")

    say("never used")
    held = await each(lambda one: _held(holds, one), made, CALLERS)
    say("one request runs")
    held += await each(lambda one: _held(holds, one), made, CALLERS)
    say("two requests run")
    await each(lambda one: holds.settle(one, CHARGE), held, CALLERS)
    say("they ended just now")
    if "cost_per_month" in told:
        over_ms = left_ms(at) - month_left_ms()
        print(f"the last of what was used goes {over_ms:.0f} ms after its longest window")
    else:
        await asyncio.sleep(1)  # the slowest of the buckets is full again by then
        say("they ended a second ago, and all is refilled")


def lines(number: int, made: list[auth.MadeKey], told: dict[str, Any]) -> Iterator[str]:
    """Yield new keys as lines of a key file."""
    permissions = ["read_models", "run_inference", "use_streaming"]
    now_ms = int(time.time() * 1_000)
    record = auth.KeyRecord("", "nightly batch", "default", permissions, None, told, now_ms, 0)
    for _ in range(number):
        made.append(auth.make("default"))
        key = made[-1].key
        written = dataclasses.asdict(dataclasses.replace(record, id=key.key_id))
        yield json.dumps({"sha256": key.sha256, "key": written})


async def _held(holds: Holds, made: auth.MadeKey) -> Hold:
    key = made.key
    claim = Claim("default", key.key_id, key.key_id, "key", key.sha256)
    held = await holds.hold(claim, DEMAND, model=MODEL, request=f"{random.getrandbits(128):032x}")
    assert any(held.leases)
    return held


def got_through(lasts: float, over: float) -> float:
    """Return the share of what is allowed that is used, if somebody asks whenever there is room.

    A bucket of a minute. Each request uses 10 units, holds ``over`` times as much and runs for
    ``lasts`` times the minute. Half an hour is simulated; its first third is left out.
    """
    rate, bucket, now_us, used = Rate(6_000, 6_000), Bucket(), 0, 0
    units, runs_us = round(10 * over), round(lasts * MINUTE_US)
    running: deque[tuple[int, Taken]] = deque()
    begin_us, end_us = 10 * MINUTE_US, 30 * MINUTE_US
    while now_us < end_us:
        while running and running[0][0] <= now_us:
            ended_us, taken = running.popleft()
            bucket = settle(bucket, taken, ended_us - runs_us, 10, now_us)
        wait_us = ask(bucket, rate, units, now_us).wait_us
        if wait_us == 0:
            bucket, taken = take(bucket, rate, units, now_us)
            running.append((now_us + runs_us, taken))
            used += 10 if now_us >= begin_us else 0
        else:
            now_us = min(now_us + wait_us, running[0][0]) if running else now_us + wait_us
    return used / (6_000 * (end_us - begin_us) / MINUTE_US)


def loss() -> None:
    """Print which share of what is allowed gets through, by duration and estimate."""
    overs, lengths = (1, 1.5, 2, 3, 5, 10), (0.1, 0.2, 0.33, 0.5, 0.66, 1, 2)
    print("| runs for, times the refill | " + " | ".join(f"{one:g}" for one in lengths) + " |")
    print("|---|" + "--:|" * len(lengths))
    for over in overs:
        cells = [f"{got_through(lasts, over):.0%}" for lasts in lengths]
        print(f"| holds {over:g} times what it uses | " + " | ".join(cells) + " |")


def main() -> None:
    """Measure what is asked for."""
    what, most = sys.argv[1:2] or ["all"], int((sys.argv[2:3] or ["1000000"])[0])
    if what[0] in ("all", "loss"):
        loss()
    if what[0] in ("all", "hold"):
        asyncio.run(hold(most))
    if what[0] in ("all", "memory"):
        asyncio.run(memory())
    if what[0] in ("all", "accuracy"):
        accuracy.main()


if __name__ == "__main__":
    main()
