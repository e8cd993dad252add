"""Whether limits are exact: 64 callers, two gateways, one limit; who was let in, over any window.

Run by ``python -m benchmarks.limits accuracy``. Each kind of limit is measured twice:

    steps  two processes hold and settle in one store; every admission has the store's own time
    gate   64 clients in two processes ask two gateways over HTTP; what they got is compared with
           the ledger. An admission lies between its request and its reply: a window counts it if
           both lie within, so what is found beyond the limit was surely let in beyond it

Over-admission is the most by which any window, from one admission to another, exceeds its burst and
what refilled in it. The share is that of what was allowed from the first admission to the last; by
the clients' clocks, so that a reply that is late at either end moves it by its lateness.
"""

import asyncio
import os
import random
import tempfile
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import aiohttp
import redis
import uvloop

from serve_app.limits import Charge, Demand, Holds, Usage
from serve_app.store import EmbeddedStore, Store, keys
from tests.holding import Claim, limits
from tests.running import ADMIN_KEY, RunningGate, chat, simulated, until

SECONDS, PROCESSES, CALLERS, PAUSE_S = 30.0, 2, 32, 0.05
"""Callers in each process; one that is refused asks again after the pause."""

MODEL = "smollm2-135m"
OUTPUT_MAX = 64
REQUESTS = {"requests_per_minute": {"limit": 1_200, "burst": 100}}
TOKENS = {"tokens_per_minute": {"limit": 120_000, "burst": 10_000}}


@dataclass(frozen=True, slots=True)
class Kind:
    """What is measured: limits of the keys, of their tenant, and how many keys there are."""

    key: dict[str, Any] = field(default_factory=dict)
    tenant: dict[str, Any] = field(default_factory=dict)
    keys: int = 1
    tokens: bool = False

    @property
    def rate(self) -> tuple[float, int]:
        """Units a second, and the burst."""
        told = (TOKENS if self.tokens else REQUESTS).values()
        ((limit, burst),) = [(one["limit"], one["burst"]) for one in told]
        return limit / 60, burst


KINDS = {
    "requests/min of a key": Kind(REQUESTS),
    "tokens/min of a key": Kind(TOKENS, tokens=True),
    "requests/min of a tenant, 16 keys": Kind(tenant=REQUESTS, keys=16),
    "requests/min of a key on a model": Kind({"models": {MODEL: REQUESTS}}),
}

Admitted = tuple[float, float, int]
"""After when and before when it was let in, seconds; its units."""


def beyond(admitted: list[Admitted], rate: float, burst: int) -> float:
    """Return the most units by which a window exceeds its burst and what refilled in it.

    A window goes from the earliest time of one admission to the latest of another and counts
    whatever lies wholly within.
    """
    by_end = sorted(admitted, key=lambda one: one[1])
    worst = -float("inf")
    for begin in {one[0] for one in admitted}:
        inside = [(end, units) for start, end, units in by_end if start >= begin]
        sums = accumulate(units for _, units in inside)
        for (end, _), units in zip(inside, sums, strict=True):
            worst = max(worst, units - burst - rate * (end - begin))
    return worst


def share(admitted: list[Admitted], rate: float, burst: int) -> float:
    """Return how much of what was allowed was let in, from the first admission to the last."""
    ends = [end for _, end, _ in admitted]
    return sum(units for *_, units in admitted) / (burst + rate * (max(ends) - min(ends)))


def everywhere(work: Callable[..., Coroutine[Any, Any, list[Any]]], *args: Any) -> list[Any]:
    """Return what ``work`` found in each of the processes, all together."""
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_run, work, args) for _ in range(PROCESSES)]
        return [one for job in jobs for one in job.result()]


def _run(work: Callable[..., Coroutine[Any, Any, list[Any]]], args: tuple[Any, ...]) -> list[Any]:
    return uvloop.run(work(*args))


async def holding(url: str, kind: Kind) -> list[Admitted]:
    """Hold and settle by many callers; return each admission, its units and the store's time."""
    store, until_s = Store(url, timeout_ms=10_000), time.monotonic() + SECONDS
    holds, found = Holds(store), []

    async def caller() -> None:
        while time.monotonic() < until_s:
            name = f"k{random.randrange(kind.keys)}"
            claim = Claim(key_id=name, bucket=name, kind="key", proof="s")
            demand = Demand(fixed_tokens=20, choices=1, cap=OUTPUT_MAX)
            request = f"{random.getrandbits(128):032x}"
            held = await holds.hold(claim, demand, model=MODEL, request=request)
            if held.refusing is not None:
                await asyncio.sleep(PAUSE_S)
                continue
            usage = Usage(20, random.randint(8, OUTPUT_MAX))
            await asyncio.sleep(random.uniform(0, PAUSE_S))  # the request runs
            await holds.settle(held, Charge(usage))
            units = usage.input_tokens + usage.output_tokens if kind.tokens else 1
            found.append((held.now_us / 1e6, held.now_us / 1e6, units))

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    await store.close()
    return found


def by_steps(kind: Kind) -> tuple[list[Admitted], int]:
    """Return who was let in by the steps themselves, and the units that the ledger counts."""
    with tempfile.TemporaryDirectory() as folder:
        embedded = EmbeddedStore(Path(folder))
        client = redis.Redis.from_url(embedded.url, decode_responses=True)
        try:
            told = {"attributes": "{}", "limits": limits(**kind.tenant)}
            client.hset(keys.tenant_record("t"), mapping=told)
            told = {"attributes": "{}", "sha256": "s", "limits": limits(**kind.key)}
            for at in range(kind.keys):
                client.hset(keys.key_record("t", f"k{at}"), mapping=told)
            found = everywhere(holding, embedded.url, kind)
            counted = [client.hgetall(name) for name in client.scan_iter("sg:{t:t}:usage:*")]
        finally:
            client.close()
            embedded.stop()
    whats = ("input_tokens", "output_tokens") if kind.tokens else ("requests",)
    units = sum(
        int(value)
        for one in counted
        for name, value in one.items()
        if name.rpartition("\t")[2] in whats
    )
    return found, units


async def asking(url: str, shown: list[str], kind: Kind) -> list[Admitted]:
    """Ask by many clients; return each reply that was none of a refusal, its units and times."""
    found: list[Admitted] = []
    until_s = time.monotonic() + SECONDS

    async def client(session: aiohttp.ClientSession) -> None:
        while time.monotonic() < until_s:
            body = chat(f"{random.random()}", max_tokens=random.randint(8, OUTPUT_MAX))
            headers, sent_s = {"authorization": f"Bearer {random.choice(shown)}"}, time.monotonic()
            async with session.post("/v1/chat/completions", json=body, headers=headers) as reply:
                told = await reply.json()
            if reply.ok:
                units = told["usage"]["total_tokens"] if kind.tokens else 1
                found.append((sent_s, time.monotonic(), units))
            elif "x-refused-by" not in reply.headers:
                raise RuntimeError(f"{reply.status}: {told}")
            else:
                await asyncio.sleep(PAUSE_S)

    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(client(session) for _ in range(CALLERS)))
    return found


def through(gate: RunningGate, kind: Kind) -> tuple[list[Admitted], int]:
    """Return who was let in by a whole gate, and the units that its ledger counts."""
    tenant = f"t{random.getrandbits(40):x}"
    with gate.client() as admin:
        made = admin.post("/v1/tenants", json={"id": tenant, "limits": kind.tenant})
        made.raise_for_status()
    shown = [gate.new_key(tenant=tenant, limits=kind.key) for _ in range(kind.keys)]
    found = everywhere(asking, gate.url, shown, kind)
    wanted = sum(units for *_, units in found)

    def ledger() -> int:
        with gate.client() as admin:
            rows = admin.get(f"/v1/usage?tenant={tenant}").json()["data"]
        return sum(
            one["input_tokens"] + one["output_tokens"] if kind.tokens else one["requests"]
            for one in rows
        )

    deadline_s = time.monotonic() + 5
    while ledger() != wanted and time.monotonic() < deadline_s:
        time.sleep(0.2)  # the last ones are just being settled
    return found, ledger()


def row(name: str, kind: Kind, told: tuple[list[Admitted], int]) -> str:
    """Return a row of the table."""
    found, ledger = told
    admitted, rate = sum(units for *_, units in found), kind.rate
    cells = [f"{admitted:,}", f"{ledger:,}", f"{max(beyond(found, *rate), 0):.1f}"]
    cells += [f"{share(found, *rate):.1%}", f"{os.getloadavg()[0]:.0f}"]
    return f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    """Measure both, and print them."""
    print("| limit | admitted | by the ledger | beyond, any window | of what is allowed | load |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, kind in KINDS.items():
        print(row(f"steps: {name}", kind, by_steps(kind)), flush=True)
    fast = {"decode_ms": 0.0, "decode_ms_per_sequence": 0.0, "prefill_tokens_per_s": 1e9}
    config = simulated(seats=128, simulated=fast)
    args = config["applications"][0]["args"]
    args["gateway"] = {"min_replicas": 2, "max_replicas": 2, "num_cpus": 0.1}
    args["limits"] = {"default": {}}
    with tempfile.TemporaryDirectory() as folder:
        gate = RunningGate(Path(folder), config, {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY}).start()
        try:
            gate.ready()
            until(gate.engine, what="an engine")
            for name, kind in KINDS.items():
                print(row(f"gate: {name}", kind, through(gate, kind)), flush=True)
        finally:
            gate.stop()
