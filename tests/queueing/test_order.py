from hypothesis import given
from hypothesis import strategies as st

from serve_app.queueing import order

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.integers(0, 5)),
        st.tuples(st.just("leave"), st.integers(0, 40)),
        st.tuples(st.just("beat"), st.integers(0, 2), st.integers(0, 3)),
        st.tuples(st.just("withdraw"), st.integers(0, 2)),
    ),
    max_size=60,
)


def walk(steps) -> order.LineState:
    """Return the state after ``steps``, checking the laws after each."""
    state, entered, now_us = order.LineState(), 0, 10**12
    for step in steps:
        now_us += 1_000
        before = dict(state.line)
        if step[0] == "enter":
            ticket = f"g/{entered}"
            entered += 1
            said = order.enter(state, ticket, now_us=now_us, max_tickets=step[1])
            assert said != "seated" or not before, "a newcomer was seated before those who wait"
        elif step[0] == "leave":
            order.leave(state, f"g/{step[1]}", now_ms=now_us // 1_000)
        elif step[0] == "beat":
            order.beat(state, f"r{step[1]}", step[2], now_ms=now_us // 1_000)
        else:
            order.withdraw(state, f"r{step[1]}")
        seated_now = [ticket for ticket in before if ticket in state.seats]
        still = [at for ticket, at in before.items() if ticket in state.line]
        assert all(before[ticket] < min(still, default=now_us) for ticket in seated_now), (
            "overtaken"
        )
        assert not (state.line and order.roomiest(state)), "a ticket waits while there is room"
    return state


@given(STEPS)
def test_nobody_is_overtaken_and_nobody_waits_beside_a_free_seat(steps) -> None:
    """First come, first seated, and a free seat is never left empty while somebody waits."""
    walk(steps)


@given(STEPS, st.integers(0, 40))
def test_leaving_twice_is_leaving_once(steps, number) -> None:
    """A second leave of the same ticket changes nothing."""
    state = walk(steps)
    order.leave(state, f"g/{number}", now_ms=10**9)
    before = (dict(state.line), dict(state.seats), dict(state.room))
    assert order.leave(state, f"g/{number}", now_ms=10**9) == "gone"
    assert (state.line, state.seats, state.room) == before


def test_the_silent_are_forgotten_and_nobody_else() -> None:
    """A dead gateway's tickets and seats go; the order of the others stays."""
    state = order.LineState()
    order.beat(state, "r", 2, now_ms=0)
    for number, gateway in enumerate(["dead", "alive", "dead", "alive", "alive"]):
        order.enter(state, f"{gateway}/{number}", now_us=number, max_tickets=9)
    order.beat(state, "r", 2, now_ms=4_900)
    state.gateway_beats_ms["alive"] = 4_900

    order.beat(state, "r", 2, now_ms=5_000)

    assert set(state.seats) == {"alive/1", "alive/3"}
    assert list(state.line) == ["alive/4"]


def test_retry_after_follows_the_drain_rate() -> None:
    """The more wait and the slower seats come free, the later; within bounds, jittered upwards."""
    told = [
        order.retry_after_s(waiting, rate, jitter)
        for waiting, rate, jitter in [
            (0, 10, 0),
            (99, 10, 0),
            (99, 10, 1),
            (9, 0, 0),
            (10**6, 1, 0),
        ]
    ]
    assert told == [1, 10, 13, 60, 60]


def test_drain_rate_is_a_decaying_count() -> None:
    """Steady departures read as their own rate; silence fades it."""
    rate = 0.0
    for _ in range(1_000):
        rate = order.drain_rate(rate, age_ms=100, left=1)
    assert 9.5 < rate < 10.6
    assert order.drain_rate(rate, age_ms=60_000, left=0) < 0.1
