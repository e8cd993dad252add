"""What limits cost, and whether they are exact; each figure beside what it is judged against.

    .venv/bin/python -m benchmarks.limits               # all, with a million keys
    .venv/bin/python -m benchmarks.limits hold 100000   # among that many keys at most

    accuracy  admitted of what is allowed, over any window: benchmarks/accuracy.py
    hold      the store's time of hold, renew and settle, beside an empty script and a GET
    memory    bytes of a key and of what its requests leave: benchmarks/memory.py
    loss      share of what is allowed that gets through: benchmarks/loss.py

All on loopback, beside whatever else the machine does: the load average stands beside the figures,
and the least of the rounds is what the step itself costs.
"""

import asyncio
import statistics
import sys
from collections.abc import Awaitable
from typing import Any

import redis

from benchmarks import accuracy
from benchmarks.ground import CALLERS, CHARGE, KINDS, MODEL, Bench, bench, each, load
from benchmarks.loss import loss
from benchmarks.memory import memory
from serve_app.limits import Holds
from serve_app.store import keys

ROUNDS, REQUESTS = 30, 128
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
