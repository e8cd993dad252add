"""The arithmetic of one rate limit, without clock, store or I/O.

``store/lua/shared/gcra.lua`` does the same sum inside the store; a test holds the two equal.

    A bucket owes what was charged and what running requests hold, as far as it is not refilled
    yet; never more than its burst when something is taken.
    A hold becomes a charge when its request ends; a charge may be larger than the hold was.
    Whoever waits ``wait_us`` is let in; whoever comes earlier is not.

Debts are counted in units × µs of the period, so that every sum is one of whole numbers: ``limit``
of them are paid in each µs, and nothing is ever rounded.

Source: GCRA (ITU-T I.371) as a meter of debt; the words follow the README of brandur/redis-cell.
"""

from dataclasses import dataclass, replace
from math import floor

MINUTE_US = 60_000_000
LEAST_LEFT = 1e-6
"""A share below it is too small to be told; what is held then becomes a debt."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast one bucket refills.

    Attributes:
        limit: units that come back in a period (>= 1).
        burst: units that may be taken at once (>= 1).
        period_us: in microseconds.
    """

    limit: int
    burst: int
    period_us: int = MINUTE_US

    def __post_init__(self) -> None:
        if self.limit < 1 or self.burst < 1:
            raise ValueError(f"limit and burst must be >= 1: {self}")


@dataclass(frozen=True, slots=True)
class Decision:
    """What a limit says to one request.

    Attributes:
        left: units left, after the request if it is allowed.
        wait_us: time until the same request is allowed; 0 if it is now, -1 if it never is.
        reset_us: time until everything is there again.
    """

    left: int
    wait_us: int
    reset_us: int

    @property
    def allowed(self) -> bool:
        """Whether the request may go on."""
        return self.wait_us == 0


@dataclass(frozen=True, slots=True)
class Bucket:
    """What one rate limit remembers; debts are in units × µs.

    Attributes:
        debt: what was charged and is not refilled at ``at_us``.
        held: what running requests hold and is not refilled at ``at_us``.
        at_us: when that was so.
        left: the share that is still there of what was held at ``since_us``.
        since_us: when all was refilled the last time.
        limit: how fast it is refilled while nobody takes.
    """

    debt: int = 0
    held: int = 0
    at_us: int = 0
    left: float = 1.0
    since_us: int = 0
    limit: int = 1


@dataclass(frozen=True, slots=True)
class Taken:
    """What one request holds of a bucket.

    Attributes:
        units: that were taken.
        left: the bucket's share right then.
        limit: how fast it was refilled.
    """

    units: int
    left: float
    limit: int


def paid(bucket: Bucket, now_us: int, limit: int | None = None) -> Bucket:
    """Return ``bucket`` as it is at ``now_us``, refilled at its own limit or at ``limit``.

    What was charged is refilled first, then what is held, of every request the same share.
    """
    rate = bucket.limit if limit is None else limit
    refill = max(now_us - bucket.at_us, 0) * rate
    bucket = replace(bucket, at_us=max(now_us, bucket.at_us))
    if refill <= bucket.debt:
        return replace(bucket, debt=bucket.debt - refill)
    rest = refill - bucket.debt
    if rest >= bucket.held:
        return replace(bucket, debt=0, held=0, left=1.0, since_us=now_us)
    left, held = bucket.left * (1 - rest / bucket.held), bucket.held - rest
    if left < LEAST_LEFT:
        return replace(bucket, debt=held, held=0, left=1.0, since_us=now_us)
    return replace(bucket, debt=0, held=held, left=left)


def ask(bucket: Bucket, rate: Rate, units: int, now_us: int) -> Decision:
    """Return what ``bucket`` says to ``units``; 0 only looks, more than the burst never fits."""
    now = paid(bucket, now_us, rate.limit)
    debt = now.debt + now.held
    room = (rate.burst - units) * rate.period_us - debt
    after = debt + (units * rate.period_us if room >= 0 else 0)
    left = max(rate.burst * rate.period_us - after, 0) // rate.period_us
    wait_us = 0 if room >= 0 or units == 0 else _divided_up(-room, rate.limit)
    return Decision(left, -1 if units > rate.burst else wait_us, _divided_up(after, rate.limit))


def take(bucket: Bucket, rate: Rate, units: int, now_us: int) -> tuple[Bucket, Taken]:
    """Hold ``units`` whatever the bucket says, and return what is needed to settle that."""
    now = paid(bucket, now_us, rate.limit)
    held = replace(now, held=now.held + units * rate.period_us, limit=rate.limit)
    return held, Taken(units, now.left, rate.limit)


def charge(bucket: Bucket, units: int, period_us: int = MINUTE_US) -> Bucket:
    """Charge ``units`` for which nothing is held."""
    return replace(bucket, debt=bucket.debt + units * period_us)


def settle(
    bucket: Bucket, taken: Taken, at_us: int, used: int, now_us: int, period_us: int = MINUTE_US
) -> Bucket:
    """Put ``used`` units, 0 gives all back, in the place of what a request holds since ``at_us``.

    What has been refilled of the hold meanwhile pays for the use; if the use was less, the rest of
    that is lost: it would have been there for others already. So nobody is ever let in too early,
    whatever is settled and given back in whatever order.
    """
    now = paid(bucket, now_us)
    whole, mine = taken.units * period_us, 0
    if at_us >= now.since_us:
        mine = min(floor(whole * (now.left / taken.left)), now.held)
    debt = now.debt + max(used * period_us - (whole - mine), 0)
    return replace(now, debt=debt, held=now.held - mine)


def _divided_up(a: int, b: int) -> int:
    return -(-a // b)
