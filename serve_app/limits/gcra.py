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
        total: units that were ever taken from it, given back or not.
        limit: how fast the debt is paid while nobody takes.
    """

    debt: int = 0
    at_us: int = 0
    total: int = 0
    limit: int = 1


@dataclass(frozen=True, slots=True)
class Taken:
    """What one take left behind; it is needed to undo it.

    Attributes:
        units: that were taken.
        total: units that had ever been taken right then, with these.
        limit: how fast the debt was paid.
    """

    units: int
    total: int
    limit: int


def paid(bucket: Bucket, now_us: int, limit: int | None = None) -> Bucket:
    """Return ``bucket`` as it is at ``now_us``, paid at its own limit or at ``limit``."""
    rate = bucket.limit if limit is None else limit
    debt = max(bucket.debt - max(now_us - bucket.at_us, 0) * rate, 0)
    return replace(bucket, debt=debt, at_us=max(now_us, bucket.at_us))


def ask(bucket: Bucket, rate: Rate, units: int, now_us: int) -> Decision:
    """Return what ``bucket`` says to ``units``; 0 only looks, more than the burst never fits."""
    debt = paid(bucket, now_us, rate.limit).debt
    room = (rate.burst - units) * rate.period_us - debt
    after = debt + (units * rate.period_us if room >= 0 else 0)
    left = max(rate.burst * rate.period_us - after, 0) // rate.period_us
    wait_us = 0 if room >= 0 or units == 0 else _divided_up(-room, rate.limit)
    return Decision(left, -1 if units > rate.burst else wait_us, _divided_up(after, rate.limit))


def take(bucket: Bucket, rate: Rate, units: int, now_us: int) -> tuple[Bucket, Taken]:
    """Take ``units`` whatever the bucket says, and return what is needed to undo it."""
    now = paid(bucket, now_us, rate.limit)
    debt, total = now.debt + units * rate.period_us, now.total + units
    return Bucket(debt, now.at_us, total, rate.limit), Taken(units, total, rate.limit)


def give_back(
    bucket: Bucket, taken: Taken, units: int, now_us: int, period_us: int = MINUTE_US
) -> Bucket:
    """Undo ``units`` of a take, as far as that still matters.

    Debts are paid in the order in which they were made, so what was taken later is owed last. The
    rest of the debt is what is still owed of this take and of earlier ones: no more than that is
    given back. What has been refilled meanwhile was there for others already.

    So nobody is ever let in too early, whatever was taken and undone meanwhile: the bucket never
    owes less than if the undone units had never been taken. It may owe more: what was taken later
    counts whole, also where it was undone itself. Of a request that runs for longer than its
    bucket takes to refill, the rest of its hold is lost.
    """
    now = paid(bucket, now_us)
    still = now.debt - (now.total - taken.total) * period_us
    return replace(now, debt=now.debt - max(min(units * period_us, still), 0))


def _divided_up(a: int, b: int) -> int:
    return -(-a // b)
