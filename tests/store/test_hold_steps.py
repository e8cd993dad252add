"""Hold, renew and settle in the store, and their pure twins, stay equal (CONTRACT §4, D5)."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.allowance import Limits
from serve_app.limits import Charge, Demand, Hold, Holds, Terms, Usage
from serve_app.limits.bound import bind
from serve_app.limits.scope import Scope
from serve_app.limits.step import Asked, judge, renew, settle
from serve_app.store import Store, keys

RECORD, TENANT = keys.key_record("t", "k"), keys.tenant_record("t")
SPENT, LEASES = keys.scopes("t", "k", "m")[:2]
TTL_MS = 400
"""How long a hold lasts in the traces: short, so that some of them end by themselves."""


@dataclass(frozen=True)
class Claim:
    """Who somebody says to be."""

    tenant: str = "t"
    key_id: str = "k"
    bucket: str = "k"
    kind: str = "vouched"
    proof: str = ""
    user: str | None = None
    token_id: str = ""
    limits: str | None = None
    tenant_must_exist: bool = False


ANYONE = Claim()
KEY = Claim(kind="key", proof="s")
USER = Claim(kind="user", proof="1000", user="ada", token_id="j1")


def limits(**told: Any) -> str:
    """Return limits as the store keeps them."""
    return Limits.model_validate(told).text()


@dataclass
class Both:
    """The steps in a real store, and their twins on the same requests at the same times."""

    store: Store
    own: str
    defaults: str
    tenant: str
    scopes: list[Scope] = field(default_factory=lambda: [Scope() for _ in range(4)])

    def __post_init__(self) -> None:
        self.holds = Holds(self.store, defaults=self.defaults, ttl_s=TTL_MS / 1_000)

    def units(self, charge: Charge | None) -> dict[str, int]:
        if charge is None:
            return {}
        used = charge.usage
        tokens = used.input_tokens + used.output_tokens
        return {
            "requests": 1,
            "input": used.input_tokens,
            "output": used.output_tokens,
            "tokens": tokens,
            "cost": charge.cost_nanos,
        }

    async def hold(self, request: str, demand: Demand | None, terms: Terms) -> Hold:
        """Hold in both; every figure must be the same."""
        held = await self.holds.hold(KEY, demand, model="m", terms=terms, request=request)
        binds = bind(self.own, self.defaults, self.tenant, "m")
        tokens = (demand or Demand()).fixed_tokens + -(-(demand or Demand()).text_bytes // 4)
        asked = Asked(demand, terms, tokens, 256, request, TTL_MS)
        told = judge(self.scopes, binds, asked, held.now_us)
        assert [
            (one.limit, one.burst, one.shadow, one.left, one.wait_us, one.reset_us)
            for one in held.said
        ] == [
            (bound.limit, bound.burst, bound.shadow, said.left, said.wait_us, said.reset_us)
            for _, bound, said in told.said
        ]
        refusing = None if told.refusing is None else held.said[told.refusing]
        assert (held.refusing, held.leases) == (refusing, told.leases)
        assert held.cap == told.estimate.cap
        choices = (demand or Demand()).choices
        assert held.output_tokens == choices * told.estimate.output_tokens
        return held

    async def settle(self, held: Hold, charge: Charge | None) -> None:
        from serve_app.limits.holds import settling  # noqa: PLC0415 - the step under test

        done, now_us = await self.store.run("settle", *settling(held, charge))
        if done:
            settle(self.scopes, held.leases, self.units(charge), now_us)

    async def renew(self, held: Hold) -> None:
        names = keys.scopes("t", "k", "m")[1::2]
        there, now_us = await self.store.run("renew", names, [TTL_MS, *held.leases])
        assert there == renew(self.scopes, held.leases, now_us // 1_000 + TTL_MS)


UNITS = st.integers(0, 400)
BOUNDS = st.fixed_dictionaries(
    {},
    optional={
        "requests_per_minute": st.one_of(
            st.integers(0, 50_000),
            st.fixed_dictionaries({"limit": st.integers(1, 50_000), "burst": st.integers(1, 20)}),
        ),
        "tokens_per_minute": st.fixed_dictionaries(
            {"limit": st.integers(1, 10**7), "burst": st.integers(1, 1_000)}
        ),
        "input_tokens_per_minute": st.integers(0, 10**6),
        "output_tokens_per_minute": st.integers(0, 10**6),
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
ONE = st.fixed_dictionaries(
    {}, optional={"shadow": BOUNDS, "output_cap": st.integers(1, 300)}
).flatmap(lambda more: BOUNDS.map(lambda bounds: {**bounds, **more}))
LIMITS = st.one_of(
    st.fixed_dictionaries({}, optional={"models": st.just({})}),
    st.just({"exempt": True}),
    st.tuples(ONE, ONE).map(lambda both: {**both[0], "models": {"m": both[1], "other": {}}}),
)
DEMANDS = st.one_of(
    st.none(),
    st.builds(
        Demand,
        text_bytes=UNITS,
        fixed_tokens=UNITS,
        choices=st.integers(0, 3),
        cap=st.one_of(st.none(), st.integers(0, 500)),
    ),
)
CHARGES = st.one_of(
    st.none(),
    st.builds(
        Charge,
        st.builds(Usage, st.integers(0, 900), st.integers(0, 900)),
        cost_nanos=st.integers(0, 5_000),
    ),
)
MOVES = st.lists(
    st.tuples(
        st.sampled_from(["hold", "hold", "settle", "renew", "again", "wait"]),
        DEMANDS,
        CHARGES,
        st.integers(0, 10**6),
    ),
    max_size=24,
)
TERMS = st.builds(
    Terms,
    st.one_of(st.none(), st.integers(1, 300)),
    st.floats(0, 50).filter(lambda x: x == 0 or x > 1e-9),
    st.floats(0, 50).filter(lambda x: x == 0 or x > 1e-9),
)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(own=LIMITS, defaults=LIMITS, tenant=LIMITS, moves=MOVES, terms=TERMS)
def test_the_steps_do_what_their_twins_do(store_url, own, defaults, tenant, moves, terms) -> None:
    """Any limits, any traffic: hold, settle, settle again, renew, let holds end by themselves.

    A step tells the time it used; at that time its twin says the same of every limit, takes the
    same from every scope, and leaves the same behind.
    """

    async def trace() -> None:
        store = Store(store_url, timeout_ms=10_000)
        both = Both(store, limits(**own), limits(**defaults), limits(**tenant))
        with redis.Redis.from_url(store_url, decode_responses=True) as client:
            client.flushall()
            client.hset(RECORD, mapping={"sha256": "s", "attributes": "{}", "limits": both.own})
            client.hset(TENANT, mapping={"attributes": "{}", "limits": both.tenant})
            running: list[Hold] = []
            ended: list[Hold] = []
            for number, (move, demand, charge, pick) in enumerate(moves):
                if move == "hold":
                    held = await both.hold(f"r{number}", demand, terms)
                    running += [held] if any(held.leases) else []
                elif move == "wait":
                    await asyncio.sleep(pick % 3 * TTL_MS / 2_000)  # the store's own clock runs
                elif move == "again" and ended:
                    await both.settle(ended[pick % len(ended)], charge)
                elif running and move == "renew":
                    await both.renew(running[pick % len(running)])
                elif running and move == "settle":
                    ended.append(running.pop(pick % len(running)))
                    await both.settle(ended[-1], charge)
            await both.hold("", None, terms)
            for scope, names in zip(both.scopes, _pairs("t", "k", "m"), strict=True):
                kept = dict(client.zrange(names[1], 0, -1, withscores=True))
                assert {lease: int(until) for lease, until in kept.items()} == scope.leases
        await store.close()

    asyncio.run(trace())


def _pairs(*whose: str) -> list[tuple[str, str]]:
    names = keys.scopes(*whose)
    return list(zip(names[::2], names[1::2], strict=True))
