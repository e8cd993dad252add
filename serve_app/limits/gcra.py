"""The arithmetic of one rate limit, without clock, store or I/O.

``store/lua/shared/gcra.lua`` does the same sum inside the store; a test holds the two equal.

    A bucket of ``burst`` units is full at ``tat_us``.
    Spending moves ``tat_us`` on by ``cost × interval_us``; it may never lie further ahead than
    ``burst × interval_us``.
    Whoever waits ``retry_after_us`` is let in; whoever comes earlier is not.

Source: GCRA (ITU-T I.371); the words follow the README of brandur/redis-cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import Self

MINUTE_US = 60_000_000


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast one bucket refills.

    Attributes:
        interval_us: time that one unit takes to come back, in microseconds (>= 1).
        burst: units that may be spent at once (>= 1).
    """

    interval_us: int
    burst: int

    def __post_init__(self) -> None:
        if self.interval_us < 1 or self.burst < 1:
            raise ValueError(f"interval_us and burst must be >= 1: {self}")

    @classmethod
    def per_minute(cls, limit: int, burst: int | None = None) -> Self:
        """Return the rate of ``limit`` units a minute; rounded so that it never admits more."""
        return cls(ceil(MINUTE_US / limit), burst or limit)


@dataclass(frozen=True, slots=True)
class Decision:
    """What the limit says to one request.

    Attributes:
        allowed: whether ``cost`` was taken.
        remaining: units left now.
        retry_after_us: wait before asking again; 0 if allowed, -1 if it never fits.
        reset_after_us: time until the bucket is full.
    """

    allowed: bool
    remaining: int
    retry_after_us: int
    reset_after_us: int


def take(tat_us: int, now_us: int, rate: Rate, cost: int) -> tuple[Decision, int]:
    """Spend ``cost`` units at ``now_us``; return the decision and the new ``tat_us``.

    ``cost`` 0 only looks. Never raises.
    """
    tat_us = max(tat_us, now_us)
    new_tat_us = tat_us + cost * rate.interval_us
    room_us = rate.burst * rate.interval_us - (new_tat_us - now_us)
    if room_us >= 0:
        return Decision(True, room_us // rate.interval_us, 0, new_tat_us - now_us), new_tat_us
    left = (rate.burst * rate.interval_us - (tat_us - now_us)) // rate.interval_us
    wait_us = -1 if cost > rate.burst else -room_us
    return Decision(False, max(left, 0), wait_us, tat_us - now_us), tat_us


def take_all(
    buckets: Sequence[tuple[int, Rate]], now_us: int, cost: int
) -> tuple[Decision, int, list[int]]:
    """Spend ``cost`` in every bucket or in none.

    Returns the decision of the tightest bucket, which one that is, and each bucket's new
    ``tat_us``. The tightest: of those that refuse, the one that refuses longest; if none does,
    the one with least left; of equals the first.
    """
    told = [take(tat_us, now_us, rate, cost) for tat_us, rate in buckets]
    allowed = all(decision.allowed for decision, _ in told)

    def looseness(index: int) -> tuple[bool, float]:
        said = told[index][0]
        wait_us = inf if said.retry_after_us < 0 else said.retry_after_us
        return (said.allowed, said.remaining if said.allowed else -wait_us)

    tightest = min(range(len(told)), key=looseness)
    tats = [new if allowed else old for (old, _), (_, new) in zip(buckets, told, strict=True)]
    return told[tightest][0], tightest, tats


def give_back(tat_us: int, now_us: int, rate: Rate, taken_tat_us: int) -> int:
    """Undo the take of one unit that left ``taken_tat_us``; return the new ``tat_us``, 0 if full.

    What has refilled since the take is not given back again: it was there for others already.
    """
    still_us = min(rate.interval_us, max(0, taken_tat_us - now_us))
    tat_us -= still_us
    return tat_us if tat_us > now_us else 0
