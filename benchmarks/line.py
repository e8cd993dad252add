"""Store time and memory of a long line: ``python -m benchmarks.line [--tickets N] [--tenants N]``.

A Valkey of its own; one step after the other, so that nothing but the step is measured. Store time
is what ``INFO commandstats`` counts of ``EVALSHA``, call by call; a script that does nothing shows
what of it the machine adds. A leave seats the next.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from serve_app.queueing.desk import rules_of
from serve_app.settings import QueueClass
from serve_app.store import EmbeddedStore, keys
from serve_app.store.scripts import TEXTS

STEPS = ("enter", "leave", "beat", "tend")
CLASSES = [
    QueueClass(name="interactive", max_seats=1.25, max_wait_s=3_600, max_tickets=1_000_000),
    QueueClass(name="standard", max_wait_s=3_600, max_tickets=1_000_000),
    QueueClass(name="batch", max_seats=0.95, max_wait_s=3_600, max_tickets=1_000_000),
]
RULES = rules_of(CLASSES)
SAMPLES = 2_000
REPLICAS, SEATS = 8, 8


class Steps:
    """The steps of one line, each call timed by the store itself."""

    def __init__(self, client: Any) -> None:
        self.client, self.names = client, keys.line("m")
        texts = {"nothing": "return 1", **{step: TEXTS[f"line_{step}"] for step in STEPS}}
        self.shas = {step: client.script_load(text) for step, text in texts.items()}
        self.took_us: dict[str, list[int]] = {step: [] for step in texts}
        self.count = 0

    def spent_us(self) -> int:
        """Return what all calls of scripts took until now."""
        return int(self.client.info("commandstats")["cmdstat_evalsha"]["usec"])

    def run(self, step: str, *args: Any, timed: bool = True) -> Any:
        """Run one step."""
        before_us = self.spent_us() if timed else 0
        told = self.client.evalsha(self.shas[step], len(self.names), *self.names, *args)
        if timed:
            self.took_us[step].append(self.spent_us() - before_us)
        return told

    def enter(self, tenants: int, *, timed: bool) -> str:
        """Enter a request of some tenant and class."""
        self.count += 1
        ticket = f"sg:wake:{'g' * 16}/{self.count}"
        whose = f"tenant-{random.randrange(tenants)}", f"key{random.randrange(3)}-0123456789"
        times = 0, 3_600_000_000, 3_600_000_000
        args = [random.randrange(3), *whose, 1, 1, random.randrange(2_000), 900, *times, "", 0]
        self.run("enter", ticket, *args, RULES, timed=timed)
        return ticket

    def seated(self) -> list[str]:
        """Return the tickets that sit."""
        held = self.client.zrange(self.names[6], "[r:", "(r:~", bylex=True)
        return [one.decode().rpartition("|")[2] for one in held]


def beats(steps: Steps, *, seats: int, timed: bool) -> None:
    """Have every replica beat."""
    for number in range(REPLICAS):
        steps.run("beat", f"r{number}", seats, "info", timed=timed)


def measured(client: Any, tickets: int, tenants: int) -> Iterator[tuple[str, list[int], float]]:
    """Yield each step, its times in us, and the bytes of a ticket that waits."""
    client.flushall()
    steps = Steps(client)
    steps.run("tend", "sg:wake:" + "g" * 16, RULES, timed=False)
    beats(steps, seats=SEATS, timed=False)
    empty = client.info("memory")["used_memory_dataset"]
    for number in range(tickets):
        steps.enter(tenants, timed=False)
        if number % 200 == 0:
            beats(steps, seats=SEATS, timed=False)
            steps.run("tend", "sg:wake:" + "g" * 16, RULES, timed=False)
    size = (client.info("memory")["used_memory_dataset"] - empty) / tickets
    for number in range(SAMPLES):
        if number % 50 == 0:
            beats(steps, seats=SEATS, timed=True)
            steps.run("tend", "sg:wake:" + "g" * 16, RULES)
        steps.run("nothing")
        steps.enter(tenants, timed=True)
        steps.run("leave", random.choice(steps.seated()), random.randrange(2_000))
    for step, took_us in steps.took_us.items():
        yield step, took_us, size


def lines(client: Any, tickets: list[int], tenants: list[int]) -> Iterator[str]:
    """Yield the table, a line at a time."""
    yield "| tickets | tenants | step | p50 us | p99 us | bytes a ticket |"
    yield "|--:|--:|---|--:|--:|--:|"
    for many in tickets:
        for owners in tenants:
            for step, took_us, size in measured(client, many, owners):
                p99 = statistics.quantiles(took_us, n=100)[98]
                p50 = statistics.median(took_us)
                yield f"| {many} | {owners} | {step} | {p50:.0f} | {p99:.0f} | {size:.0f} |"


async def main() -> None:
    """Measure, and print the table."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--tickets", type=int, nargs="+", default=[0, 10_000])
    asked.add_argument("--tenants", type=int, nargs="+", default=[10, 1_000])
    told = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        embedded = EmbeddedStore(Path(folder))
        with redis.Redis.from_url(embedded.url) as client:
            for line in lines(client, [max(one, 100) for one in told.tickets], told.tenants):
                print(line, flush=True)
        embedded.stop()


if __name__ == "__main__":
    asyncio.run(main())
