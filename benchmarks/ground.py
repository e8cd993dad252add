"""What the benchmarks of limits stand on: a store of their own, and keys in it."""

import asyncio
import os
import random
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import redis

from serve_app.limits import Charge, Demand, Hold, Holds, Usage
from serve_app.store import EmbeddedStore, Store, keys
from tests.holding import Claim, limits

CALLERS = 64
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
