"""The arithmetic of one rate limit."""

from dataclasses import dataclass, field
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from serve_app.limits.gcra import MINUTE_US, Bucket, Rate, Taken, ask, charge, paid, settle, take

SECOND_US = 1_000_000
RATE = Rate(limit=1, burst=5, period_us=SECOND_US)
"""A bucket of five; one a second comes back."""

TIMES = st.integers(0, 10**8)
RATES = st.builds(
    Rate, st.integers(1, 10**4), st.integers(1, 50), st.sampled_from([7, SECOND_US, MINUTE_US])
)
UNITS = st.integers(0, 60)
BUCKETS = st.builds(
    Bucket,
    debt=st.integers(0, 10**10),
    held=st.integers(0, 10**10),
    at_us=TIMES,
    left=st.floats(0.01, 1),
    limit=st.integers(1, 99),
)


def owed(bucket: Bucket) -> int:
    """All that is not refilled."""
    return bucket.debt + bucket.held


def test_story() -> None:
    """A bucket of five, one per second, through a busy few seconds."""
    bucket = Bucket()
    for at_s, units, left, wait_s, reset_s in [
        (0, 6, 5, -1, 0),  # more than the bucket holds
        (0, 5, 0, 0, 5),  # all of it at once
        (0, 1, 0, 1, 5),  # empty
        (0, 0, 0, 0, 5),  # a look costs nothing, even when it is empty
        (0.5, 1, 0, 0.5, 4.5),  # half a request has come back
        (3, 2, 1, 0, 4),  # three came back
        (3, 2, 1, 1, 4),  # one is there, two are asked
        (3, 0, 1, 0, 4),
        (60, 0, 5, 0, 0),  # idle time banks no more than the bucket
        (60, 5, 0, 0, 5),
    ]:
        now_us = int(at_s * SECOND_US)
        said = ask(bucket, RATE, units, now_us)
        told = (said.left, said.wait_us, said.reset_us)
        assert told == (left, wait_s if wait_s < 0 else wait_s * SECOND_US, reset_s * SECOND_US)
        if said.allowed:
            bucket, _ = take(bucket, RATE, units, now_us)


@given(bucket=BUCKETS, now=TIMES, rate=RATES, units=UNITS)
def test_waiting_as_told_is_enough_and_needed(bucket, now: int, rate: Rate, units: int) -> None:
    """Whoever waits ``wait_us`` is let in; whoever comes a microsecond earlier is not."""
    said = ask(bucket, rate, units, now)
    if said.allowed:
        assert said.wait_us == 0
    elif units > rate.burst:
        assert said.wait_us == -1
        assert not ask(Bucket(), rate, units, now).allowed, "not even from a full bucket"
    else:
        later_us = max(now, bucket.at_us) + said.wait_us
        assert ask(bucket, rate, units, later_us).allowed
        assert not ask(bucket, rate, units, later_us - 1).allowed


@given(bucket=BUCKETS, now=TIMES, rate=RATES, units=UNITS)
def test_what_remains_can_be_taken_and_no_more(bucket, now: int, rate: Rate, units: int) -> None:
    """``left`` units pass at once, one more does not; after ``reset_us`` all are there."""
    said = ask(bucket, rate, units, now)
    if said.allowed:
        bucket, _ = take(bucket, rate, units, now)
    assert ask(bucket, rate, said.left, now).allowed
    assert not ask(bucket, rate, said.left + 1, now).allowed
    full_us = max(now, bucket.at_us) + said.reset_us
    assert ask(bucket, rate, 0, full_us).left == rate.burst
    assert said.reset_us == 0 or ask(bucket, rate, 0, full_us - 1).reset_us == 1


@given(bucket=BUCKETS, now=TIMES, rate=RATES)
def test_nothing_is_always_there(bucket, now: int, rate: Rate) -> None:
    """Who asks for nothing is refused by nobody, however deep the debt."""
    assert ask(bucket, rate, 0, now).allowed


@dataclass
class Ledger:
    """A bucket, and beside it what was admitted and used."""

    rate: Rate
    bucket: Bucket = field(default_factory=Bucket)
    now_us: int = 0
    takes: list[tuple[int, Taken]] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    """Units of each take: held, or used once it is settled."""
    open: list[int] = field(default_factory=list)
    """Which takes are not settled."""

    def take(self, units: int) -> None:
        if ask(self.bucket, self.rate, units, self.now_us).allowed:
            self.bucket, taken = take(self.bucket, self.rate, units, self.now_us)
            self.open.append(len(self.takes))
            self.takes.append((self.now_us, taken))
            self.kept.append(units)

    def settle(self, which: int, used: int) -> None:
        """Settle one of the open takes: it used so much, or all of it."""
        if self.open:
            at = self.open.pop(which % len(self.open))
            at_us, taken = self.takes[at]
            self.kept[at] = min(used, self.kept[at])
            self.bucket = settle(
                self.bucket, taken, at_us, self.kept[at], self.now_us, self.rate.period_us
            )

    def overspend(self, units: int) -> None:
        """Charge what nobody was asked for: a request used more than it held."""
        now = paid(self.bucket, self.now_us, self.rate.limit)
        self.bucket = charge(now, units, self.rate.period_us)

    def over_admitted(self) -> int:
        """Return by how much the worst window admitted more than its share, in units × µs."""
        worst = 0
        for first, (from_us, _) in enumerate(self.takes):
            units = 0
            for (to_us, _), kept in zip(self.takes[first:], self.kept[first:], strict=True):
                units += kept
                share = self.rate.burst * self.rate.period_us + self.rate.limit * (to_us - from_us)
                worst = max(worst, units * self.rate.period_us - share)
        return worst

    def owed_at_least(self) -> int:
        """Return the debt if what was undone had never been taken, and nothing was overspent."""
        debt, at_us = 0, 0
        for (then_us, _), kept in zip(self.takes, self.kept, strict=True):
            debt = max(debt - (then_us - at_us) * self.rate.limit, 0)
            debt, at_us = debt + kept * self.rate.period_us, then_us
        return max(debt - (self.now_us - at_us) * self.rate.limit, 0)


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "take", "settle", "settle", "overspend"]),
        st.integers(0, 12),  # µs that pass before
        st.integers(0, 9),  # units
        st.integers(0, 99),  # which take
    ),
    max_size=60,
)


@settings(max_examples=2_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(  # A, B behind it; A undone; C after all of that; B undone: C's debt is its own
    limit=1,
    burst=9,
    period=1,
    moves=[
        ("take", 0, 5, 0),
        ("take", 0, 4, 0),
        ("settle", 2, 0, 0),
        ("take", 9, 9, 0),
        ("settle", 0, 0, 0),
        ("take", 0, 9, 0),
    ],
)
@given(
    limit=st.integers(1, 5),
    burst=st.integers(1, 12),
    period=st.sampled_from([1, 2, 3, 7]),
    moves=MOVES,
)
def test_no_window_admits_more_than_its_share(limit, burst, period, moves) -> None:
    """Whatever is taken, and settled for as much or less at any later time in any order.

    Between any two moments the units that were admitted and used are at most the burst and what
    came back in between. What a request used beyond its hold nobody admitted; it counts
    against the others only. And after every move the bucket owes at least what it would owe if the
    unused units had never been taken: that is why.
    """
    ledger = Ledger(Rate(limit, burst, period))
    for move, gap_us, units, which in moves:
        ledger.now_us += gap_us
        if move == "take":
            ledger.take(min(units, burst))
        elif move == "settle":
            ledger.settle(which, units)
        else:
            ledger.overspend(units)
        assert owed(paid(ledger.bucket, ledger.now_us)) >= ledger.owed_at_least()
    assert ledger.over_admitted() <= 0


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    limits=st.lists(st.integers(1, 4), min_size=2, max_size=2),
    changes=st.sets(st.integers(0, 59)),
    burst=st.integers(1, 12),
    moves=MOVES,
)
def test_a_change_of_the_limit_gives_nothing_away(limits, changes, burst, moves) -> None:
    """The limit goes up and down meanwhile: no window admits more than the larger one allows."""
    ledger = Ledger(Rate(max(limits), burst, 1))
    for number, (move, gap_us, units, which) in enumerate(moves):
        ledger.rate = Rate(limits[number in changes], burst, 1)
        ledger.now_us += gap_us
        if move == "take":
            ledger.take(min(units, burst))
        else:
            ledger.settle(which, units)
    ledger.rate = Rate(max(limits), burst, 1)
    assert ledger.over_admitted() <= 0


def test_what_was_lent_before_a_limit_was_lowered_is_not_given_back_twice() -> None:
    """1000 a minute, used and refilled; used again, and the limit is lowered to 1 a minute.

    The first thousand, given back then, was refilled long ago: nothing of it is still owed. The sum
    of the time passed and the limit as it is now says otherwise, and let a third thousand in.
    """
    fast, slow, minute = Rate(1_000, 1_000), Rate(1, 1_000), MINUTE_US
    bucket, first = take(Bucket(limit=1_000), fast, 1_000, 0)
    bucket, _ = take(bucket, fast, 1_000, minute)
    bucket = paid(bucket, minute * 3 // 2)  # half of it has come back by the time of the change
    bucket, _ = take(bucket, slow, 1, minute * 3 // 2)
    assert owed(settle(bucket, first, 0, 0, minute * 3 // 2)) == owed(bucket)


@given(bucket=BUCKETS, now=TIMES, rate=RATES, units=st.integers(1, 50), later=TIMES)
def test_giving_back_undoes_the_taking(bucket, now, rate, units, later) -> None:
    """Given back at any time, with nothing else happening, it is as if nothing had been taken.

    To a unit × µs or two: shares are rounded, to the safe side.
    """
    assume(now >= bucket.at_us)
    after, taken = take(bucket, rate, units, now)
    returned = settle(after, taken, now, 0, now + later, rate.period_us)
    untouched = paid(paid(bucket, now, rate.limit), now + later, rate.limit)
    if bucket.held == 0:
        assert 0 <= owed(returned) - owed(untouched) <= 2
    else:
        assert owed(returned) >= owed(untouched) - 2


@given(bucket=BUCKETS, now=TIMES, rate=RATES, units=st.integers(1, 50), later=TIMES)
def test_using_all_of_a_hold_changes_nothing(bucket, now, rate, units, later) -> None:
    """A request that uses what it held is charged as if it had been charged when it came."""
    after, taken = take(bucket, rate, units, now)
    used = settle(after, taken, max(now, bucket.at_us), units, now + later, rate.period_us)
    assert owed(used) == owed(paid(after, now + later))


def test_of_many_at_once_each_is_charged_what_it_used() -> None:
    """Fifty that hold 300 and use 30, ended in any order: what is left is short of 1,500.

    Undone by the order of taking, the later ones counted whole against the earlier ones: ten times
    as much was missing as had been used.
    """
    rate = Rate(20_000, 20_000)
    ledger = Ledger(rate)
    for _ in range(50):
        ledger.take(300)
    for which in (7, 0, 48, 3, 1, *range(45)):
        ledger.now_us += 1_000
        ledger.settle(which, 30)
    missing = 20_000 - ask(ledger.bucket, rate, 0, ledger.now_us).left
    assert 1_480 <= missing <= 1_500


def test_what_has_refilled_is_not_given_back_again() -> None:
    """One a minute: A takes, B a minute later, A is given back; C must wait for B's minute."""
    rate = Rate(1, 1)
    after_a, a = take(Bucket(), rate, 1, 0)
    assert ask(after_a, rate, 1, MINUTE_US).allowed
    after_b, _ = take(after_a, rate, 1, MINUTE_US)
    returned = settle(after_b, a, 0, 0, MINUTE_US + SECOND_US)
    assert ask(returned, rate, 1, MINUTE_US + SECOND_US).wait_us == MINUTE_US - SECOND_US


@pytest.mark.parametrize(("limit", "burst"), [(0, 1), (-1, 1), (1, 0), (1, -1)])
def test_an_impossible_rate_is_refused(limit: int, burst: int) -> None:
    """A limit and a burst are at least one."""
    with pytest.raises(ValueError, match=r"must be >= 1: Rate\("):
        Rate(limit, burst)


def share_admitted(seconds: int, over: int, *, lasts_s: int = 360) -> Fraction:
    """Return which share of what is allowed is used, when everybody asks all the time.

    600 a minute, a burst of one minute. Each request uses 2 units, holds ``over`` times as much and
    runs for so many seconds; somebody asks whenever there is room. The first minute is left out.
    """
    rate, ledger, used, running = Rate(600, 600), Ledger(Rate(600, 600)), 0, []
    step_us = SECOND_US // 10
    for now_us in range(0, lasts_s * SECOND_US, step_us):
        ledger.now_us = now_us
        while running and running[0][0] <= now_us:
            ledger.settle(ledger.open.index(running.pop(0)[1]), 2)
        while ask(ledger.bucket, rate, 2 * over, now_us).allowed:
            ledger.take(2 * over)
            running.append((now_us + seconds * SECOND_US, len(ledger.takes) - 1))
            used += 2 if now_us >= 60 * SECOND_US else 0
    return Fraction(used, (lasts_s - 60) * 10)


@pytest.mark.parametrize(
    ("over", "seconds", "least", "most"),
    [
        (1, 60, 0.99, 1.02),
        (3, 1, 0.99, 1.02),
        (3, 5, 0.99, 1.02),
        (3, 10, 0.99, 1.02),
        (3, 15, 0.99, 1.02),
        (3, 19, 0.99, 1.02),
        (3, 20, 0.99, 1.02),
        (3, 30, 0.84, 0.88),
        (3, 60, 0.52, 0.56),
        (3, 120, 0.36, 0.40),
    ],
)
def test_under_contention_short_requests_lose_nothing(over, seconds, least, most) -> None:
    """Requests that hold 3 times what they use, and everybody asks all the time: nothing is lost.

    As long as a request runs no longer than a burst takes to refill, times what it uses of what it
    holds: here 20 s. Longer ones lose of what they hold beyond their use; the share of what is
    allowed that gets through, with a burst of 60 s, measured:

    ====================  ====  ====  ====  ====  ====  ====  ====  =====
    a request runs for    10 s  20 s  25 s  30 s  40 s  60 s  90 s  120 s
    holds 2 × its use     100%  100%  100%  100%  100%   81%   64%    57%
    holds 3 × its use     100%  100%   97%   86%   68%   54%   43%    38%
    ====================  ====  ====  ====  ====  ====  ====  ====  =====
    """
    assert least <= share_admitted(seconds, over) <= most
