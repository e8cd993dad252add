"""The arithmetic of one rate limit."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from serve_app.limits import Rate, give_back, take, take_all

RATE = Rate(interval_us=1_000_000, burst=5)
SECOND_US = 1_000_000

TIMES = st.integers(0, 10**7)
RATES = st.builds(Rate, interval_us=st.integers(1, 10**6), burst=st.integers(1, 50))
COSTS = st.integers(0, 60)


def test_story() -> None:
    """A bucket of five, one per second, through a busy few seconds."""
    tat_us = 0
    for at_s, cost, allowed, remaining, retry_after_s, reset_after_s in [
        (0, 6, False, 5, -1, 0),  # more than the bucket holds
        (0, 5, True, 0, 0, 5),  # all of it at once
        (0, 1, False, 0, 1, 5),  # empty
        (0, 0, True, 0, 0, 5),  # a look costs nothing, even when it is empty
        (0.5, 1, False, 0, 0.5, 4.5),  # half a request has come back
        (3, 2, True, 1, 0, 4),  # three came back
        (3, 2, False, 1, 1, 4),  # one is there, two are asked
        (3, 0, True, 1, 0, 4),
        (60, 0, True, 5, 0, 0),  # idle time banks no more than the bucket
        (60, 5, True, 0, 0, 5),
    ]:
        said, tat_us = take(tat_us, int(at_s * SECOND_US), RATE, cost)
        assert (said.allowed, said.remaining) == (allowed, remaining)
        told_us = retry_after_s if retry_after_s < 0 else int(retry_after_s * SECOND_US)
        assert said.retry_after_us == told_us
        assert said.reset_after_us == int(reset_after_s * SECOND_US)


@given(tat=TIMES, now=TIMES, rate=RATES, cost=COSTS)
def test_waiting_as_told_is_enough_and_needed(tat: int, now: int, rate: Rate, cost: int) -> None:
    """Whoever waits ``retry_after_us`` is let in; whoever comes a microsecond earlier is not."""
    said, tat2 = take(tat, now, rate, cost)
    if said.allowed:
        assert said.retry_after_us == 0
    elif cost > rate.burst:
        assert said.retry_after_us == -1
        assert not take(0, now, rate, cost)[0].allowed  # not even from a full bucket
    else:
        assert take(tat2, now + said.retry_after_us, rate, cost)[0].allowed
        assert not take(tat2, now + said.retry_after_us - 1, rate, cost)[0].allowed


@given(tat=TIMES, now=TIMES, rate=RATES, cost=COSTS)
def test_what_remains_can_be_taken_and_no_more(tat: int, now: int, rate: Rate, cost: int) -> None:
    """``remaining`` units pass at once, one more does not; at ``reset_after_us`` all are there."""
    assume(tat <= now + rate.burst * rate.interval_us)  # a bucket is never deeper in debt
    said, tat2 = take(tat, now, rate, cost)
    assert take(tat2, now, rate, said.remaining)[0].allowed
    assert not take(tat2, now, rate, said.remaining + 1)[0].allowed
    assert take(tat2, now + said.reset_after_us, rate, 0)[0].remaining == rate.burst


@given(
    rate=RATES,
    asked=st.lists(st.tuples(st.integers(0, 2 * 10**6), st.integers(1, 8)), max_size=60),
)
def test_no_window_admits_more_than_its_share(rate: Rate, asked: list[tuple[int, int]]) -> None:
    """Between any two moments: at most the burst and what came back in between."""
    tat_us, now_us, admitted = 0, 0, []
    for gap_us, cost in asked:
        now_us += gap_us
        said, tat_us = take(tat_us, now_us, rate, cost)
        if said.allowed:
            admitted.append((now_us, cost))
    for first, (from_us, _) in enumerate(admitted):
        units = 0
        for to_us, cost in admitted[first:]:
            units += cost
            assert units <= rate.burst + (to_us - from_us) // rate.interval_us


@given(now=TIMES, ahead=TIMES, rate=RATES, cost=st.integers(1, 50))
def test_a_refusal_takes_nothing(now: int, ahead: int, rate: Rate, cost: int) -> None:
    """What is refused leaves the bucket as it was."""
    said, tat2 = take(now + ahead, now, rate, cost)
    if not said.allowed:
        assert tat2 == now + ahead
        assert said.reset_after_us == ahead


def test_what_has_refilled_is_not_given_back_again() -> None:
    """One a minute: A takes, B a minute later, A is given back; C must wait for B's minute."""
    rate, minute_us = Rate.per_minute(1), 60_000_000
    _, after_a = take(0, 1, rate, 1)
    said_b, after_b = take(after_a, after_a, rate, 1)
    returned = give_back(after_b, after_a + 1_000_000, rate, after_a)
    said_c, _ = take(returned, after_a + 1_000_000, rate, 1)
    assert (said_b.allowed, said_c.allowed) == (True, False)
    assert said_c.retry_after_us == minute_us - 1_000_000


@given(tat=TIMES, now=TIMES, rate=RATES, later=st.integers(0, 10**7))
def test_giving_back_undoes_the_taking(tat: int, now: int, rate: Rate, later: int) -> None:
    """Given back at any time, the bucket is as if nothing had been taken."""
    said, tat2 = take(tat, now, rate, 1)
    assume(said.allowed)
    returned = give_back(tat2, now + later, rate, tat2)
    untouched = max(tat, now)
    assert returned == (untouched if untouched > now + later else 0)
    assert take(returned, now + later, rate, 1) == take(untouched, now + later, rate, 1)


@given(limit=st.integers(1, 10**7), burst=st.none() | st.integers(1, 10**7))
def test_a_rate_per_minute_is_never_exceeded(limit: int, burst: int | None) -> None:
    """Rounded up by less than a microsecond; the burst, if none is named, is the limit."""
    rate = Rate.per_minute(limit, burst)
    assert limit * rate.interval_us >= 60_000_000
    assert limit * (rate.interval_us - 1) < 60_000_000
    assert rate.burst == (burst or limit)


@pytest.mark.parametrize(("interval_us", "burst"), [(0, 1), (-1, 1), (1, 0), (1, -1)])
def test_an_impossible_rate_is_refused(interval_us: int, burst: int) -> None:
    """An interval and a burst are at least one."""
    with pytest.raises(ValueError, match=r"must be >= 1: Rate\("):
        Rate(interval_us, burst)


@given(
    buckets=st.lists(
        st.tuples(st.integers(-(10**6), 10**6), st.integers(1, 1_000), st.integers(1, 20)),
        min_size=1,
        max_size=4,
    ),
    cost=st.integers(0, 25),
)
def test_all_or_nothing(buckets, cost: int) -> None:
    """Every bucket is spent from, or none; what is told is the tightest one's word."""
    now_us = 10**9
    rated = [(now_us + ahead, Rate(interval, burst)) for ahead, interval, burst in buckets]
    alone = [take(tat_us, now_us, rate, cost) for tat_us, rate in rated]
    said, tightest, new = take_all(rated, now_us, cost)
    assert said == alone[tightest][0]
    assert said.allowed == all(decision.allowed for decision, _ in alone)
    assert new == ([tat for _, tat in alone] if said.allowed else [tat for tat, _ in rated])
    if said.allowed:
        assert said.remaining == min(decision.remaining for decision, _ in alone)
    else:
        waits = [decision.retry_after_us for decision, _ in alone if not decision.allowed]
        assert said.retry_after_us == (-1 if -1 in waits else max(waits))
