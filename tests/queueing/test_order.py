"""The laws of who goes next, on the pure core (DESIGN §4)."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from serve_app.engine.replica import BEAT_HEALTH_S, BEAT_S
from serve_app.queueing import order
from serve_app.queueing.order import drain, steps
from serve_app.queueing.order.flows import Flow, units
from serve_app.queueing.order.state import LineState, Rule, Ticket

RULES = [
    Rule(1_250_000, 2_000_000, 50, 10**9),
    Rule(1_000_000, 3_000_000, 50, 10**9),
    Rule(500_000, 5_000_000, 50, 10**9),
]
START_US = 10**15
TENANTS, CALLERS = ["acme", "zeta"], ["k1", "k2"]
WEIGHTS = {"acme": 3.0, "zeta": 1.0}
COSTS = st.integers(0, 500)


class Laws(RuleBasedStateMachine):
    """Anything may happen in any order; the laws hold after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.state, self.now_us = LineState(list(RULES)), START_US
        self.names: list[str] = []
        self.seats_lent: dict[str, int] = {}
        self.charged: dict[str, int] = {}
        order.beat(self.state, "r0", 4, now_us=self.now_us)
        for gateway in "gh":
            order.tend(self.state, gateway, now_us=self.now_us)

    def seen(self) -> None:
        """Look at who was seated by the last step: nobody overtook inside a caller's line."""
        for name, one in self.state.tickets.items():
            if one.replica and one.seated_us == self.now_us:
                ahead = [
                    other
                    for other in self.state.tickets.values()
                    if not other.replica
                    and other.caller_flow == one.caller_flow
                    and (other.due_us, other.arrived_us) < (one.due_us, one.arrived_us)
                ]
                assert not ahead, f"{name} overtook"
                replica = self.state.replicas[one.replica]
                assert replica.lent <= -(-replica.seats * RULES[one.rank].ceiling // 1_000_000)

    @rule(
        gateway=st.sampled_from(["g/", "h/"]),
        class_=st.integers(0, 2),
        tenant=st.sampled_from(TENANTS),
        caller=st.sampled_from(CALLERS),
        cost=COSTS,
        patience_us=st.sampled_from([1_000_000, 60_000_000]),
    )
    def enter(
        self, gateway: str, class_: int, tenant: str, caller: str, cost: int, patience_us: int
    ) -> None:
        self.now_us += 1_000
        name, ends_us = f"{gateway}{len(self.names)}", self.now_us + patience_us
        weights = WEIGHTS[tenant], 1.0
        ticket = Ticket(class_, tenant, caller, cost, 10, self.now_us, ends_us, ends_us, weights)
        waited = {one for one, other in self.state.tickets.items() if not other.replica}
        told = order.enter(self.state, name, ticket, now_us=self.now_us)
        self.names.append(name)
        if told.said in ("full", "late", "draining"):
            assert name not in self.state.tickets
            assert {one for one, t in self.state.tickets.items() if not t.replica} <= waited
        self.seen()

    @rule(pick=st.integers(0, 99), cost=COSTS)
    def leave(self, pick: int, cost: int) -> None:
        if self.names:
            self.now_us += 1_000
            name = self.names[-1 - pick % len(self.names)]
            seated = {one: t.replica for one, t in self.state.tickets.items() if t.replica}
            order.leave(self.state, name, cost, now_us=self.now_us)
            still = {one: t.replica for one, t in self.state.tickets.items() if one in seated}
            assert {one: at for one, at in seated.items() if one != name} == still
            self.seen()
            assert order.leave(self.state, name, cost, now_us=self.now_us) == "gone"

    @rule(replica=st.sampled_from(["r0", "r1"]), seats=st.integers(0, 5))
    def beat(self, replica: str, seats: int) -> None:
        self.now_us += 1_000
        order.beat(self.state, replica, seats, now_us=self.now_us)

    @rule(replica=st.sampled_from(["r0", "r1"]))
    def withdraw(self, replica: str) -> None:
        order.withdraw(self.state, replica, now_us=self.now_us)
        assert not any(one.replica == replica for one in self.state.tickets.values())

    @rule(ms=st.sampled_from([10, 800, 2_500]))
    def wait(self, ms: int) -> None:
        """Time passes, and everybody who lives is heard."""
        self.now_us += ms * 1_000
        for who in list(self.state.beats):
            self.state.beats.put(who, self.now_us // 1_000)
        order.tend(self.state, "g", now_us=self.now_us)
        self.seen()

    @rule(gateway=st.sampled_from(["g", "h"]))
    def die(self, gateway: str) -> None:
        """A gateway is silent too long: what it held is gone, the others keep their places."""
        others = {one for one in self.state.tickets if order.channel_of(one) != gateway}
        turns = [*self.state.turns]
        for mark in ("g:", "e:"):
            if mark + gateway in self.state.beats:
                self.state.beats.put(mark + gateway, self.now_us // 1_000 - 6_000)
        steps.tidy(self.state, self.now_us)
        assert set(self.state.tickets) == others
        assert [one for one in turns if one in self.state.turns] == [*self.state.turns]
        steps.seat_next(self.state, self.now_us)

    @invariant()
    def nobody_waits_that_could_sit(self) -> None:
        first = self.state.turns.first()
        if first is not None:
            assert order.roomiest(self.state, first[0][0]) is None

    @invariant()
    def the_counts_are_true(self) -> None:
        state = self.state
        seated = [one for one in state.tickets.values() if one.replica]
        assert state.lent == len(seated)
        for name, replica in state.replicas.items():
            assert replica.lent == sum(one.replica == name for one in seated)
        for class_, tally in enumerate(state.tallies):
            waiting = [
                one for one in state.tickets.values() if not one.replica and one.class_ == class_
            ]
            assert (tally.waiting, tally.flows) == (len(waiting), len({t.flow for t in waiting}))
            assert tally.body_bytes == sum(one.body_bytes for one in waiting)
            assert tally.running == sum(one.class_ == class_ for one in seated)


def test_the_laws_hold_whatever_happens() -> None:
    """Enter, leave, correct, expire, cancel, replicas up and down, gateways dead: the laws hold."""
    run_state_machine_as_test(
        Laws,
        settings=settings(
            max_examples=300,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


class House:
    """One class, seats that are given back in turn, and tenants that always wait."""

    def __init__(self, seats: int, *rules: Rule) -> None:
        self.state = LineState(list(rules or RULES))
        self.now_us, self.count = START_US, 0
        self.served: dict[str, int] = {}
        order.beat(self.state, "r", seats, now_us=self.now_us)

    def ask(self, tenant: str, cost: int, class_: int = 1, weight: float = 1.0, **more: str) -> str:
        name, self.count = f"g/{self.count:06d}", self.count + 1
        ends_us = self.now_us + 3_600_000_000
        caller = more.get("caller", "k")
        ticket = Ticket(
            class_, tenant, caller, cost, 0, self.now_us, ends_us, ends_us, (weight, 1.0)
        )
        order.enter(self.state, name, ticket, now_us=self.now_us, again=True)
        return name

    def give_back(self, cost: int | None = None) -> Ticket:
        """The one that sits longest leaves; return it."""
        self.now_us += 1_000
        self.state.beats.put("r:r", self.now_us // 1_000)
        self.state.beats.put("g:g", self.now_us // 1_000)
        seated = [(t.seated_us, name) for name, t in self.state.tickets.items() if t.replica]
        _, name = min(seated)
        ticket = self.state.tickets[name]
        real = ticket.cost if cost is None else cost
        self.served[ticket.tenant] = self.served.get(ticket.tenant, 0) + real
        order.leave(self.state, name, real, now_us=self.now_us)
        return ticket


@pytest.mark.parametrize(("weights", "costs"), [((3, 1), (50, 50)), ((1, 1), (10, 2_000))])
def test_service_per_weight_stays_within_the_dearest_tickets(
    weights: tuple[float, float], costs: tuple[int, int]
) -> None:
    """Two flows that both wait: their service per weight differs by one ticket of each at most."""
    house = House(1)
    for _ in range(4_000):
        for tenant, weight, cost in zip("ab", weights, costs, strict=True):
            if house.state.flows.get(f"01|{tenant}", Flow()).waiting < 3:
                house.ask(tenant, cost, weight=weight)
        house.give_back()
        counters = [house.state.flows[f"01|{tenant}"].counter for tenant in "ab"]
        bound = sum(units(cost, weight) for cost, weight in zip(costs, weights, strict=True))
        assert abs(counters[0] - counters[1]) <= bound
    per_weight = [house.served[t] / w for t, w in zip("ab", weights, strict=True)]
    assert per_weight[0] == pytest.approx(per_weight[1], rel=0.02)


def test_a_weight_counts_at_once() -> None:
    """From the next ticket on, also for those that wait already."""
    house = House(1)
    for weight in (1.0, 3.0):
        house.served = {}
        for _ in range(400):
            for tenant in "ab":
                house.ask(tenant, 10, weight=weight if tenant == "a" else 1.0)
            house.give_back()
        assert house.served["a"] / house.served["b"] == pytest.approx(weight, rel=0.03)


def test_idle_time_banks_nothing() -> None:
    """Who comes after a long idle time shares from then on, and is owed nothing."""
    house = House(1)
    house.ask("late", 10)
    for _ in range(500):
        house.ask("busy", 10)
        house.give_back()
    house.served = {}
    for _ in range(100):
        house.ask("busy", 10)
        house.ask("late", 10)
        house.give_back()
    assert abs(house.served["late"] - house.served["busy"]) <= 20


def test_what_nobody_else_wanted_is_not_held_against_its_user() -> None:
    """A tenant alone for an hour, then another: they share; the first is not shut out."""
    house = House(1)
    for _ in range(500):
        house.ask("busy", 1_000)
        house.give_back()
    house.served = {}
    for _ in range(100):
        house.ask("busy", 10)
        house.ask("new", 10)
        house.give_back()
    assert house.served["busy"] >= 400


def test_a_wrong_estimate_costs_for_a_moment() -> None:
    """One tenant's requests are thought to cost 500 and cost 10: in the end it has its share."""
    house = House(4)
    for _ in range(2_000):
        house.ask("wrong", 500)
        house.ask("right", 10)
        house.give_back(cost=10)
    assert house.served["wrong"] / house.served["right"] == pytest.approx(1, rel=0.05)


def test_callers_share_inside_their_tenant() -> None:
    """A tenant with one busy key and one quiet one: the quiet one does not stand behind it."""
    house = House(1)
    house.ask("a", 10, caller="busy")
    for _ in range(50):
        house.ask("a", 10, caller="busy")
    house.ask("a", 10, caller="quiet")
    callers = [house.give_back().caller for _ in range(4)]
    assert callers.index("quiet") <= 2


def test_a_class_goes_before_the_next() -> None:
    """Interactive work is seated before all batch work, also above the nominal seats."""
    house = House(4)
    for _ in range(20):
        house.ask("b", 10, class_=2)
    assert house.state.lent == 2  # half of the seats
    for _ in range(9):
        house.ask("a", 10, class_=0)
    assert house.state.lent == 5
    assert [house.give_back().class_ for _ in range(6)][2:] == [0, 0, 0, 0]


def test_who_is_not_served_is_lifted() -> None:
    """However busy the class above is: served after ``promote_us`` for each class above it."""
    house = House(2, *[Rule(1_000_000, 2_000_000, 10**6, 10**9)] * 3)
    house.ask("low", 10, class_=2)
    house.ask("a", 10, class_=0)
    house.ask("a", 10, class_=0)
    first = house.ask("low", 10, class_=2)
    waited_ms = 0
    while not house.state.tickets[first].replica:
        for _ in range(3):
            house.ask("a", 10, class_=0)
        house.now_us += 99_000
        order.tend(house.state, "g", now_us=house.now_us)
        house.give_back()
        waited_ms += 100
        assert waited_ms <= 4_300
    assert waited_ms >= 3_900
    assert house.state.tickets[first].rank == 0


def test_a_backlog_alone_lifts_nobody() -> None:
    """Batch work that is served keeps its class, however long its line: interactive goes first."""
    house = House(2)
    for _ in range(2_000):
        house.ask("b", 10, class_=1)
    for turn in range(1_000):
        house.now_us += 20_000
        house.give_back()
        if turn % 10 == 0:
            asked = house.ask("i", 10, class_=0)
            assert house.state.tickets[asked].replica


def test_the_silent_are_forgotten_and_nobody_else() -> None:
    """A dead gateway's tickets and seats go; the order of the others stays."""
    state = LineState(list(RULES))
    order.beat(state, "r", 2, now_us=0)
    for gateway in ("dead", "alive"):
        order.tend(state, gateway, now_us=0)
    for number, gateway in enumerate(["dead", "alive", "dead", "alive", "alive"]):
        ticket = Ticket(1, "t", "k", 1, 0, number, 10**9, 10**9)
        order.enter(state, f"{gateway}/{number}", ticket, now_us=number)
    order.beat(state, "r", 2, now_us=4_900_000)
    state.beats.put("g:alive", 4_900)
    order.beat(state, "r", 2, now_us=5_000_000)
    assert {name for name, one in state.tickets.items() if one.replica} == {"alive/1", "alive/3"}
    assert [name for name, one in state.tickets.items() if not one.replica] == ["alive/4"]


def test_a_slow_engine_is_not_taken_for_dead() -> None:
    """A replica asks its engine before each beat, for as long as it may: silence is longer."""
    assert (BEAT_S + BEAT_HEALTH_S) * 1_000 + 400 < order.REPLICA_SILENT_MS


def test_places_that_nobody_came_for_turn_nobody_away() -> None:
    """A burst was refused and never came again: an hour later the line is as good as new."""
    house = House(1, *[Rule(1_000_000, 10**9, 5, 10**9)] * 2)
    house.ask("a", 10)
    house.give_back()
    house.ask("a", 10)
    for number in range(400):
        ends_us = house.now_us + 60_000_000
        ticket = Ticket(1, f"t{number}", "k", 10, 0, house.now_us, ends_us, ends_us)
        order.enter(house.state, f"g/x{number}", ticket, now_us=house.now_us)
    assert len(house.state.tallies[1].promised) > 300
    house.now_us += 120_000_000
    for name in [name for name, one in house.state.tickets.items() if not one.replica]:
        order.leave(house.state, name, 0, now_us=house.now_us)
    ends_us = house.now_us + 60_000_000
    ticket = Ticket(1, "new", "k", 10, 0, house.now_us, ends_us, ends_us)
    assert order.enter(house.state, "g/new", ticket, now_us=house.now_us).said == "waiting"


@pytest.mark.parametrize(
    ("wait_s", "jitter", "told"),
    [(0.2, 0, 1), (9.9, 0, 9.9), (9.9, 1, 10.395), (0, 0, 60), (10**6, 1, 62)],
)
def test_when_to_come_again(wait_s: float, jitter: float, told: float) -> None:
    """What was measured, within bounds, spread upwards; a minute if nobody can tell."""
    assert drain.retry_after_s(wait_s, jitter) == pytest.approx(told)


def test_the_drain_rate_is_that_of_a_full_house() -> None:
    """Four seats, lent for two seconds each: two come free a second, from the first one on."""
    assert drain.freed_per_ms(4, 1, 2_000) == pytest.approx(0.002)
    assert drain.freed_per_ms(4, 0, 0) == 0


@pytest.mark.parametrize(("cost", "most_per_s"), [(0, 0.0), (10, 8 * 40 / 80)])
def test_short_requests_do_not_promise_the_end_of_long_ones(cost: int, most_per_s: float) -> None:
    """Forty refused, or served at once, then a full house for ten seconds: no word of hundreds."""
    house = House(8)
    for _ in range(40):
        name = house.ask("short", 10)
        house.now_us += 2_000
        order.leave(house.state, name, cost, now_us=house.now_us)
    for _ in range(12):
        house.ask("long", 1_000)
    for _ in range(10):
        house.now_us += 1_000_000
        order.beat(house.state, "r", 8, now_us=house.now_us)
    state = house.state
    freed = drain.freed_per_ms(state.lent, state.ended.total, state.lent_ms.total)
    assert 0 <= freed * 1_000 <= most_per_s


def obeyed(seats: int, clients: int, max_tickets: int, *, rounds: int) -> tuple[int, int]:
    """Return how many that came again as told got in, of how many, in a house twice too small."""
    house = House(seats, *[Rule(1_000_000, 10**9, max_tickets, 10**9)] * 2)
    state, arrivals, told = house.state, [(START_US, n, False) for n in range(clients)], [0, 0]
    ends: list[tuple[int, str, int]] = []
    for _ in range(rounds):
        ends = sorted(
            (one.seated_us + 500_000, name, int(name.split("-")[1]))
            for name, one in state.tickets.items()
            if one.replica
        )
        now_us, who, is_again = min(arrivals, default=(2**62, 0, False))
        if ends and ends[0][0] <= now_us:
            house.now_us = ends[0][0]
            order.leave(state, ends[0][1], 10, now_us=house.now_us)
            arrivals.append((house.now_us, ends[0][2], False))
            continue
        arrivals.remove((now_us, who, is_again))
        house.now_us = now_us
        state.beats.put("r:r", now_us // 1_000)
        house.count += 1
        ends_us = now_us + 3_600_000_000
        ticket = Ticket(1, f"t{who % 5}", f"k{who}", 10, 0, now_us, ends_us, ends_us)
        said = order.enter(state, f"g/{house.count:06d}-{who}", ticket, now_us=now_us)
        told[0] += is_again and said.said in ("seated", "waiting")
        told[1] += is_again
        if said.said in ("full", "late"):
            after_us = int(drain.retry_after_s(said.after_ms / 1_000, (who % 10) / 10) * 1e6)
            arrivals.append((now_us + after_us, who, True))
    return told[0], told[1]


def test_whoever_obeys_gets_in() -> None:
    """Twice as many clients as there are places, all obedient: nine of ten get in when told."""
    got_in, came_again = obeyed(4, 48, 20, rounds=6_000)
    print(f"{got_in} of {came_again} got in when they came as they were told")
    assert came_again > 300
    assert got_in / came_again >= 0.9
