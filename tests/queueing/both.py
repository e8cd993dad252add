"""A line in a real store and its pure twin, at a time that we move."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from serve_app.queueing import order
from serve_app.queueing.order.promises import Told
from serve_app.queueing.order.state import LineState, Rule, Ticket
from serve_app.store import keys
from serve_app.store.scripts import TEXTS

CLOCK = (Path(__file__).parents[1] / "store" / "moved_clock.lua").read_text()
STEPS = [name for name in TEXTS if name.startswith("line_")]
RULES = [
    Rule(1_250_000, 2_000_000, 4, 4_000),
    Rule(1_000_000, 3_000_000, 5, 5_000),
    Rule(500_000, 5_000_000, 6, 6_000),
]
START_US = 1_700_000_000_123_456
MODEL = "m"
Client = "redis.Redis[Any]"


def text_of(rules: list[Rule]) -> str:
    """The rules as a step takes them."""
    return json.dumps([[r.ceiling, r.promote_us, r.max_tickets, r.max_bytes] for r in rules])


@dataclass
class Both:
    """Every step in both, with the same answer; :meth:`compare` sees the whole state."""

    client: Any
    rules: list[Rule] = field(default_factory=lambda: list(RULES))
    now_us: int = START_US

    def __post_init__(self) -> None:
        self.client.flushall()
        self.steps = {name: self.client.register_script(CLOCK + TEXTS[name]) for name in STEPS}
        self.names = dict(
            zip([one.rpartition(":")[2] for one in keys.line(MODEL)], keys.line(MODEL), strict=True)
        )
        self.twin = LineState(self.rules)

    def run(self, step: str, *args: str | float) -> Any:
        return self.steps[f"line_{step}"]([*self.names.values()], [*args, self.now_us])

    def enter(  # noqa: PLR0913, PLR0917 - as the step takes them
        self,
        name: str,
        class_: int,
        whose: tuple[str, str],
        weights: tuple[float, float] = (1.0, 1.0),
        cost: int = 10,
        body_bytes: int = 100,
        patience_us: int = 60_000_000,
        *,
        left_us: int | None = None,
        first_try: bool = False,
        avoid: str = "",
        prefer: str = "",
        arrived_us: int = 0,
    ) -> Told:
        args = [name, class_, *whose, *weights, cost, body_bytes, arrived_us, patience_us]
        left_us = patience_us if left_us is None else left_us
        rest = [avoid, prefer, int(first_try), text_of(self.rules)]
        said, *rest = self.run("enter", *args, left_us, *rest)
        came_us = arrived_us or self.now_us
        ticket = Ticket(
            class_,
            *whose,
            cost,
            body_bytes,
            came_us,
            came_us + patience_us,
            self.now_us + left_us,
            weights,
            first_try,
            avoid,
            prefer,
        )
        told = order.enter(self.twin, name, ticket, now_us=self.now_us, again=arrived_us > 0)
        assert said == told.said
        if said == "seated":
            mine = self.twin.tickets[name]
            assert rest == [mine.rank, mine.replica, "info", str(mine.arrived_us)]
        if said in ("full", "late"):
            assert rest[2:4] == [f"{told.wait_ms:.3f}", f"{told.after_ms:.3f}"]
        return told

    def leave(self, name: str, cost: int = -1) -> str:
        said = order.leave(self.twin, name, cost, now_us=self.now_us)
        assert self.run("leave", name, cost) == said
        return said

    def beat(self, replica: str, seats: int) -> None:
        lent = order.beat(self.twin, replica, seats, now_us=self.now_us)
        assert self.run("beat", replica, seats, "info")[0] == lent

    def tend(self, gateway: str) -> None:
        told = self.run("tend", gateway, text_of(self.rules))
        twin = self.twin
        new = int("g:" + gateway not in twin.beats)
        order.tend(twin, gateway, now_us=self.now_us)
        assert told[:6] == [
            twin.mode,
            twin.lent,
            len([one for one in twin.replicas.values() if one.seats or not one.gone]),
            sum(one.seats for one in twin.replicas.values()),
            sum(who[0] != "r" for who in twin.beats),
            new,
        ]
        counts = [[t.waiting, t.body_bytes, t.running] for t in twin.tallies]
        assert [one[:3] for one in told[7:]] == counts

    def withdraw(self, replica: str) -> None:
        self.run("withdraw", replica)
        order.withdraw(self.twin, replica, now_us=self.now_us)

    def retire(self, gateway: str) -> None:
        self.run("retire", gateway)
        order.retire(self.twin, gateway, now_us=self.now_us)

    def cancel(self, name: str) -> None:
        waited = order.cancel(self.twin, name, now_us=self.now_us)
        assert bool(self.run("cancel", name)) == waited

    def mode(self, mode: str) -> None:
        assert self.run("mode", mode) == self.twin.mode
        order.set_mode(self.twin, mode, now_us=self.now_us)

    def compare(self) -> None:
        """The two say the same of everything."""
        real, twin = stored(self.client, self.names), of_twin(self.twin)
        assert {name: (real[name], twin[name]) for name in real if real[name] != twin[name]} == {}


def members(client: Any, name: str) -> dict[str, int]:
    return {one: int(score) for one, score in client.zrange(name, 0, -1, withscores=True)}


def unpacked(client: Any, name: str) -> dict[str, list[Any]]:
    raw = client.execute_command("HGETALL", name, NEVER_DECODE=True)
    raw = raw if isinstance(raw, dict) else dict(zip(raw[::2], raw[1::2], strict=True))
    return {key.decode(): msgspec.msgpack.decode(value) for key, value in raw.items()}


def stored(client: Any, names: dict[str, str]) -> dict[str, Any]:
    """What the store holds, in plain words."""
    raw = client.execute_command("GET", names["tally"], NEVER_DECODE=True)
    mode, lent, number, *figures = msgspec.msgpack.decode(raw)
    each = [figures[at : at + 12] for at in range(5, len(figures), 12)]
    return {
        "mode": mode,
        "lent": lent,
        "ended": [*figures[:2], number],
        "lent_ms": [*figures[2:4], number],
        "counted_ms": figures[4],
        "tallies": [[*one[4:9], [*one[9:11], number], one[11]] for one in each],
        "tickets": unpacked(client, names["tickets"]),
        "flows": {name: one[:7] for name, one in unpacked(client, names["flows"]).items()},
        "seen": members(client, names["seen"]),
        "lifts": members(client, names["lifts"]),
        "turns": [one[22:] for one in client.zrange(names["turns"], 0, -1)],
        "line": client.zrange(names["line"], 0, -1),
        "callers": client.zrange(names["callers"], 0, -1),
        "ages": {*members(client, names["ages"])},
        "held": sorted(client.zrange(names["held"], 0, -1)),
        "seats": {one: int(n) for one, n in client.hgetall(names["capacity"]).items()},
        "lent_by": {one: int(n) for one, n in client.hgetall(names["lent"]).items()},
        "room": members(client, names["room"]),
        "beats": members(client, names["beats"]),
        "promised": {
            one: score % 10**13 for one, score in members(client, names["promised"]).items()
        },
    }


def ticket_values(one: Ticket) -> list[Any]:
    """The values of a ticket, as the store keeps them."""
    what = [one.class_, one.tenant, one.caller, one.cost, one.body_bytes]
    when = [one.arrived_us, one.due_us, one.deadline_us]
    where = [one.replica, one.rank, one.seated_us]
    return [*what, *when, *one.weights, *where, *one.charged, one.avoid, one.prefer]


def of_twin(state: LineState) -> dict[str, Any]:
    """The same, of the twin."""

    def window(one: Any) -> list[int]:
        return [one.now, one.before, one.number]

    waiting = {name: one for name, one in state.tickets.items() if not one.replica}
    return {
        "mode": state.mode,
        "lent": state.lent,
        "ended": window(state.ended),
        "lent_ms": window(state.lent_ms),
        "counted_ms": state.counted_ms,
        "tallies": [
            [t.virtual, t.waiting, t.body_bytes, t.running, t.flows, window(t.taken),
                len(t.promised),
            ]
            for t in state.tallies
        ],
        "tickets": {name: ticket_values(one) for name, one in state.tickets.items()},
        "flows": {
            name: [
                one.counter, one.weight, one.waiting, one.since_us, one.lifted, one.virtual,
                ' '.join(map(str, one.promised)),
            ]
            for name, one in state.flows.items()
        },
        "seen": {name: state.seen.key(name) for name in state.seen},
        "lifts": {name: state.lifts.key(name) for name in state.lifts},
        "turns": [*state.turns],
        "line": sorted(
            f"{one.caller_flow}|{one.due_us:016d}|{one.arrived_us:016d}|{name}"
            for name, one in waiting.items()
        ),
        "callers": sorted(
            f"{name}|{state.flows[f'{name}|{caller}'].counter:016d}|{caller}"
            for name, one in state.flows.items()
            for caller in one.inside
            if name.count("|") == 1
        ),
        "ages": {name for tally in state.tallies for name in tally.ages},
        "held": sorted(
            [
                f"g:{order.channel_of(name)}|{'s' if one.replica else 'w'}|{name}"
                for name, one in state.tickets.items()
            ]
            + [f"g:{order.channel_of(name)}|x|{name}" for name in state.cancelled]
            + [f"r:{one.replica}|{name}" for name, one in state.tickets.items() if one.replica]
        ),
        "seats": {name: one.seats for name, one in state.replicas.items() if not one.gone},
        "lent_by": {name: one.lent for name, one in state.replicas.items()},
        "room": {name: state.room.key(name) for name in state.room},
        "beats": {name: state.beats.key(name) for name in state.beats},
        "promised": {
            name: tally.promised.key(name) for tally in state.tallies for name in tally.promised
        },
    }  # fmt: skip
