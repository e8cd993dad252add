"""Hold, renew and settle in the store, and their pure twins, stay equal (CONTRACT §4, D5)."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from serve_app.allowance import KINDS
from serve_app.limits import Charge, Demand, Hold, Holds, Terms, Usage
from serve_app.limits.bound import bind
from serve_app.limits.holds import settling
from serve_app.limits.scope import Scope
from serve_app.limits.step import Asked, judge, renew, settle
from serve_app.store.scripts import TEXTS
from tests.holding import KEY, RECORD, TENANT, limits, scopes_of

CLOCK = Path(__file__).with_name("moved_clock.lua").read_text()
TTL_MS = 400
"""How long a hold lasts in the traces."""

WAITS_US = [1, 999, 1_000, TTL_MS * 500, TTL_MS * 1_000 - 1_000, TTL_MS * 1_000, 7_000_000]
WAITS_US += [60_000_000, 3_600_000_000, 86_400_000_000, 20 * 86_400_000_000]
STARTS_US = [1_709_164_799_999_999, 1_709_164_800_000_000, 1_735_689_599_500_000]
STARTS_US += [1_700_000_000_123_456, 1_703_980_799_000_001]
"""The last moment before a 29th of February, the first of it, the end of a year, and others."""

Move = tuple[str, Demand | None, Charge | None, int]


class ClockedStore:
    """The real steps in a real store, at a time that we move; keys go when that time has come."""

    def __init__(self, client: "redis.Redis[Any]", now_us: int) -> None:
        self.client, self.now_us = client, now_us
        self.steps = {step: client.register_script(CLOCK + TEXTS[step])
                      for step in ("hold", "settle", "renew")}  # fmt: skip

    def expire(self) -> None:
        """Let go what has come to its end."""
        for name in self.client.zrange("ends", "-inf", self.now_us // 1_000, byscore=True):
            self.client.delete(name)
            self.client.zrem("ends", name)

    async def run(self, step: str, names: list[str], args: list[str | int | float]) -> Any:
        """Run one step, as a store does, at the time that it is."""
        self.expire()
        return self.steps[step](names, [*args, self.now_us])


Pair = tuple[Hold, tuple[str, ...]]
"""A hold, and what its leases are called in the twin."""


@dataclass
class Both:
    """The steps in a real store, and their twins on the same requests at the same times."""

    store: ClockedStore
    texts: tuple[str, str, str]
    """The caller's own limits, the defaults, the tenant's."""
    terms: Terms
    other: str = ""
    """What the caller's own limits are changed to, and back again."""

    scopes: list[Scope] = field(default_factory=lambda: [Scope() for _ in range(4)])
    running: list[Pair] = field(default_factory=list)
    ended: list[Pair] = field(default_factory=list)

    forgetful: bool = False
    """Whether the twin forgets what the store has forgotten."""

    def __post_init__(self) -> None:
        self.holds = Holds(self.store, defaults=self.texts[1], ttl_s=TTL_MS / 1_000)

    async def hold(self, request: str, demand: Demand | None) -> None:
        """Hold in both; every figure must be the same."""
        held = await self.holds.hold(KEY, demand, model="m", terms=self.terms, request=request)
        asks = demand or Demand()
        tokens = asks.fixed_tokens + -(-asks.text_bytes // 4)
        asked = Asked(demand, self.terms, tokens, 256, request, TTL_MS)
        told = judge(self.scopes, bind(*self.texts, "m"), asked, held.now_us)
        assert [
            (one.limit, one.burst, one.shadow, one.left, one.wait_us, one.reset_us)
            for one in held.said
        ] == [
            (bound.limit, bound.burst, bound.shadow, said.left, said.wait_us, said.reset_us)
            for _, bound, said in told.said
        ]
        refusing = None if told.refusing is None else held.said[told.refusing]
        assert held.refusing == refusing
        assert held.leases == told.leases
        estimate = told.estimate
        assert (held.cap, held.output_tokens) == (
            estimate.cap,
            asks.choices * estimate.output_tokens,
        )
        if any(held.leases):
            self.running.append((held, told.leases))

    async def settle(self, pair: Pair, charge: Charge | None) -> None:
        held, leases = pair
        done, now_us = await self.store.run("settle", *settling(held, charge))
        if done:
            settle(self.scopes, leases, {} if charge is None else charge.units(), now_us)

    async def renew(self, pair: Pair) -> None:
        held, twins = pair
        names = [leases for _, leases in scopes_of()]
        there, now_us = await self.store.run("renew", names, [TTL_MS, *held.leases])
        assert there == renew(self.scopes, twins, TTL_MS, now_us)

    def forget(self) -> None:
        """Forget in the twin what came to its end in the store."""
        self.store.expire()
        for scope, (used, leases) in zip(self.scopes, scopes_of(), strict=True):
            if not self.store.client.exists(used):
                scope.values.clear()
            if not self.store.client.exists(leases):
                scope.leases.clear()

    async def move(self, number: int, move: Move) -> None:
        kind, demand, charge, pick = move
        if self.forgetful:
            self.forget()
        if kind == "hold":
            await self.hold(f"r{number}", demand)
        elif kind == "change":
            self.texts, self.other = (self.other, *self.texts[1:]), self.texts[0]
            self.store.client.hset(RECORD, "limits", self.texts[0])
        elif kind == "wait":
            self.store.now_us += WAITS_US[pick % len(WAITS_US)]
        elif kind == "again" and self.ended:
            await self.settle(self.ended[pick % len(self.ended)], charge)
        elif kind == "renew" and self.running:
            await self.renew(self.running[pick % len(self.running)])
        elif kind == "settle" and self.running:
            self.ended.append(self.running.pop(pick % len(self.running)))
            await self.settle(self.ended[-1], charge)


RATES = [kind.name for kind in KINDS if kind.period == "minute"]
QUOTAS = [kind.name for kind in KINDS if kind.period != "minute" and not kind.is_money]
MONEY = [kind.name for kind in KINDS if kind.is_money]
UNITS = st.integers(0, 60)
AMOUNTS = st.sampled_from([150, 60, 400, 10_000, 1_000, 10**6, 3_000, 500, 250, 900, 2, 0])
RATE = AMOUNTS | st.builds(
    lambda limit, burst: {"limit": limit, "burst": burst},
    st.sampled_from([1, 60, 9_973, 10**6]),
    st.sampled_from([150, 1_000, 400, 250, 2]),
)
NAMED = st.one_of(
    st.tuples(st.sampled_from(RATES), RATE),
    st.tuples(st.sampled_from(QUOTAS), AMOUNTS),
    st.tuples(st.sampled_from(MONEY), AMOUNTS.map(lambda nanos: nanos / 10**7)),
)
BOUNDS = st.lists(NAMED, max_size=2).map(dict)
CAPS = st.sampled_from([{}, {}, {"output_cap": 7}, {"output_cap": 90}, {"output_cap": 300}])
SHADOWS = st.one_of(st.just({}), BOUNDS.map(lambda bounds: {"shadow": bounds}))
ONE = st.builds(lambda *parts: {k: v for part in parts for k, v in part.items()},
                BOUNDS, SHADOWS, CAPS)  # fmt: skip
LIMITS = st.one_of(
    st.builds(lambda own, here: {**own, "models": {"m": here, "other": {}}}, ONE, ONE),
    ONE,
    st.sampled_from([{}, {}, {"exempt": True}]),
)
DEMANDS = st.one_of(
    st.builds(Demand, UNITS, UNITS, st.integers(0, 3), st.none() | st.integers(0, 90)),
    st.sampled_from([Demand(fixed_tokens=1), Demand(8, 0, 1, 3), Demand(8, 0, 1), None]),
)
USAGES = st.builds(Usage, st.integers(0, 200), st.integers(0, 200))
CHARGES = st.one_of(st.none(), st.builds(Charge, USAGES, cost_nanos=st.integers(0, 5_000)))
KINDS = st.sampled_from(
    ["hold", "hold", "hold", "settle", "settle", "renew", "again", "wait", "wait"]
)
PICKS = st.integers(0, 99)
MOVES = st.lists(st.tuples(KINDS, DEMANDS, CHARGES, PICKS), min_size=5, max_size=20)
CHANGING = st.lists(
    st.tuples(KINDS | st.just("change"), DEMANDS, CHARGES, PICKS), min_size=5, max_size=20
)
PRICES = st.sampled_from([0.0, 1.0, 0.37, 1 / 3, 12.5, 1e-7])
TERMS = st.builds(Terms, st.none() | st.integers(1, 300), PRICES, PRICES)


@dataclass(frozen=True)
class Story:
    """Who is bound by what, and what happens."""

    own: dict[str, Any] = field(default_factory=dict)
    other: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    tenant: dict[str, Any] = field(default_factory=dict)
    terms: Terms = Terms()  # noqa: RUF009 - it is frozen
    start_us: int = STARTS_US[0]
    moves: list[Move] = field(default_factory=list)


STARTS = st.sampled_from(STARTS_US)
STORIES = st.builds(Story, LIMITS, LIMITS, LIMITS, LIMITS, TERMS, STARTS, MOVES)
CHANGED = st.builds(Story, LIMITS, LIMITS, LIMITS, LIMITS, TERMS, STARTS, CHANGING)


@dataclass
class Ground:
    """One event loop and one client, for all traces of a module."""

    loop: asyncio.Runner
    client: "redis.Redis[Any]"

    def trace(self, story: Story, *, forgetful: bool = False) -> Both:
        """Make every move in both, ending with two looks, and return both."""
        texts = limits(**story.own), limits(**story.defaults), limits(**story.tenant)
        self.client.flushall()
        self.client.hset(RECORD, mapping={"sha256": "s", "attributes": "{}", "limits": texts[0]})
        self.client.hset(TENANT, mapping={"attributes": "{}", "limits": texts[2]})
        both = Both(
            ClockedStore(self.client, story.start_us), texts, story.terms, limits(**story.other)
        )
        both.forgetful = forgetful

        async def all_of_them() -> None:
            for number, move in enumerate([*story.moves, *[("hold", None, None, 0)] * 2]):
                await both.move(number, move)

        self.loop.run(all_of_them())
        return both


@pytest.fixture(scope="module")
def ground(store_url: str) -> Iterator[Ground]:
    """Where the traces of this module run."""
    with (
        asyncio.Runner() as loop,
        redis.Redis.from_url(store_url, decode_responses=True) as client,
    ):
        yield Ground(loop, client)


TIGHT = {"requests_per_minute": {"limit": 60, "burst": 3}, "tokens_per_day": 900, "concurrency": 2}
BUSY = Demand(text_bytes=40, fixed_tokens=5, choices=2)
SOME = Charge(Usage(15, 30), cost_nanos=70)
LONG = {"tokens_per_minute": {"limit": 600, "burst": 900}, "shadow": {"requests_per_day": 1}}


def moves_of(told: str) -> list[Move]:
    """Return busy moves, each with what it picks."""
    words = [word.partition(":") for word in told.split()]
    return [(kind, BUSY, SOME, int(pick or 0)) for kind, _, pick in words]


def in_full(told: str) -> Story:
    """Return a story on tight limits of many kinds."""
    both = {"output_cap": 9, "tokens_per_month": 900, "models": {"m": {**LONG, "output_cap": 5}}}
    return Story(
        both,
        {"requests_per_minute": 9},
        TIGHT,
        {"models": {"m": TIGHT}},
        Terms(20, 1.5, 0.25),
        moves=moves_of(told),
    )


@settings(max_examples=1_500, deadline=None, suppress_health_check=list(HealthCheck))
@example(story=in_full("hold hold hold wait:5 hold settle again"))
@example(story=in_full("hold hold wait:3 renew wait:3 settle:1 settle"))
@example(story=in_full("hold change hold wait:2 change hold wait:9 change hold settle:1"))
@example(story=in_full("hold change wait:2 hold"))
@example(story=in_full("hold settle change hold settle wait:6 change hold"))
@example(story=in_full("hold wait:6 renew settle hold wait:9 settle:1"))
@example(story=in_full("hold hold settle:1 wait:8 hold settle wait:10 settle"))
@given(story=STORIES)
def test_the_steps_do_what_their_twins_do(ground: Ground, story: Story) -> None:
    """Any limits, any traffic: hold, settle, settle again, renew, let holds end by themselves.

    At the same time the store and the twin say the same of every limit, take the same from every
    scope, and leave the same behind; also across the end of a day, a month and a year. What has an
    end in the store is forgotten there in time, in the twin never: that makes no difference.
    """
    both = ground.trace(story)
    event(f"{min(len(both.ended), 3)} settled, {min(len(both.running), 3)} left running")
    for scope, (_, leases) in zip(both.scopes, scopes_of(), strict=True):
        kept = ground.client.zrange(leases, f"({both.store.now_us // 1_000}", "+inf",
                                    byscore=True, withscores=True)  # fmt: skip
        assert {lease: int(until) for lease, until in kept} == {
            lease: until
            for lease, until in scope.leases.items()
            if until > both.store.now_us // 1_000
        }
    names = {name for pair in scopes_of() for name in pair if ground.client.exists(name)}
    assert names <= {*ground.client.zrange("ends", 0, -1)}, "each has its end"


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(story=CHANGED)
def test_limits_that_change_while_requests_run(ground: Ground, story: Story) -> None:
    """A limit written anew, lowered, removed or given again: step and twin still say the same.

    Here what the store forgot counts: a limit that comes back finds nothing of its time before.
    """
    ground.trace(story, forgetful=True)
