"""Share of what is allowed that gets through, by a request's duration and estimate.

Run by ``python -m benchmarks.limits loss``.
"""

from collections import deque

from serve_app.limits.gcra import MINUTE_US, Bucket, Rate, Taken, ask, settle, take


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
