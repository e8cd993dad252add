"""What the gate costs: the same load on the engine itself and through the gate, in turn.

    .venv/bin/python -m benchmarks.relay

Starts a gate on the simulated engine (no decode time, so that the relay is what is measured), asks
engine and gate alternately, and prints medians over the rounds with their ratio. Then, before an
engine that stamps its chunks (:mod:`benchmarks.stamped`): what the gate adds to the way of a chunk
at 32 streams, its CPU for each, and its memory over 100,000 requests. All on loopback; bounded in
requests and time. The load comes from this one process on the same cores, so the figures are for
comparing with each other, not with other machines.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import psutil

from benchmarks.chunks import Side, print_chunks, print_memory
from serve_app.ports import free_port
from serve_app.store import Address, Store, registry
from tests.running import ADMIN_KEY, RunningGate, chat, simulated

ROUNDS = 5
WIDE = {"requests_per_minute": 1_000_000}
UNARY, STREAMS, CONCURRENCY, TOKENS = 400, 100, 32, 64


async def load(url: str, headers: dict[str, str], *, stream: bool, count: int) -> float:
    """Return requests a second for ``count`` requests, ``CONCURRENCY`` at once."""
    body = chat(max_tokens=TOKENS if stream else 8, stream=stream)
    todo = iter(range(count))

    async def worker(session: aiohttp.ClientSession) -> None:
        for _ in todo:
            async with session.post(f"{url}/v1/chat/completions", json=body) as reply:
                raw = await reply.read()
                if not reply.ok or (stream and not raw.endswith(b"data: [DONE]\n\n")):
                    raise RuntimeError(f"{reply.status}: {raw[:200]!r}")

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        began_s = time.perf_counter()
        await asyncio.gather(*(worker(session) for _ in range(CONCURRENCY)))
        return count / (time.perf_counter() - began_s)


async def latency(url: str, headers: dict[str, str], count: int = 100) -> float:
    """Return the median milliseconds of one request at a time."""
    told = []
    async with aiohttp.ClientSession(headers=headers) as session:
        for _ in range(count):
            began_s = time.perf_counter()
            async with session.post(f"{url}/v1/chat/completions", json=chat()) as reply:
                await reply.read()
            told.append((time.perf_counter() - began_s) * 1_000)
    return statistics.median(told)


async def measure(gate: RunningGate) -> None:
    """Print engine, gate and their ratio for each kind of load."""
    at = gate.engine()
    key = gate.new_key(limits=WIDE)
    sides = {
        "engine": (at.url, at.headers),
        "gate": (gate.url, {"authorization": f"Bearer {key}"}),
    }
    figures: dict[str, dict[str, list[float]]] = {}
    for _ in range(ROUNDS):
        for name, (url, headers) in sides.items():
            for what, figure in (
                ("unary requests/s, c=32", load(url, headers, stream=False, count=UNARY)),
                ("64-chunk streams/s, c=32", load(url, headers, stream=True, count=STREAMS)),
                ("unary p50 ms, c=1", latency(url, headers)),
            ):
                figures.setdefault(what, {}).setdefault(name, []).append(await figure)
    print("| load | engine | gate | gate ÷ engine |\n|---|--:|--:|--:|")
    for what, by_side in figures.items():
        engine, gated = (statistics.median(by_side[name]) for name in sides)
        print(f"| {what} | {engine:.3g} | {gated:.3g} | {gated / engine:.2f} |")


async def measure_chunks(gate: RunningGate) -> None:
    """Print what a chunk costs, and what requests leave behind, by an engine that stamps."""
    port = free_port()
    program = [sys.executable, "-m", "benchmarks.stamped", str(port)]
    process = await asyncio.create_subprocess_exec(*program)
    here, key = Address("127.0.0.1", port, "none"), gate.new_key(limits=WIDE)
    store = Store(gate.store_url(), timeout_ms=2_000)

    async def beat() -> None:
        while True:
            await registry.beat(store, "smollm2-135m", "stamped", 256, here)
            await asyncio.sleep(0.5)  # a replica that is silent for two seconds is forgotten

    beating = asyncio.create_task(beat())
    side = Side(gate.url, {"authorization": f"Bearer {key}"}, gate.actors("Gateway"))
    try:
        await asyncio.sleep(3)
        proxy = Side("", {}, [pid for pid in gate.family() if is_proxy(pid)])
        await print_chunks(Side(here.url, {}), side, proxy)
        await print_memory(side)
    finally:
        beating.cancel()
        process.terminate()
        await process.wait()
        await store.close()


def is_proxy(pid: int) -> bool:
    """Return whether that is HAProxy, through which every byte goes as well."""
    return psutil.Process(pid).name() == "haproxy"


def main() -> None:
    """Start the gates, measure, stop them."""
    fast = {"decode_ms": 0.0, "decode_ms_per_sequence": 0.0, "prefill_tokens_per_s": 1e9}
    config = simulated(seats=64, simulated=fast)
    with tempfile.TemporaryDirectory() as folder:
        gate = RunningGate(Path(folder), config, {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY})
        gate.start()
        try:
            asyncio.run(measure(gate.ready()))
        finally:
            gate.stop()
    nowhere = {"num_cpus": 1_000, "autoscaling": {"min_replicas": 0}}  # only the other is there
    with tempfile.TemporaryDirectory() as folder:
        config = simulated(seats=256, **nowhere)
        gate = RunningGate(Path(folder), config, {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY})
        gate.start()
        try:
            asyncio.run(measure_chunks(gate.ready()))
        finally:
            gate.stop()


if __name__ == "__main__":
    main()
