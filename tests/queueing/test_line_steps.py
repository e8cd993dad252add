"""The steps in the store and their pure twin stay equal, whatever happens in whatever order."""

import asyncio

import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from serve_app.queueing import order
from serve_app.store import Address, Store, keys, registry

MODEL = "m"
GATEWAYS = [keys.wake_channel("g1"), keys.wake_channel("g2")]
REPLICAS = ["r1", "r2", "r3"]
AT = Address("127.0.0.1", 1, "k")


class LineMachine(RuleBasedStateMachine):
    """Does every step in both places and compares the whole state after each."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.client = redis.Redis.from_url(self.url, decode_responses=True)
        self.client.flushall()
        self.runner = asyncio.Runner()
        self.store = Store(self.url, timeout_ms=10_000)
        self.names = keys.line(MODEL)
        self.twin = order.LineState()
        self.tickets: list[str] = []

    def now_us(self) -> int:
        seconds, us = self.client.time()
        return seconds * 1_000_000 + us

    def run(self, step: str, *args: str | int) -> object:
        return self.runner.run(self.store.run(step, self.names, list(args)))

    def keep_alive(self) -> int:
        """Everybody who lives was just heard, so that only :meth:`silence` makes a difference."""
        now_ms = self.now_us() // 1_000
        for table, kind in (
            (self.twin.replica_beats_ms, "r:"),
            (self.twin.gateway_beats_ms, "g:"),
        ):
            for name, beat_ms in table.items():
                if beat_ms > now_ms - 60_000:
                    table[name] = now_ms
                    self.client.zadd(self.names[3], {kind + name: now_ms})
        return now_ms

    @rule(
        gateway=st.sampled_from(GATEWAYS),
        max_tickets=st.integers(0, 6),
        avoid=st.sampled_from(["", *REPLICAS]),
    )
    def enter(self, gateway: str, max_tickets: int, avoid: str) -> None:
        self.keep_alive()
        ticket = f"{gateway}/{len(self.tickets)}"
        said = self.run("line_enter", ticket, max_tickets, 0, avoid)
        assert isinstance(said, list)
        twin = order.enter(
            self.twin, ticket, now_us=self.now_us(), max_tickets=max_tickets, avoid=avoid
        )
        assert said[0] == twin
        if twin == "seated":
            assert said[1] == self.twin.seats[ticket]
        self.tickets.append(ticket)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def enter_again(self, data: st.DataObject) -> None:
        """A ticket that is sent twice enters once."""
        self.keep_alive()
        ticket = data.draw(st.sampled_from(self.tickets))
        known = ticket in self.twin.seats or ticket in self.twin.line
        if known:
            said = self.run("line_enter", ticket, 0, 0, "")
            assert isinstance(said, list)
            assert said[0] == order.enter(self.twin, ticket, now_us=self.now_us(), max_tickets=0)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        now_ms = self.keep_alive()
        ticket = data.draw(st.sampled_from(self.tickets))
        assert self.run("line_leave", ticket) == order.leave(self.twin, ticket, now_ms=now_ms)

    @rule(replica=st.sampled_from(REPLICAS), seats=st.integers(0, 4))
    def beat(self, replica: str, seats: int) -> None:
        now_ms = self.keep_alive()
        lent = self.runner.run(registry.beat(self.store, MODEL, replica, seats, AT))
        assert lent == order.beat(self.twin, replica, seats, now_ms=now_ms)

    @rule(replica=st.sampled_from(REPLICAS))
    def withdraw(self, replica: str) -> None:
        now_ms = self.keep_alive()
        self.runner.run(registry.withdraw(self.store, MODEL, replica))
        order.withdraw(self.twin, replica)
        order.reap(self.twin, now_ms)

    @rule(gateway=st.sampled_from(GATEWAYS))
    def tend(self, gateway: str) -> None:
        now_ms = self.keep_alive()
        said = self.run("line_tend", gateway)
        assert isinstance(said, list)
        order.tend(self.twin, gateway, now_ms=now_ms)
        assert said[:4] == [
            len(self.twin.seats),
            len(self.twin.line),
            len(self.twin.capacity),
            sum(self.twin.capacity.values()),
        ]
        assert said[6] == len(self.twin.gateway_beats_ms)

    @rule(gateway=st.sampled_from(GATEWAYS))
    def retire(self, gateway: str) -> None:
        now_ms = self.keep_alive()
        self.run("line_retire", gateway)
        order.forget_gateway(self.twin, gateway)
        order.reap(self.twin, now_ms)
        order.seat_next(self.twin)

    @rule(who=st.sampled_from([*GATEWAYS, *REPLICAS]))
    def silence(self, who: str) -> None:
        """Whoever was silent for minutes is forgotten by the next step of anybody."""
        long_ago_ms = self.now_us() // 1_000 - 120_000
        beats = self.twin.gateway_beats_ms if who in GATEWAYS else self.twin.replica_beats_ms
        if who in beats:
            beats[who] = long_ago_ms
            self.client.zadd(
                self.names[3], {f"{'g' if who in GATEWAYS else 'r'}:{who}": long_ago_ms}
            )

    @invariant()
    def the_two_are_equal(self) -> None:
        _, capacity, room, beats, line, seats, _ = self.names
        assert self.client.hgetall(seats) == self.twin.seats
        assert set(self.client.zrange(line, 0, -1)) == set(self.twin.line)
        assert {k: int(v) for k, v in self.client.hgetall(capacity).items()} == self.twin.capacity
        assert {
            k: int(v) for k, v in self.client.zrange(room, 0, -1, withscores=True)
        } == self.twin.room
        living = {f"r:{r}" for r in self.twin.replica_beats_ms} | {
            f"g:{g}" for g in self.twin.gateway_beats_ms
        }
        assert set(self.client.zrange(beats, 0, -1)) == living

    @invariant()
    def seats_add_up(self) -> None:
        """Seats free and seats lent are the seats offered, on every replica."""
        for replica, offered in self.twin.capacity.items():
            lent = sum(at == replica for at in self.twin.seats.values())
            assert self.twin.room[replica] + lent == offered

    def teardown(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()
        self.client.close()


def test_every_step_does_what_its_twin_does(store_url: str) -> None:
    """Enter, leave, beat, withdraw, tend, retire and silence, in any order, end in equal states."""
    machine = type("Machine", (LineMachine,), {"url": store_url})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
    )
