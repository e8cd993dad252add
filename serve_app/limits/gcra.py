"""The arithmetic of one rate limit, without clock, store or I/O.

``store/lua/shared/gcra.lua`` does the same sum inside the store; a test holds the two equal.

    A bucket owes its *debt*: what was taken and is not refilled yet. It may never owe more than
    its burst when something is taken; a correction afterwards may.
    Whoever waits ``wait_us`` is let in; whoever comes earlier is not.

Debts are counted in units × µs of the period, so that every sum is one of whole numbers: ``limit``
of them are paid in each µs, and nothing is ever rounded.

Source: GCRA (ITU-T I.371) as a meter of debt; the words follow the README of brandur/redis-cell.
"""

from dataclasses import dataclass, replace

MINUTE_US = 60_000_000


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
    """What one rate limit remembers.

    Attributes:
        debt: what was taken and is not refilled at ``at_us``, in units × µs.
        at_us: when that was so.
        returned: all that was ever given back, in units × µs.
        limit: how fast the debt is paid.
    """

    debt: int = 0
    at_us: int = 0
    returned: int = 0
    limit: int = 1


@dataclass(frozen=True, slots=True)
class Taken:
    """What one take left behind; it is needed to undo it.

    Attributes:
        units: that were taken.
        at_us: when.
        after: the debt right then.
        returned: all that had been given back till then.
        limit: how fast the debt was paid.
    """

    units: int
    at_us: int
    after: int
    returned: int
    limit: int


def paid(bucket: Bucket, now_us: int) -> Bucket:
    """Return ``bucket`` as it is at ``now_us``."""
    debt = max(bucket.debt - max(now_us - bucket.at_us, 0) * bucket.limit, 0)
    return replace(bucket, debt=debt, at_us=max(now_us, bucket.at_us))


def ask(bucket: Bucket, rate: Rate, units: int, now_us: int) -> Decision:
    """Return what ``bucket`` says to ``units``; 0 only looks, more than the burst never fits."""
    debt = paid(bucket, now_us).debt
    room = (rate.burst - units) * rate.period_us - debt
    after = debt + (units * rate.period_us if room >= 0 else 0)
    left = max(rate.burst * rate.period_us - after, 0) // rate.period_us
    wait_us = 0 if room >= 0 else _divided_up(-room, rate.limit)
    return Decision(left, -1 if units > rate.burst else wait_us, _divided_up(after, rate.limit))


def take(bucket: Bucket, rate: Rate, units: int, now_us: int) -> tuple[Bucket, Taken]:
    """Take ``units`` whatever the bucket says, and return what is needed to undo it."""
    now = paid(bucket, now_us)
    after = replace(now, debt=now.debt + units * rate.period_us, limit=rate.limit)
    return after, Taken(units, now_us, after.debt, after.returned, rate.limit)


def give_back(
    bucket: Bucket, taken: Taken, units: int, now_us: int, period_us: int = MINUTE_US
) -> Bucket:
    """Undo ``units`` of a take, as far as that still matters.

    What would have been refilled by now without the take is not given back again: it was there for
    others already. So nobody is ever let in too early, whatever was taken and undone meanwhile; of
    a request that runs for longer than its bucket takes to refill, the rest of its hold is lost.
    """
    now = paid(bucket, now_us)
    drained = max(now_us - taken.at_us, 0) * now.limit
    still = taken.after - (now.returned - taken.returned) - drained
    back = max(min(units * period_us, still, now.debt), 0)
    return replace(now, debt=now.debt - back, returned=now.returned + back)


def _divided_up(a: int, b: int) -> int:
    return -(-a // b)
