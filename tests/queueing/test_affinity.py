"""A conversation comes back to its replica (DESIGN §4, seats)."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.queueing import order
from serve_app.queueing.affinity import Ring
from serve_app.queueing.order.state import LineState, Rule, Ticket

NAMES = st.sets(st.text("0123456789abcdef", min_size=16, max_size=16), min_size=1, max_size=12)
PREFIXES = [f"{at:016x}" for at in range(4_000)]


@given(NAMES)
def test_every_gateway_finds_the_same(replicas: set[str]) -> None:
    """Whatever the order in which it heard of them."""
    one, other = Ring(sorted(replicas)), Ring(sorted(replicas, reverse=True))
    assert [one.near(prefix) for prefix in PREFIXES[:50]] == [
        other.near(prefix) for prefix in PREFIXES[:50]
    ]


def test_each_has_its_part() -> None:
    """Ten replicas: none more than twice, none less than half of its tenth."""
    ring = Ring([f"replica-{at}" for at in range(10)])
    parts = Counter(ring.near(prefix) for prefix in PREFIXES)
    assert min(parts.values()) >= 200
    assert max(parts.values()) <= 800


@given(NAMES)
def test_only_what_a_lost_replica_had_moves(replicas: set[str]) -> None:
    """The rest stays where its cache is."""
    gone = min(replicas)
    if len(replicas) < 3:
        return
    before, after = Ring(replicas), Ring(replicas - {gone})
    for prefix in PREFIXES[:200]:
        assert before.near(prefix) in (gone, after.near(prefix))


def test_nobody_prefers_nothing() -> None:
    """There is no choice, or no prefix."""
    assert Ring().near("a") == Ring(["one"]).near("a") == Ring(["one", "two"]).near("") == ""


NOW_US = 10**15


def house(replicas: int, seats: int) -> LineState:
    state = LineState([Rule()])
    order.tend(state, "g", now_us=NOW_US)
    for at in range(replicas):
        order.beat(state, f"r{at}", seats, now_us=NOW_US)
    return state


def seated(state: LineState, prefer: str, *, avoid: str = "", count: int = 1) -> str:
    """Where the last of ``count`` more requests sits; empty if it waits."""
    for _ in range(count):
        name, end_us = f"g/{len(state.tickets)}", NOW_US + 60_000_000
        ticket = Ticket(0, "t", "k", 10, 0, NOW_US, end_us, end_us, avoid=avoid, prefer=prefer)
        order.enter(state, name, ticket, now_us=NOW_US)
    return state.tickets[name].replica


@pytest.mark.parametrize("replicas", [2, 3, 5])
@given(prefers=st.lists(st.integers(-1, 4), max_size=60))
def test_nobody_makes_a_replica_much_fuller_than_the_mean(
    replicas: int, prefers: list[int]
) -> None:
    """Whatever is preferred: a quarter more than the mean with it, or where there is most room."""
    state = house(replicas, 8)
    for prefer in prefers:
        before = {name: one.lent for name, one in state.replicas.items()}
        at = seated(state, f"r{prefer}" if prefer >= 0 else "")
        if not at:
            assert set(before.values()) == {8}  # it waits only if the house is full
        elif at == f"r{prefer}":
            assert before[at] < 1.25 * (sum(before.values()) + 1) / replicas
        else:
            assert before[at] == min(before.values())


def test_a_conversation_finds_its_replica() -> None:
    """With room, also when another has more; not the one that failed it; of a full one, another."""
    state = house(2, 8)
    assert seated(state, "", count=8) in ("r0", "r1")
    assert {one.lent for one in state.replicas.values()} == {4}
    assert seated(state, "r1") == seated(state, "r1") == "r1"
    assert seated(state, "r1", avoid="r1") == "r0"
    assert seated(state, "gone") == "r0"
    assert seated(state, "r1", count=5) == ""


def test_who_waited_comes_back_to_its_replica_too() -> None:
    """When a seat comes free there is room at one place only; with more, it may choose."""
    state = house(2, 1)
    seated(state, "", count=4)
    names = [*state.tickets]
    for name in names[2:]:
        state.tickets[name].prefer = "r1"
    order.set_mode(state, "paused", now_us=NOW_US)
    for name in names[:2]:
        order.leave(state, name, 10, now_us=NOW_US)
    order.set_mode(state, "open", now_us=NOW_US)
    assert [state.tickets[name].replica for name in names[2:]] == ["r1", "r0"]
