"""The atomic steps on scopes in memory: all or nothing, and every wait that is told is true."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from serve_app.allowance import KINDS
from serve_app.limits.bound import bind
from serve_app.limits.demand import Demand, Terms
from serve_app.limits.scope import RELEASED_AT_ONCE, SEAT_WAIT_US, Scope, lease_read, lease_text
from serve_app.limits.step import Asked, Judged, judge, renew, settle, tightest
from serve_app.limits.window import window_at
from tests.holding import limits

START_US = 1_709_164_000_000_000
"""A quarter of an hour before a 29th of February."""

SECOND_US, MINUTE_US = 1_000_000, 60_000_000
TTL_MS = 120_000
SMALL = Demand(fixed_tokens=10, choices=1, cap=5)
USED = {"requests": 1, "input": 10, "output": 1, "tokens": 11, "cost": 0}


@dataclass
class House:
    """One caller and its tenant, and a clock that we move."""

    own: Mapping[str, Any] = field(default_factory=dict)
    tenant: Mapping[str, Any] = field(default_factory=dict)
    terms: Terms = Terms()  # noqa: RUF009 - it is frozen
    scopes: list[Scope] = field(default_factory=lambda: [Scope() for _ in range(4)])
    now_us: int = START_US
    count: int = 0

    def ask(self, demand: Demand | None = SMALL, *, at_us: int | None = None) -> Judged:
        """Ask for a request, or only look."""
        self.count += 1
        tokens = 0 if demand is None else demand.fixed_tokens
        asked = Asked(demand, self.terms, tokens, 256, f"r{self.count}", TTL_MS)
        binds = bind(limits(**self.own), "", limits(**self.tenant), "m")
        return judge(self.scopes, binds, asked, self.now_us if at_us is None else at_us)

    def would(self, demand: Demand | None, at_us: int) -> Judged:
        """Return what it would say at another time; nothing changes."""
        kept = copy.deepcopy(self.scopes)
        told = self.ask(demand, at_us=at_us)
        self.scopes = kept
        return told

    def settle(self, held: Judged, used: Mapping[str, int] | None = None) -> None:
        settle(self.scopes, held.leases, used or {}, self.now_us)

    def left(self) -> list[tuple[str, int]]:
        """Return what is left of each limit, by its field and scope."""
        return [(f"{at} {bound.field}", said.left) for at, bound, said in self.ask(None).said]


EVERYWHERE = {"requests_per_minute": 3, "tokens_per_day": 90, "concurrency": 2}


def test_all_scopes_or_none() -> None:
    """What is let in is taken from every scope; what is refused by one, from none."""
    house = House({**EVERYWHERE, "models": {"m": EVERYWHERE}}, {**EVERYWHERE, "concurrency": 1})
    first = house.ask()
    assert first.refusing is None
    assert [bool(lease) for lease in first.leases] == [True, True, True, False]
    after = [("r", 2), ("T", 75), ("c", 1)]
    assert house.left() == [(f"{at} {name}", left - (at == 2 and name == "c"))
                            for at in range(3) for name, left in after]  # fmt: skip
    before = copy.deepcopy(house.scopes)
    second = house.ask()
    assert second.refusing is not None
    at, bound, said = second.said[second.refusing]
    assert (at, bound.field, said.wait_us) == (2, "c", SEAT_WAIT_US)
    assert (second.leases, house.scopes) == (("", "", "", ""), before)


@pytest.mark.parametrize("demand", [SMALL, Demand(fixed_tokens=200, choices=1), None])
def test_a_refusal_or_a_look_says_what_is_there(demand: Demand | None) -> None:
    """Where others refuse, a limit that would not tells all that is left of it."""
    house = House({"requests_per_minute": 3, "tokens_per_day": 90, "requests_per_day": 0})
    told = {bound.field: said for _, bound, said in house.ask(demand).said}
    assert (told["r"].left, told["T"].left, told["R"].left) == (3, 90, 0)
    assert (told["R"].wait_us == -1) == (demand is not None)


def test_the_one_that_refuses_longest_is_named() -> None:
    """Never before long, long before short; of two alike the first; a shadow never."""
    house = House(
        {
            "requests_per_minute": {"limit": 1, "burst": 1},
            "requests_per_day": 1,
            "tokens_per_month": 15,
            "shadow": {"tokens_per_month": 0},
            "models": {"m": {"tokens_per_month": 15}},
        }
    )
    assert house.ask().refusing is None
    second = house.ask()
    waits = [(at, bound.field, said.wait_us) for at, bound, said in second.said]
    assert second.refusing == [name for _, name, _ in waits].index("M")
    assert waits[second.refusing][0] == 0
    assert max(wait for _, _, wait in waits) == waits[second.refusing][2]
    never = house.ask(Demand(fixed_tokens=16, choices=1))
    assert never.refusing is not None
    assert never.said[never.refusing][2].wait_us == -1
    assert tightest([]) is None


def test_shadow_limits_refuse_nobody_and_are_counted() -> None:
    """They say what they would have done, and count what they would have let in."""
    house = House({"shadow": {"requests_per_day": 2, "concurrency": 1, "tokens_per_day": 0}})
    said = [house.ask() for _ in range(4)]
    assert [one.refusing for one in said] == [None] * 4
    told = [[each.allowed for _, _, each in one.said] for one in said]
    both, one, none = [True, False, True], [True, False, False], [False, False, False]
    assert told == [both, one, none, none]
    assert dict(house.left())["0 sR"] == 0
    house.settle(said[3])
    assert dict(house.left())["0 sR"] == 0, "what it did not take it is not given back"
    house.settle(said[0])
    assert dict(house.left())["0 sR"] == 1


def test_a_hold_that_nobody_renews_is_given_back_and_never_charged() -> None:
    """As soon as somebody asks; what was used is there again as if nothing had been held."""
    house = House({"tokens_per_minute": {"limit": 1, "burst": 40}, "tokens_per_day": 40})
    house.ask()
    house.ask()
    assert dict(house.left()) == {"0 t": 10, "0 T": 10}
    house.now_us += TTL_MS * 1_000 - 1_000
    assert dict(house.left()) == {"0 t": 11, "0 T": 10}
    house.now_us += 1_000
    assert dict(house.left()) == {"0 t": 40, "0 T": 40}
    assert house.scopes[0].leases == {}


def test_many_dead_holds_are_given_back_some_at_a_time() -> None:
    """No step takes long because a gateway with many requests died; they count for no seats."""
    house = House({"requests_per_day": 100, "concurrency": 100})
    for _ in range(2 * RELEASED_AT_ONCE + 1):
        house.ask()
    house.now_us += TTL_MS * 1_000
    for left in (100 - RELEASED_AT_ONCE - 1, 99, 100, 100):
        assert house.left() == [("0 R", left), ("0 c", 100)]


@pytest.mark.parametrize("noticed", [True, False], ids=["somebody asked", "nobody asked"])
def test_settled_late_the_real_cost_is_charged_once(noticed: bool) -> None:
    """Its time was over: the hold is given back, and what was used is charged, whoever noticed."""
    house = House({"tokens_per_minute": {"limit": 1, "burst": 40}, "tokens_per_day": 40})
    held = house.ask()
    house.now_us += TTL_MS * 1_000
    if noticed:
        assert dict(house.left()) == {"0 t": 40, "0 T": 40}
    house.settle(held, USED)
    assert dict(house.left()) == {"0 t": 29, "0 T": 29}


def test_a_renewed_hold_is_kept_and_one_that_is_over_stays_over() -> None:
    """Renewed in time it lasts on; too late it is not revived, since its place may be taken."""
    house = House({"concurrency": 1, "tokens_per_day": 40}, {"tokens_per_day": 90})
    held = house.ask()
    for _ in range(3):
        house.now_us += TTL_MS * 1_000 - 1_000
        assert renew(house.scopes, held.leases, TTL_MS, house.now_us) == 2
    assert house.left() == [("0 T", 25), ("0 c", 0), ("2 T", 75)]
    house.now_us += TTL_MS * 1_000
    assert renew(house.scopes, held.leases, TTL_MS, house.now_us) == 0
    assert house.left() == [("0 T", 40), ("0 c", 1), ("2 T", 90)]


def test_concurrency_is_how_many_run() -> None:
    """A place is free when a request ends, however it does; nothing else frees one."""
    house = House({"concurrency": 2})
    held = [house.ask(), house.ask()]
    for _ in range(3):
        assert house.ask().refusing == 0
        house.now_us += SECOND_US
    house.settle(held.pop(), USED)
    held.append(house.ask())
    assert (held[-1].refusing, house.ask().refusing) == (None, 0)
    house.settle(held.pop())
    assert house.ask().refusing is None
    house.now_us += TTL_MS * 1_000
    assert house.left() == [("0 c", 2)]


def test_a_limit_that_was_raised_helps_at_once_and_tells_true() -> None:
    """Time that passes is paid at the limit as it is now, and that is the wait it tells."""
    house = House({"requests_per_minute": {"limit": 1, "burst": 1}})
    house.ask()
    house.own = {"requests_per_minute": {"limit": 60, "burst": 1}}
    told = house.ask().said[0][2]
    assert told.wait_us == SECOND_US
    assert house.would(SMALL, house.now_us + SECOND_US).refusing is None
    assert house.would(SMALL, house.now_us + SECOND_US - 1).refusing == 0


def test_what_a_request_used_beyond_its_hold_is_paid_by_waiting() -> None:
    """Debt is allowed: the next one waits for it, and one that asks for none of it does not."""
    house = House({"output_tokens_per_minute": {"limit": 60, "burst": 10}})
    house.settle(house.ask(), {**USED, "output": 30})
    told = house.ask().said[0][2]
    assert (told.left, told.wait_us, told.reset_us) == (0, 25 * SECOND_US, 30 * SECOND_US)
    assert house.ask(Demand(fixed_tokens=10)).refusing is None, "no output is asked for"


@pytest.mark.parametrize("text", ["", "x", "r", "r x", " 5", "r 5 x 1 2"])
def test_what_is_no_lease_holds_nothing(text: str) -> None:
    """And what is one holds what it says."""
    assert lease_read(text)[1] == {}
    house = House({"requests_per_minute": 3, "tokens_per_day": 90})
    at_us, taken = lease_read(house.ask().leases[0])
    assert at_us == START_US
    assert lease_text("r1", at_us, taken) == f"r1 {START_US} r 1 1 3 T 15 19781 0"


NAMED = st.tuples(
    st.sampled_from([kind.name for kind in KINDS if kind.unit != "seats"]),
    st.sampled_from([20, 45, 60, 100, 700]),
)
SOME = st.lists(NAMED, max_size=3).map(
    lambda named: {k: v / 10**8 if k.startswith("cost") else v for k, v in named}
)
BURST = st.builds(
    lambda limit, burst: {"tokens_per_minute": {"limit": limit, "burst": burst}},
    st.sampled_from([1, 7, 60, 9_973]),
    st.sampled_from([20, 45]),
)
WANTED = st.builds(
    lambda own, rate, here, shadow: {
        **own, **rate, "models": {"m": here}, "shadow": shadow},
    SOME, BURST | st.just({}), SOME, SOME,
)  # fmt: skip
ASKED = st.builds(
    Demand, st.just(0), st.integers(0, 12), st.integers(0, 2), st.none() | st.integers(0, 9)
)
WALK = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "settle", "give back", "overspend"]),
        ASKED,
        st.sampled_from([0, 1, 17, SECOND_US, 9_999_999, MINUTE_US, 900 * SECOND_US]),
    ),
    min_size=4,
    max_size=25,
)


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(own=WANTED, tenant=WANTED, walk=WALK)
def test_whoever_waits_as_told_is_let_in_and_earlier_is_not(own, tenant, walk) -> None:
    """A random walk over many limits in many scopes, rates and days and months.

    Each refusal is told how long to wait: with nothing else happening the same request is let in
    then, and a microsecond earlier it is not. When it is told that it never will be, it is not even
    when all has come back. Nobody is refused when there is nothing to wait for.
    """
    house, running = House(own, tenant, Terms(None, 1.0, 2.0)), list[Judged]()
    for move, demand, gap_us in walk:
        house.now_us += gap_us
        if move == "ask":
            told = house.ask(demand)
            running += [told] if told.refusing is None else []
            if told.refusing is not None:
                event("refused")
                check_wait(house, demand, told.said[told.refusing][2].wait_us)
        elif running:
            factor = {"settle": 1, "give back": 0, "overspend": 9}[move]
            house.settle(running.pop(0), {unit: n * factor for unit, n in USED.items()})


def check_wait(house: House, demand: Demand, wait_us: int) -> None:
    """Check that a wait that was told is true, as long as no hold ends by itself meanwhile."""
    assert wait_us != 0
    for scope in house.scopes:  # as if every request were renewed for ever
        scope.leases = dict.fromkeys(scope.leases, 10**15)
    if wait_us == -1:
        full_us = window_at("month", house.now_us).ends_us
        assert house.would(demand, full_us).refusing is not None
    else:
        assert house.would(demand, house.now_us + wait_us).refusing is None
        assert house.would(demand, house.now_us + wait_us - 1).refusing is not None
