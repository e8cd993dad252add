"""Draw as many examples of each parser's property as one likes, and tell whether memory grows.

    python -m benchmarks.fuzz --examples 100000

The properties are those of ``tests/fuzz``; the examples, spread over all of them, are others at
each ``--seed``. They come in rounds, so that what Hypothesis remembers of a round goes with it; the
first round warms up, and memory is compared from there.
"""

import argparse
import gc
import time

import psutil

from tests.fuzz.drawing import drawn
from tests.fuzz.properties import PROPERTIES

ROUND = 500
MIB = 1_048_576


def main() -> None:
    """Draw them, and print how many, the slowest, and memory before and after."""
    told = argparse.ArgumentParser(description="Fuzz the parsers that a stranger's bytes reach.")
    told.add_argument("--examples", type=int, default=100_000, help="of all properties together")
    told.add_argument("--seed", type=int, default=int(time.time()))
    asked = told.parse_args()
    rounds = max(2, -(-asked.examples // (ROUND * len(PROPERTIES))))
    print(f"{len(PROPERTIES)} properties, {rounds} rounds of {ROUND}, seed {asked.seed}")
    count, slowest, began_s = 0, (0.0, ""), time.monotonic()
    before = 0.0
    for turn in range(rounds):
        for name in PROPERTIES:
            went = drawn(name, ROUND, asked.seed + turn)
            count += went.count
            slowest = max(slowest, (went.slowest_s, name)) if turn else slowest
        before = before or resident_mib()
        print(f"  {count:,} examples, {resident_mib():.1f} MiB", flush=True)
    print(
        f"{count:,} examples in {time.monotonic() - began_s:.0f} s: nothing but refusals; "
        f"the slowest took {slowest[0] * 1_000:.1f} ms of CPU ({slowest[1]}); "
        f"memory {before:.1f} MiB after the first round, {resident_mib():.1f} at the end"
    )


def resident_mib() -> float:
    """Return what this process holds of memory, once what is unused was given back."""
    gc.collect()
    return psutil.Process().memory_info().rss / MIB


if __name__ == "__main__":
    main()
