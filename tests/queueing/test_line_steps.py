"""The steps in the store and their pure twin stay equal, whatever happens in whatever order."""

from collections import Counter
from random import Random
from typing import Any

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from serve_app.queueing.order.state import Rule
from tests.queueing.both import RULES, Both

GATEWAYS = ["sg:wake:g1", "sg:wake:g2"]
REPLICAS = ["r1", "r2", "r3"]
TENANTS, CALLERS = ["acme", "acme-b", "zeta"], ["k1", "k2"]
WEIGHTS = st.sampled_from([1.0, 1.0, 3.0, 0.5, 0.001])
COSTS = st.sampled_from([0, 1, 10, 333, 5_000])
WAITS_US = [1, 999, 40_000, 400_000, 2_000_000, 3_000_000, 21_000_000, 45_000_000, 700_000_000]
WHOSE = st.tuples(st.sampled_from(TENANTS), st.sampled_from(CALLERS))
PATIENCE_US = st.sampled_from([0, 300_000, 60_000_000, 60_000_000])
TIGHTER = [Rule(1_000_000, 1_000_000, 2, 400), Rule(1_000_000, 9_000_000, 3, 500), RULES[2]]


class LineMachine(RuleBasedStateMachine):
    """Does every step in both places and compares the whole state after each."""

    client: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.both = Both(self.client)
        self.tickets: list[str] = []
        self.both.tend(GATEWAYS[0])
        for replica in REPLICAS[:2]:
            self.both.beat(replica, 2)

    @rule(
        gateway=st.sampled_from(GATEWAYS),
        class_=st.integers(0, 2),
        whose=WHOSE,
        weights=st.tuples(WEIGHTS, WEIGHTS),
        cost=COSTS,
        body_bytes=st.sampled_from([0, 100, 4_500]),
        patience_us=PATIENCE_US,
        left_us=PATIENCE_US | st.none(),
        first_try=st.booleans(),
        avoid=st.sampled_from(["", *REPLICAS]),
        prefer=st.sampled_from(["", *REPLICAS]),
        again=st.sampled_from([0, 0, 0, 5_000_000]),
    )
    def enter(self, gateway: str, class_: int, whose: tuple[str, str], **more: Any) -> None:
        ticket, again = f"{gateway}/{len(self.tickets)}", more.pop("again")
        self.tickets.append(ticket)
        arrived_us = self.both.now_us - again if again else 0
        self.both.enter(ticket, class_, whose, arrived_us=arrived_us, **more)

    @rule(pick=st.integers(0, 99))
    def enter_again(self, pick: int) -> None:
        """A ticket that is sent twice enters once."""
        if self.tickets:
            name = self.tickets[pick % len(self.tickets)]
            if name in self.both.twin.tickets:
                one = self.both.twin.tickets[name]
                self.both.enter(name, one.class_, (one.tenant, one.caller))

    @rule(pick=st.integers(0, 99), cost=COSTS | st.just(-1))
    def leave(self, pick: int, cost: int) -> None:
        if self.tickets:
            self.both.leave(self.tickets[-1 - pick % len(self.tickets)], cost)

    @rule(pick=st.integers(0, 99))
    def cancel(self, pick: int) -> None:
        if self.tickets:
            self.both.cancel(self.tickets[-1 - pick % len(self.tickets)])

    @rule(replica=st.sampled_from(REPLICAS), seats=st.integers(0, 4))
    def beat(self, replica: str, seats: int) -> None:
        self.both.beat(replica, seats)

    @rule(replica=st.sampled_from(REPLICAS))
    def withdraw(self, replica: str) -> None:
        self.both.withdraw(replica)

    @rule(gateway=st.sampled_from(GATEWAYS))
    def tend(self, gateway: str) -> None:
        self.both.tend(gateway)

    @rule(gateway=st.sampled_from(GATEWAYS))
    def retire(self, gateway: str) -> None:
        self.both.retire(gateway)

    @rule(mode=st.sampled_from(["open", "open", "paused", "draining"]))
    def mode(self, mode: str) -> None:
        self.both.mode(mode)

    @rule(rules=st.sampled_from([RULES, TIGHTER]))
    def change_rules(self, rules: list[Rule]) -> None:
        self.both.rules = self.both.twin.rules = list(rules)
        self.both.tend(GATEWAYS[0])

    @rule(us=st.sampled_from(WAITS_US))
    def wait(self, us: int) -> None:
        """Time passes; those who live say so."""
        self.both.now_us += us
        for replica, one in [*self.both.twin.replicas.items()]:
            if us < 3_000_000:
                self.both.beat(replica, one.seats)

    @invariant()
    def the_two_are_equal(self) -> None:
        self.both.compare()


class Crowd:
    """A line that is nearly always full, and clients that come again when they were told."""

    def __init__(self, client: Any, seed: int) -> None:
        rules = [Rule(1_250_000, 500_000, 8, 10**6), Rule(1_000_000, 300_000, 9, 10**6)]
        self.both, self.dice = (
            Both(client, [*rules, Rule(700_000, 900_000, 9, 10**6)]),
            Random(seed),
        )
        self.told: list[tuple[int, int, tuple[str, str]]] = []
        self.said: Counter[str] = Counter()
        self.count = 0

    def ask(self, class_: int, whose: tuple[str, str], *, first_try: bool) -> None:
        """Enter once, and note when to come again."""
        self.count += 1
        weights = self.dice.choice([1.0, 3.0]), 1.0
        name, cost = f"{GATEWAYS[self.count % 2]}/{self.count}", self.dice.randrange(400)
        patience_us = self.dice.choice([900_000, 60_000_000])
        told = self.both.enter(
            name, class_, whose, weights, cost, 50, patience_us, first_try=first_try
        )
        self.said[told.said] += 1
        if told.after_ms:
            due_us = self.both.now_us + int(told.after_ms * 1_000) + self.dice.randrange(900_000)
            self.told.append((due_us, class_, whose))

    def pass_time(self) -> None:
        """Let a moment pass; replicas beat and gateways tend now and then; seats are given back."""
        both = self.both
        both.now_us += self.dice.randrange(60_000)
        if self.count % 4 == 0:
            for number in range(3):
                both.beat(f"r{number}", 2)
            both.tend(GATEWAYS[0])
            both.tend(GATEWAYS[1])
        seated = sorted(name for name, one in both.twin.tickets.items() if one.replica)
        if seated and self.dice.random() < 0.7:
            both.leave(self.dice.choice(seated), self.dice.randrange(-1, 500))

    def live(self, steps: int) -> None:
        """Come, leave and come again."""
        for _ in range(steps):
            self.pass_time()
            due = [one for one in self.told if one[0] <= self.both.now_us]
            for one in due:
                self.told.remove(one)
                self.ask(*one[1:], first_try=False)
            whose = self.dice.choice(TENANTS), self.dice.choice([*CALLERS, *"abcdef"])
            self.ask(
                self.dice.choice([0, 0, 0, 1, 1, 2]), whose, first_try=self.dice.random() < 0.3
            )
            self.said["lifted"] += any(one.lifted for one in self.both.twin.flows.values())
            self.both.compare()


@pytest.mark.parametrize("seed", range(4))
def test_a_crowd_is_served_alike_by_both(client: Any, seed: int) -> None:
    """A busy line, full, lifted and promised: every answer and the whole state stay equal."""
    crowd = Crowd(client, seed)
    crowd.both.tend(GATEWAYS[0])
    crowd.live(700)
    assert min(crowd.said[one] for one in ("seated", "waiting", "full", "late", "lifted")) > 20


@pytest.fixture(scope="module")
def client(store_url: str) -> Any:
    with redis.Redis.from_url(store_url, decode_responses=True) as opened:
        yield opened


def test_every_step_does_what_its_twin_does(client: Any) -> None:
    """Any steps, in any order, at any times, end in equal states and equal answers."""
    run_state_machine_as_test(
        type("Machine", (LineMachine,), {"client": client}),
        settings=settings(
            max_examples=300,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_gateway_that_holds_more_than_one_step_takes_away(client: Any) -> None:
    """It goes in parts, however many its tickets are; nobody else is touched."""
    both = Both(client, [Rule(10**6, 10**6, 10**6, 10**9)])
    both.tend(GATEWAYS[1])
    both.beat("r1", 2)
    for number in range(300):
        both.enter(f"{GATEWAYS[0]}/{number}", 0, (TENANTS[number % 3], "k1"))
    both.enter(f"{GATEWAYS[1]}/1", 0, ("zeta", "k1"))
    for left in (45, 1):
        both.retire(GATEWAYS[0]) if left > 1 else both.tend(GATEWAYS[1])
        both.compare()
        assert len(both.twin.tickets) == left


def test_a_class_is_told_a_time_though_those_above_take_every_seat(client: Any) -> None:
    """What the classes above leave over is taken for a twentieth of the seats at least."""
    both = Both(client, [Rule(10**6, 10**8, 9, 10**9), Rule(10**6, 10**8, 1, 10**9)])
    both.tend(GATEWAYS[0])
    both.beat("r1", 1)
    for number in range(60):
        both.enter(f"{GATEWAYS[0]}/{number}", 0, ("acme", "k1"))
        if number:
            both.now_us += 1_000_000
            both.beat("r1", 1)
            both.leave(f"{GATEWAYS[0]}/{number - 1}", 10)
    both.enter(f"{GATEWAYS[0]}/100", 1, ("zeta", "k1"))
    told = both.enter(f"{GATEWAYS[0]}/101", 1, ("zeta", "k1"))
    both.compare()
    assert told.said == "full"
    assert told.after_ms == pytest.approx(20_000, rel=0.5)


def test_a_ticket_of_an_older_gateway_is_seated(client: Any) -> None:
    """While gateways are replaced, their tickets lack the values that were added last."""
    both = Both(client)
    both.tend(GATEWAYS[0])
    both.beat("r0", 1)
    for name in ("a", "b"):
        both.enter(f"{GATEWAYS[0]}/{name}", 1, ("acme", "k1"))
    waiting = f"{GATEWAYS[0]}/b"
    text = client.execute_command("HGET", both.names["tickets"], waiting, NEVER_DECODE=True)
    older = msgspec.msgpack.decode(text)[:-1]
    client.hset(both.names["tickets"], waiting, msgspec.msgpack.encode(older))
    both.leave(f"{GATEWAYS[0]}/a")
    both.compare()
    assert both.twin.tickets[waiting].replica == "r0"
