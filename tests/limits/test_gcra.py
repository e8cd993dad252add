"""The arithmetic of one rate limit."""

from dataclasses import dataclass, field
from fractions import Fraction

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from serve_app.limits.gcra import MINUTE_US, Bucket, Rate, Taken, ask, give_back, paid, take

SECOND_US = 1_000_000
RATE = Rate(limit=1, burst=5, period_us=SECOND_US)
"""A bucket of five; one a second comes back."""

TIMES = st.integers(0, 10**8)
RATES = st.builds(
    Rate, st.integers(1, 10**4), st.integers(1, 50), st.sampled_from([7, SECOND_US, MINUTE_US])
)
UNITS = st.integers(0, 60)
BUCKETS = st.builds(Bucket, st.integers(0, 10**10), TIMES, st.integers(0, 99), st.integers(1, 99))


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
    """A bucket, and beside it what was admitted and not undone."""

    rate: Rate
    bucket: Bucket = field(default_factory=Bucket)
    now_us: int = 0
    takes: list[tuple[int, Taken]] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    """Units of each take that were not given back."""

    def take(self, units: int) -> None:
        if ask(self.bucket, self.rate, units, self.now_us).allowed:
            self.bucket, taken = take(self.bucket, self.rate, units, self.now_us)
            self.takes.append((self.now_us, taken))
            self.kept.append(units)

    def undo(self, which: int, units: int) -> None:
        """Give back up to ``units`` of a take."""
        if self.takes:
            at = which % len(self.takes)
            units = min(units, self.kept[at])
            taken, period = self.takes[at][1], self.rate.period_us
            self.bucket = give_back(self.bucket, taken, units, self.now_us, period)
            self.kept[at] -= units

    def overspend(self, units: int) -> None:
        """Charge what nobody was asked for: a request used more than it held."""
        self.bucket, _ = take(self.bucket, self.rate, units, self.now_us)

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
        st.sampled_from(["take", "take", "take", "undo", "undo", "overspend"]),
        st.integers(0, 12),  # µs that pass before
        st.integers(1, 9),  # units
        st.integers(0, 99),  # which take
    ),
    max_size=60,
)


@settings(max_examples=3_000)
@example(  # A, B behind it; A undone; C after all of that; B undone: C's debt is its own
    limit=1,
    burst=9,
    period=1,
    moves=[
        ("take", 0, 5, 0),
        ("take", 0, 4, 0),
        ("undo", 2, 5, 0),
        ("take", 9, 9, 0),
        ("undo", 0, 9, 1),
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
    """Whatever is taken, and undone in whole or part at any later time in any order.

    Between any two moments the units that were admitted and not given back are at most the burst
    and what came back in between. What a request used beyond its hold nobody admitted; it counts
    against the others only. And after every move the bucket owes at least what it would owe if the
    undone units had never been taken: that is why.
    """
    ledger = Ledger(Rate(limit, burst, period))
    for move, gap_us, units, which in moves:
        ledger.now_us += gap_us
        if move == "take":
            ledger.take(min(units, burst))
        elif move == "undo":
            ledger.undo(which, units)
        else:
            ledger.overspend(units)
        assert paid(ledger.bucket, ledger.now_us).debt >= ledger.owed_at_least()
    assert ledger.over_admitted() <= 0


@settings(max_examples=1_000)
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
            ledger.undo(which, units)
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
    assert give_back(bucket, first, 1_000, minute * 3 // 2) == bucket


@given(bucket=BUCKETS, now=TIMES, rate=RATES, units=st.integers(1, 50), later=TIMES)
def test_giving_back_undoes_the_taking(bucket, now, rate, units, later) -> None:
    """Given back at any time, with nothing else happening, it is as if nothing had been taken."""
    assume(now >= bucket.at_us)
    after, taken = take(bucket, rate, units, now)
    returned = give_back(after, taken, units, now + later, rate.period_us)
    untouched = paid(paid(bucket, now, rate.limit), now + later, rate.limit)
    assert returned.debt == untouched.debt


@given(bucket=BUCKETS, now=TIMES, rate=RATES, units=st.integers(2, 50), part=st.integers(1, 49))
def test_giving_back_in_parts_is_giving_back(bucket, now, rate, units, part) -> None:
    """In two parts or at once is the same; more than is still owed is never given."""
    assume(part < units)
    after, taken = take(bucket, rate, units, now)
    period = rate.period_us
    once = give_back(after, taken, units, now, period)
    parts = give_back(give_back(after, taken, part, now, period), taken, units - part, now, period)
    assert parts == once
    assert once.debt >= 0


def test_what_has_refilled_is_not_given_back_again() -> None:
    """One a minute: A takes, B a minute later, A is given back; C must wait for B's minute."""
    rate = Rate(1, 1)
    after_a, a = take(Bucket(), rate, 1, 0)
    assert ask(after_a, rate, 1, MINUTE_US).allowed
    after_b, _ = take(after_a, rate, 1, MINUTE_US)
    returned = give_back(after_b, a, 1, MINUTE_US + SECOND_US)
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
            ledger.undo(running.pop(0)[1], 2 * (over - 1))
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
        (3, 30, 0.65, 0.68),
        (3, 60, 0.33, 0.34),
        (3, 120, 0.33, 0.34),
    ],
)
def test_under_contention_short_requests_lose_nothing(over, seconds, least, most) -> None:
    """Requests that hold 3 times what they use, and everybody asks all the time: nothing is lost.

    As long as a request runs no longer than a burst takes to refill, times what it uses of what it
    holds: here 20 s. Longer ones lose of what they hold beyond their use; the share of what is
    allowed that gets through, with a burst of 60 s, measured:

    ====================  ====  ====  ====  ====  ====  ====  ====  =====
    a request runs for    10 s  20 s  25 s  30 s  40 s  60 s  90 s  120 s
    holds 2 × its use     100%  100%  100%  100%   75%   50%   50%    50%
    holds 3 × its use     100%  100%   80%   67%   50%   33%   33%    33%
    ====================  ====  ====  ====  ====  ====  ====  ====  =====
    """
    assert least <= share_admitted(seconds, over) <= most
