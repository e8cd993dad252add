"""Bytes of a key, of what it used, and of what its requests hold.

Run by ``python -m benchmarks.limits memory``.
"""

import asyncio
import dataclasses
import json
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.ground import CALLERS, CHARGE, DEMAND, MODEL, Bench, bench, each, load
from serve_app import auth
from serve_app.limits import Hold, Holds
from tests.holding import Claim


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
