"""What one chunk of a stream costs on its way through a gate, and what many requests leave behind.

Parts of :mod:`benchmarks.relay`: a gate is a URL, a key and the processes of its gateways.
"""

import asyncio
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp
import psutil

from benchmarks.stamped import INTERVAL_S
from tests.running import chat

STREAMS, CHUNKS, ROUNDS, IDLE_S = 32, 500, 3, 5
REQUESTS, CONCURRENCY, LOOKS = 100_000, 32, 10
_AT = re.compile(rb'"at":(\d+)')


@dataclass(frozen=True)
class Side:
    """Where a load is sent.

    Attributes:
        url: where it listens.
        headers: that let us in.
        pids: processes whose time and memory count; none if they do not.
    """

    url: str
    headers: dict[str, str]
    pids: Sequence[int] = ()

    def cpu_s(self) -> float:
        """Return the CPU seconds that the processes have used."""
        times = [psutil.Process(pid).cpu_times() for pid in self.pids]
        return sum(one.user + one.system for one in times)

    def resident_mb(self) -> float:
        """Return the memory that the processes have."""
        return sum(psutil.Process(pid).memory_info().rss for pid in self.pids) / 1e6


@dataclass(frozen=True)
class Way:
    """What chunks met on their way.

    Attributes:
        late_ms: of each, from where it was sent to where it came.
        cpu_us: of the gate's processes, a chunk.
    """

    late_ms: list[float]
    cpu_us: float

    def quantile(self, share: float) -> float:
        """Return within how many ms that share came."""
        return sorted(self.late_ms)[min(int(share * len(self.late_ms)), len(self.late_ms) - 1)]


async def chunks(side: Side, streams: int = STREAMS) -> Way:
    """Return the way of the chunks of so many streams at once."""
    late_ms: list[float] = []

    async def listen(session: aiohttp.ClientSession, number: int) -> None:
        await asyncio.sleep(number * INTERVAL_S / streams)  # streams do not beat in step
        body = chat(max_tokens=CHUNKS, stream=True)
        async with session.post(f"{side.url}/v1/chat/completions", json=body) as reply:
            if not reply.ok:
                raise RuntimeError(f"{reply.status}: {await reply.text()}")
            async for part in reply.content.iter_any():
                now_ns = time.monotonic_ns()
                late_ms.extend((now_ns - int(at)) / 1e6 for at in _AT.findall(part))

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=side.headers, connector=connector) as session:
        before_s = side.cpu_s()
        await asyncio.gather(*(listen(session, number) for number in range(streams)))
        used_s = side.cpu_s() - before_s
    if len(late_ms) != streams * CHUNKS:
        raise RuntimeError(f"{len(late_ms)} chunks of {streams * CHUNKS} came")
    return Way(late_ms, used_s / len(late_ms) * 1e6)


async def print_chunks(engine: Side, gate: Side, proxy: Side) -> None:
    """Print what the gate adds to the way of a chunk: medians of rounds that take turns.

    What the proxy before the gate needs for a chunk, in C, is a measure of what the machine asks.
    """
    ways: dict[str, list[Way]] = {"engine": [], "gate": []}
    in_proxy_us = []
    for _ in range(ROUNDS):
        before_s = proxy.cpu_s()
        for name, side in (("engine", engine), ("gate", gate)):
            ways[name].append(await chunks(side))
        in_proxy_us.append((proxy.cpu_s() - before_s) / len(ways["gate"][-1].late_ms) * 1e6)
    print(f"\n| chunks of {STREAMS} streams | engine | gate | added |\n|---|--:|--:|--:|")
    for share in (0.5, 0.99):
        told = {
            name: statistics.median(way.quantile(share) for way in rounds)
            for name, rounds in ways.items()
        }
        added = told["gate"] - told["engine"]
        print(f"| p{share * 100:g} ms | {told['engine']:.3f} | {told['gate']:.3f} | {added:.3f} |")
    before_s = gate.cpu_s()
    await asyncio.sleep(IDLE_S)
    idle_ms = (gate.cpu_s() - before_s) / IDLE_S * 1e3
    cpu_us = statistics.median(way.cpu_us for way in ways["gate"])
    print(f"| CPU of the gateway when nobody calls, ms a second | | {idle_ms:.1f} | |")
    print(f"| CPU of the gateway, us a chunk | | {cpu_us:.1f} | |")
    print(f"| CPU of HAProxy, us a chunk | | {statistics.median(in_proxy_us):.1f} | |")


async def print_memory(gate: Side, requests: int = REQUESTS) -> None:
    """Print the gateway's memory while it answers so many requests, in ten looks."""
    print(f"\n| requests | {gate.url} resident MB |\n|--:|--:|")
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=gate.headers, connector=connector) as session:

        async def worker(todo: int) -> None:
            for _ in range(todo):
                async with session.post(f"{gate.url}/v1/chat/completions", json=chat()) as reply:
                    if not reply.ok:
                        raise RuntimeError(f"{reply.status}: {await reply.text()}")
                    await reply.read()

        print(f"| 0 | {gate.resident_mb():.1f} |")
        for look in range(1, LOOKS + 1):
            each = requests // LOOKS // CONCURRENCY
            await asyncio.gather(*(worker(each) for _ in range(CONCURRENCY)))
            print(f"| {look * each * CONCURRENCY:,} | {gate.resident_mb():.1f} |", flush=True)
