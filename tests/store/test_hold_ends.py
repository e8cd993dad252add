"""What the limits leave in the store has its end, and is small."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from serve_app.limits import Charge, Demand, Hold, Holds, Usage
from serve_app.limits.window import window_at
from serve_app.store import Store, keys
from tests.holding import ANYONE, KEY, RECORD, Claim, limits, scopes_of

ONE = Demand(fixed_tokens=10, choices=1, cap=10)
KB = 1_024


def bound_by(**wanted: Any) -> Claim:
    """Return a caller with these limits, alone and on the model."""
    return replace(ANYONE, limits=limits(**wanted, models={"m": wanted}))


@pytest.fixture
def client(store_url: str) -> Iterator[Any]:
    """A plain client of the same store."""
    with redis.Redis.from_url(store_url, decode_responses=True) as opened:
        yield opened


def ends_ms(client: "redis.Redis[Any]") -> dict[str, int]:
    """Return how long each key of the limits still lasts; what the ledger keeps is left out."""
    return {
        name: client.pttl(name)
        for name in client.keys("*")
        if ":spent" in name or ":leases" in name
    }


CHARGE = Charge(Usage(10, 15))
STORIES: dict[str, list[str]] = {
    "it runs": ["hold"],
    "it ended": ["hold", "settle"],
    "it was given back": ["hold", "give back"],
    "one of two ended": ["hold", "hold", "settle"],
    "refused": ["hold"] * 9,
    "its gateway died, another asked": ["hold", "wait", "hold"],
    "settled late": ["hold", "wait", "look", "settle"],
    "settled later than all": ["hold", "wait", "settle"],
    "renewed": ["hold", "renew"],
}


@pytest.mark.parametrize(
    "wanted",
    [
        {"requests_per_minute": {"limit": 1, "burst": 5}},
        {"tokens_per_minute": {"limit": 100_000, "burst": 100}},
        {"tokens_per_day": 100},
        {"tokens_per_month": 100},
        {"concurrency": 5},
        {"requests_per_minute": 0, "shadow": {"tokens_per_minute": 0}},
        {"shadow": {"requests_per_day": 1, "concurrency": 1}},
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("story", STORIES)
async def test_after_every_story_each_key_has_its_end(store: Store, client, wanted, story) -> None:
    """However it goes: no hash and no lease of the limits stays for good."""
    clock, running = [0.0], list[Hold]()
    holds, claim = Holds(store, ttl_s=0.02, clock=lambda: clock[0]), bound_by(**wanted)
    for number, move in enumerate(STORIES[story]):
        if move == "hold":
            running.append(await holds.hold(claim, ONE, model="m", request=f"r{number}"))
        elif move == "look":
            await holds.hold(claim, model="m")
        elif move == "wait":
            await asyncio.sleep(0.025)  # the store's own clock runs
        elif move == "renew":
            clock[0] += 1
            await holds.renew()
        else:
            await holds.settle(running.pop(), CHARGE if move == "settle" else None)
        assert all(left != -1 for left in ends_ms(client).values())


async def test_a_month_is_remembered_to_its_end(store: Store, client) -> None:
    """Use of a month goes with the month, whatever else is limited; a day's use with the day."""
    holds = Holds(store)
    for period, wanted in {
        "day": {"tokens_per_day": 100},
        "month": {"tokens_per_day": 100, "tokens_per_month": 100, "requests_per_minute": 9},
    }.items():
        held = await holds.hold(bound_by(**wanted), ONE, model="m", request=period)
        ends_us = window_at(period, held.now_us).ends_us
        for charge in (None, CHARGE):
            for name, left in ends_ms(client).items():
                here_ms = int(client.time()[0]) * 1_000 + left
                assert abs(here_ms - ends_us // 1_000) < 2_000, name
            await holds.settle(held, charge)


async def test_an_idle_key_leaves_nothing(store: Store, client) -> None:
    """When all has refilled and all holds are over, the limits hold not a byte of a caller."""
    holds = Holds(store, ttl_s=0.05)
    claim = bound_by(
        requests_per_minute={"limit": 6_000, "burst": 5},
        tokens_per_minute={"limit": 120_000, "burst": 200},
        concurrency=5,
        shadow={"output_tokens_per_minute": {"limit": 120_000, "burst": 200}},
    )
    for number in range(5):
        held = await holds.hold(claim, ONE, model="m", request=f"r{number}")
        assert held.refusing is None
        if number % 2:
            await holds.settle(held, CHARGE)
    ends = ends_ms(client)
    assert len(ends) == 4
    await asyncio.sleep(max(ends.values()) / 1_000 + 0.01)  # the store's own clock runs
    assert max(ends.values()) < 200
    assert ends_ms(client) == {}


async def test_what_matters_is_not_forgotten_early(store: Store, client) -> None:
    """A bucket lasts until it is full to the last microsecond: a fraction of a ms is rounded up."""
    holds = Holds(store)
    claim = replace(
        ANYONE, limits=limits(tokens_per_minute={"limit": 99_999_999, "burst": 90_000_000})
    )
    for number in range(20):
        demand = Demand(fixed_tokens=1_000_003)
        held = await holds.hold(claim, demand, model="m", request=f"r{number}")
        ends = client.pexpiretime(scopes_of()[0][0])
        assert held.refusing is None
        assert ends * 1_000 >= held.now_us + held.said[0].reset_us


async def test_an_idle_key_is_small(store: Store, client, capsys) -> None:
    """A key with its record and every kind of limit, used and idle: at most a kilobyte.

    What is kept for its current minute, day and month; its limits are part of its record.
    """
    wanted = limits(
        requests_per_minute=60, tokens_per_minute=100_000, tokens_per_day=10**6, concurrency=5
    )
    record = {
        "sha256": "0" * 64,
        "attributes": '{"name": "production", "tenant": "t", "permissions": ["run_inference"]}',
        "limits": wanted,
        "used_ms": 10**12,
        "made_ms": 10**12,
    }
    client.hset(RECORD, mapping=record)
    claim = replace(KEY, proof="0" * 64)
    holds = Holds(store)
    held = await holds.hold(claim, ONE, model="m", request="r")
    await holds.settle(held, CHARGE)
    sizes = {name: client.memory_usage(name) for name in [RECORD, *ends_ms(client)]}
    with capsys.disabled():
        print(f"\nbytes of an idle key: {sum(sizes.values())} {sizes}")
    assert client.exists(scopes_of()[0][0])
    assert sum(sizes.values()) <= KB
    assert client.memory_usage(keys.settled("t", "r")) < 100, "and this for ten minutes"
