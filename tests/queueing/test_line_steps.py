"""The steps in the store and their pure twin stay equal, whatever happens in whatever order."""

from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from serve_app.queueing.state import Rule
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
