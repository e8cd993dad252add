"""What it costs to know who is calling, each figure beside the one that it is judged against.

    .venv/bin/python -m benchmarks.identity             # all
    .venv/bin/python -m benchmarks.identity keys 100000  # that many keys instead of a million

    keys      a hold among a thousand keys and among a million; how fast they were imported
    tokens    CPU of an RS256 token, judged for the first time and again
    refusals  requests a second through a whole gate: good, malformed, unknown
    logins    latency of inference through a whole gate, with and without a flood of logins

All on loopback, bounded in requests and time, in one process beside what it measures: figures are
for comparing with each other, not with other machines.
"""

import asyncio
import dataclasses
import json
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import aiohttp

from serve_app import auth
from serve_app.auth_settings import Issuer
from serve_app.limits import Demand, Holds
from serve_app.store import EmbeddedStore, Store
from tests.auth.issuing import LocalIssuer
from tests.running import ADMIN_KEY, RunningGate, chat, simulated

ROUNDS, HOLDS, REQUESTS, CONCURRENCY = 7, 2_000, 600, 32
FEW = 1_000


def lines(count: int, kept: list[auth.MadeKey]) -> Iterator[str]:
    """Yield ``count`` new keys as lines of a key file; every so often one is kept."""
    record = auth.KeyRecord("", "k", "default", ["run_inference"], None, {}, 1, 0)
    for number in range(count):
        made = auth.make("default")
        if number % (count // HOLDS or 1) == 0:
            kept.append(made)
        key = dataclasses.asdict(dataclasses.replace(record, id=made.key.key_id))
        yield json.dumps({"sha256": made.key.sha256, "key": key})


async def hold_us(store: Store, kept: list[auth.MadeKey]) -> float:
    """Return the median microseconds of a hold for keys drawn at random."""
    holds, told = Holds(store, defaults="r 1000000 1000000 0"), []
    for _ in range(HOLDS):
        key = secrets.choice(kept).key
        claim = SimpleNamespace(
            tenant=key.tenant,
            key_id=key.key_id,
            bucket=key.key_id,
            kind="key",
            proof=key.sha256,
            user=None,
            token_id="",
            limits=None,
            tenant_must_exist=False,
        )
        began_s = time.perf_counter()
        held = await holds.hold(claim, Demand(fixed_tokens=1), request=secrets.token_hex(12))
        told.append((time.perf_counter() - began_s) * 1e6)
        assert held.refusing is None
    return statistics.median(told)


async def keys(many: int) -> None:
    """Print what a hold costs among few and among ``many`` keys, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        embedded = [EmbeddedStore(Path(folder) / str(count)) for count in (FEW, many)]
        stores = [Store(one.url, timeout_ms=10_000) for one in embedded]
        kept: list[list[auth.MadeKey]] = [[], []]
        try:
            for store, count, some in zip(stores, (FEW, many), kept, strict=True):
                began_s = time.perf_counter()
                told = await auth.import_keys(store, lines(count, some))
                assert told == {"written": count}
                took_s = time.perf_counter() - began_s
                print(f"imported {count:,} keys in {took_s:.1f} s, {count / took_s:,.0f} a second")
            figures: list[list[float]] = [[], []]
            for _ in range(ROUNDS):
                for store, some, found in zip(stores, kept, figures, strict=True):
                    found.append(await hold_us(store, some))
            few_us, many_us = (statistics.median(found) for found in figures)
            print(f"hold among {FEW:,}: {few_us:.0f} us, among {many:,}: {many_us:.0f} us")
            print(f"ratio {many_us / few_us:.2f}")
        finally:
            for store, one in zip(stores, embedded, strict=True):
                await store.close()
                one.stop()


async def tokens() -> None:
    """Print the CPU time of a token judged for the first time, and again."""
    now_s = int(time.time())
    times = {"iat": now_s, "nbf": now_s, "exp": now_s + 600}
    with LocalIssuer() as issuer:
        settings = Issuer(
            issuer=issuer.name, audience="gate", algorithms=["RS256"], jwks_url=issuer.url
        )
        issuers = auth.Issuers([settings], {})
        texts = [
            issuer.token("RS256", aud="gate", jti=str(number), **times) for number in range(HOLDS)
        ]
        await issuers.verify(texts[0], now_s=now_s)  # fetches the key set
        for what in ("first", "again"):
            began_s = time.process_time()
            for text in texts:
                await issuers.verify(text, now_s=now_s)
            took_us = (time.process_time() - began_s) * 1e6 / len(texts)
            print(f"RS256, judged {what}: {took_us:.1f} us of CPU")
        await issuers.close()


async def rate(url: str, key: str) -> float:
    """Return requests a second, ``CONCURRENCY`` at once."""
    todo, headers = iter(range(REQUESTS)), {"authorization": f"Bearer {key}"}

    async def worker(session: aiohttp.ClientSession) -> None:
        for _ in todo:
            async with session.post(f"{url}/v1/chat/completions", json=chat()) as reply:
                await reply.read()

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        began_s = time.perf_counter()
        await asyncio.gather(*(worker(session) for _ in range(CONCURRENCY)))
        return REQUESTS / (time.perf_counter() - began_s)


async def refusals() -> None:
    """Print the rates of good, malformed and unknown keys through a whole gate, in turn."""
    fast = {"decode_ms": 0.0, "decode_ms_per_sequence": 0.0, "prefill_tokens_per_s": 1e9}
    config = simulated(seats=64, simulated=fast)
    rules = {"brute_force": {"max_failed_attempts": 100, "ttl_seconds": 1}}
    config["applications"][0]["args"]["auth"] = rules
    with tempfile.TemporaryDirectory() as folder:
        gate = RunningGate(Path(folder), config, {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY}).start()
        try:
            gate.ready()
            good = gate.new_key(limits={"requests_per_minute": 1_000_000})
            sides = {
                "good": good,
                "malformed": "sk-nonsense",
                "unknown": auth.make("default").text,
            }
            figures: dict[str, list[float]] = {name: [] for name in sides}
            for _ in range(ROUNDS):
                for name, key in sides.items():
                    figures[name].append(await rate(gate.url, key))
            medians = {name: statistics.median(found) for name, found in figures.items()}
            for name, found in medians.items():
                print(f"{name}: {found:.0f} requests/s, {found / medians['good']:.2f} of good")
        finally:
            gate.stop()


async def flood(url: str, stop: asyncio.Event) -> int:
    """Send wrong logins from ever new addresses until told to stop; return how many."""
    count = 0

    async def worker(session: aiohttp.ClientSession, number: int) -> None:
        nonlocal count
        body = {"username": f"nobody-{number}", "password": "a wrong password"}
        while not stop.is_set():
            count += 1
            headers = {"x-forwarded-for": f"198.18.{count // 250 % 250}.{count % 250}"}
            async with session.post(f"{url}/v1/auth/login", json=body, headers=headers) as reply:
                await reply.read()
            await asyncio.sleep(0.02)  # a flood of fifty a second and caller

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(worker(session, number) for number in range(CONCURRENCY)))
    return count


async def latencies_ms(url: str, key: str) -> tuple[float, float]:
    """Return median and 95th percentile of one chat at a time."""
    told, headers = [], {"authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for _ in range(200):
            began_s = time.perf_counter()
            async with session.post(f"{url}/v1/chat/completions", json=chat()) as reply:
                await reply.read()
            told.append((time.perf_counter() - began_s) * 1_000)
    return statistics.median(told), statistics.quantiles(told, n=20)[-1]


async def logins() -> None:
    """Print the latency of inference with and without a flood of logins, in turn."""
    config = simulated(simulated={"decode_ms": 2.0})
    config["applications"][0]["args"]["auth"] = {"trusted_proxies": ["127.0.0.0/8"]}
    with tempfile.TemporaryDirectory() as folder:
        gate = RunningGate(Path(folder), config, {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY}).start()
        try:
            gate.ready()
            key = gate.new_key(limits={"requests_per_minute": 1_000_000})
            figures: dict[str, list[tuple[float, float]]] = {"quiet": [], "flood": []}
            for _ in range(ROUNDS):
                figures["quiet"].append(await latencies_ms(gate.url, key))
                stop = asyncio.Event()
                flooding = asyncio.create_task(flood(gate.url, stop))
                figures["flood"].append(await latencies_ms(gate.url, key))
                stop.set()
                print(f"logins sent in this round: {await flooding}")
            for name, found in figures.items():
                p50, p95 = (statistics.median(each) for each in zip(*found, strict=True))
                print(f"chat, {name}: p50 {p50:.1f} ms, p95 {p95:.1f} ms")
        finally:
            gate.stop()


def main() -> None:
    """Measure what is asked for."""
    what, many = sys.argv[1:2] or ["all"], int((sys.argv[2:3] or ["1000000"])[0])
    if what[0] in ("all", "tokens"):
        asyncio.run(tokens())
    if what[0] in ("all", "keys"):
        asyncio.run(keys(many))
    if what[0] in ("all", "refusals"):
        asyncio.run(refusals())
    if what[0] in ("all", "logins"):
        asyncio.run(logins())


if __name__ == "__main__":
    main()
