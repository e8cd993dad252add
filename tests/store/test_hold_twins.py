"""Hold, renew and settle in the store, and their pure twins, stay equal (CONTRACT §4, D5)."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from serve_app.limits import Charge, Demand, Hold, Holds, Terms, Usage
from serve_app.limits.bound import bind
from serve_app.limits.holds import settling
from serve_app.limits.scope import Scope
from serve_app.limits.step import Asked, judge, renew, settle
from serve_app.store import Store
from tests.holding import KEY, RECORD, TENANT, limits, scopes_of

TTL_MS = 12
"""How long a hold lasts in the traces: short, so that some of them end by themselves."""

Move = tuple[str, Demand | None, Charge | None, int]


@dataclass
class Both:
    """The steps in a real store, and their twins on the same requests at the same times."""

    store: Store
    texts: tuple[str, str, str]
    """The caller's own limits, the defaults, the tenant's."""
    terms: Terms
    scopes: list[Scope] = field(default_factory=lambda: [Scope() for _ in range(4)])
    running: list[Hold] = field(default_factory=list)
    ended: list[Hold] = field(default_factory=list)

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
        assert (held.refusing, held.leases) == (refusing, told.leases)
        estimate = told.estimate
        assert (held.cap, held.output_tokens) == (
            estimate.cap,
            asks.choices * estimate.output_tokens,
        )
        if any(held.leases):
            self.running.append(held)

    async def settle(self, held: Hold, charge: Charge | None) -> None:
        done, now_us = await self.store.run("settle", *settling(held, charge))
        if done:
            settle(self.scopes, held.leases, units(charge), now_us)

    async def renew(self, held: Hold) -> None:
        names = [leases for _, leases in scopes_of()]
        there, now_us = await self.store.run("renew", names, [TTL_MS, *held.leases])
        assert there == renew(self.scopes, held.leases, now_us // 1_000 + TTL_MS)

    async def move(self, number: int, move: Move) -> None:
        kind, demand, charge, pick = move
        if kind == "hold":
            await self.hold(f"r{number}", demand)
        elif kind == "wait":
            await asyncio.sleep(pick % 3 * TTL_MS / 2_000)  # the store's own clock runs
        elif kind == "again" and self.ended:
            await self.settle(self.ended[pick % len(self.ended)], charge)
        elif kind == "renew" and self.running:
            await self.renew(self.running[pick % len(self.running)])
        elif kind == "settle" and self.running:
            self.ended.append(self.running.pop(pick % len(self.running)))
            await self.settle(self.ended[-1], charge)


def units(charge: Charge | None) -> dict[str, int]:
    """Return what a charge counts as, by unit."""
    if charge is None:
        return {}
    used = charge.usage
    return {
        "requests": 1,
        "input": used.input_tokens,
        "output": used.output_tokens,
        "tokens": used.input_tokens + used.output_tokens,
        "cost": charge.cost_nanos,
    }


UNITS = st.integers(0, 400)
RATE = st.one_of(
    st.integers(0, 10**6),
    st.builds(lambda limit, burst: {"limit": limit, "burst": burst},
              st.sampled_from([1, 60, 9_973, 10**6]), st.integers(1, 1_000)),
)  # fmt: skip
BOUNDS = st.fixed_dictionaries(
    {},
    optional={
        "requests_per_minute": st.one_of(
            st.integers(0, 50_000),
            st.fixed_dictionaries({"limit": st.integers(1, 50_000), "burst": st.integers(1, 20)}),
        ),
        "tokens_per_minute": RATE,
        "input_tokens_per_minute": RATE,
        "output_tokens_per_minute": RATE,
        "requests_per_day": st.integers(0, 12),
        "tokens_per_day": st.integers(0, 3_000),
        "input_tokens_per_day": st.integers(0, 3_000),
        "output_tokens_per_day": st.integers(0, 3_000),
        "tokens_per_month": st.integers(0, 9_000),
        "cost_per_day": st.integers(0, 3).map(lambda n: n / 10**6),
        "cost_per_month": st.integers(0, 9).map(lambda n: n / 10**6),
        "concurrency": st.integers(0, 5),
    },
)
CAPS = st.fixed_dictionaries({}, optional={"shadow": BOUNDS, "output_cap": st.integers(1, 300)})
ONE = st.builds(lambda bounds, more: {**bounds, **more}, BOUNDS, CAPS)
LIMITS = st.one_of(
    st.just({}),
    st.just({"exempt": True}),
    st.builds(lambda own, here: {**own, "models": {"m": here, "other": {}}}, ONE, ONE),
)
DEMANDS = st.one_of(
    st.none(),
    st.builds(Demand, UNITS, UNITS, st.integers(0, 3), st.none() | st.integers(0, 500)),
)
USAGES = st.builds(Usage, st.integers(0, 900), st.integers(0, 900))
CHARGES = st.one_of(st.none(), st.builds(Charge, USAGES, cost_nanos=st.integers(0, 5_000)))
KINDS = st.sampled_from(["hold", "hold", "settle", "renew", "again", "wait"])
MOVES = st.lists(st.tuples(KINDS, DEMANDS, CHARGES, st.integers(0, 10**6)), max_size=20)
PRICES = st.floats(0, 50).filter(lambda price: price == 0 or price > 1e-9)
TERMS = st.builds(Terms, st.none() | st.integers(1, 300), PRICES, PRICES)


@dataclass
class Ground:
    """One event loop, one store and one plain client, for all traces of a module."""

    loop: asyncio.Runner
    store: Store
    client: "redis.Redis[Any]"

    def trace(self, texts: tuple[str, str, str], terms: Terms, moves: list[Move]) -> Both:
        """Make every move in both, ending with two looks, and return both."""
        both = Both(self.store, texts, terms)
        self.client.flushall()
        self.client.hset(RECORD, mapping={"sha256": "s", "attributes": "{}", "limits": texts[0]})
        self.client.hset(TENANT, mapping={"attributes": "{}", "limits": texts[2]})

        async def all_of_them() -> None:
            for number, move in enumerate([*moves, *[("hold", None, None, 0)] * 2]):
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
        store = Store(store_url, timeout_ms=10_000)
        yield Ground(loop, store, client)
        loop.run(store.close())


TIGHT = {"requests_per_minute": {"limit": 60, "burst": 3}, "tokens_per_day": 900, "concurrency": 2}
BUSY = Demand(text_bytes=40, fixed_tokens=5, choices=2, cap=60)
SOME = Charge(Usage(15, 30), cost_nanos=70)
LONG = {"tokens_per_minute": {"limit": 600, "burst": 900}, "shadow": {"requests_per_day": 1}}


def moves_of(told: str) -> list[Move]:
    """Return busy moves, each with what it picks."""
    return [(word.rstrip("012"), BUSY, SOME, int("0" + word[-1:]) if word[-1:].isdigit() else 0)
            for word in told.split()]  # fmt: skip


@settings(max_examples=2_000, deadline=None, suppress_health_check=list(HealthCheck))
@example(  # a lease that nobody renews ends, is given back to who asks, and settled late
    own=TIGHT,
    defaults={},
    tenant=LONG,
    terms=Terms(),
    moves=moves_of("hold hold hold wait2 wait2 hold settle again"),
)
@example(  # one is renewed past the end of another, which is settled when its time is over
    own={},
    defaults=LONG,
    tenant={"models": {"m": TIGHT}},
    terms=Terms(20, 1.5, 0.25),
    moves=moves_of("hold hold wait1 renew0 wait1 wait1 settle1 settle0"),
)
@given(own=LIMITS, defaults=LIMITS, tenant=LIMITS, moves=MOVES, terms=TERMS)
def test_the_steps_do_what_their_twins_do(ground, own, defaults, tenant, moves, terms) -> None:
    """Any limits, any traffic: hold, settle, settle again, renew, let holds end by themselves.

    A step tells the time it used; at that time its twin says the same of every limit, takes the
    same from every scope, and leaves the same behind.
    """
    texts = (limits(**own), limits(**defaults), limits(**tenant))
    both = ground.trace(texts, terms, moves)
    for scope, (_, leases) in zip(both.scopes, scopes_of(), strict=True):
        kept = ground.client.zrange(leases, 0, -1, withscores=True)
        assert {lease: int(until) for lease, until in kept} == scope.leases
    for spent, leases in scopes_of():
        assert all(ground.client.ttl(name) != -1 for name in (spent, leases)), "each has its end"
