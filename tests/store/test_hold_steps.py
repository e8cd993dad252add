"""Who may hold, what a hold takes, and what settling leaves behind, in a real store."""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from serve_app.limits import Charge, Demand, Hold, Holds, State, Terms, Usage
from serve_app.store import Store, keys
from tests.holding import ANYONE, KEY, RECORD, TENANT, USER, Claim, everything, limits, scopes_of

ONE = Demand(fixed_tokens=100, choices=1, cap=50)
"""A request that is expected to use 150 tokens."""


def told(**fields: object) -> dict[str, Any]:
    """Return a record with these fields."""
    return {"attributes": "{}", **fields}


def bound_by(**wanted: Any) -> Claim:
    """Return a caller with these limits."""
    return replace(ANYONE, limits=limits(**wanted))


@pytest.fixture
def client(store_url: str) -> Iterator[Any]:
    """A plain client of the same store."""
    with redis.Redis.from_url(store_url, decode_responses=True) as opened:
        yield opened


@pytest.fixture
def holds(store: Store) -> Holds:
    """Holds without defaults."""
    return Holds(store)


async def left_of(holds: Holds, claim: Claim) -> dict[str, int]:
    """Return what is left of each limit."""
    return {said.name: said.left for said in (await holds.hold(claim, model="m")).said}


@pytest.mark.parametrize(
    ("claim", "record", "state"),
    [
        pytest.param(KEY, None, State.UNKNOWN, id="no such key"),
        pytest.param(KEY, told(sha256="s"), State.KNOWN, id="the right secret"),
        pytest.param(KEY, told(sha256="x"), State.UNKNOWN, id="a wrong secret"),
        pytest.param(KEY, told(sha256="s", expires_ms=1), State.UNKNOWN, id="expired"),
        pytest.param(KEY, told(sha256="s", expires_ms=10**14), State.KNOWN, id="not yet expired"),
        pytest.param(
            KEY,
            told(sha256="new", old_sha256="s", old_until_ms=10**14),
            State.KNOWN,
            id="the old secret, still good",
        ),
        pytest.param(
            KEY,
            told(sha256="new", old_sha256="s", old_until_ms=1),
            State.UNKNOWN,
            id="the old secret, ended",
        ),
        pytest.param(
            KEY, told(sha256="new", old_sha256="s"), State.UNKNOWN, id="an old secret without end"
        ),
        pytest.param(USER, None, State.REVOKED, id="no such user"),
        pytest.param(USER, told(), State.KNOWN, id="a user"),
        pytest.param(USER, told(disabled="0"), State.KNOWN, id="an enabled user"),
        pytest.param(USER, told(disabled="1"), State.REVOKED, id="a disabled user"),
        pytest.param(USER, told(not_before_ms=1_000), State.KNOWN, id="issued just then"),
        pytest.param(USER, told(not_before_ms=1_001), State.REVOKED, id="issued before"),
        pytest.param(replace(USER, proof="?"), told(), State.REVOKED, id="issued at no time"),
        pytest.param(ANYONE, None, State.KNOWN, id="vouched for"),
        pytest.param(
            replace(ANYONE, tenant_must_exist=True), None, State.NO_TENANT, id="of no tenant"
        ),
    ],
)
async def test_who_is_known(store: Store, client, claim: Claim, record, state) -> None:
    """The record decides, in the store's time; for whoever is not known nothing is written."""
    name = keys.user_record("t", claim.user) if claim.user else RECORD
    if record is not None:
        client.hset(name, mapping=record)
    before = everything(client)
    holds = Holds(store, defaults=limits(requests_per_minute=5))
    held = await holds.hold(claim, ONE, request="r")
    assert held.state is state
    assert any(held.leases) == (state is State.KNOWN) == bool(held.said)
    assert (everything(client) == before) == (state is not State.KNOWN)


@pytest.mark.parametrize("claim", [USER, replace(ANYONE, token_id="j1")], ids=["session", "token"])
async def test_a_revoked_token_is_revoked_at_once(holds: Holds, client, claim: Claim) -> None:
    """Its mark is read in the same call; another tenant's mark of that name is not its own."""
    client.hset(keys.user_record("t", "ada"), mapping=told())
    client.set(keys.revoked("other", "j1"), 1)
    assert (await holds.hold(claim)).state is State.KNOWN
    client.set(keys.revoked("t", "j1"), 1)
    assert (await holds.hold(claim)).state is State.REVOKED


async def test_the_last_use_is_noted_once_a_minute(holds: Holds, client) -> None:
    """One write a minute and key, whatever the traffic; wrong secrets are no use."""
    client.hset(RECORD, mapping=told(sha256="s"))
    await holds.hold(replace(KEY, proof="wrong"), ONE, request="r1")
    assert client.hget(RECORD, "used_ms") is None
    first = await holds.hold(KEY, ONE, request="r2")
    noted_ms = int(client.hget(RECORD, "used_ms") or 0)
    assert noted_ms == first.now_us // 1_000
    await holds.hold(KEY, ONE, request="r3")
    assert client.hget(RECORD, "used_ms") == str(noted_ms)
    client.hset(RECORD, "used_ms", noted_ms - 60_000)
    await holds.hold(KEY, ONE, request="r4")
    assert int(client.hget(RECORD, "used_ms") or 0) >= noted_ms


async def test_both_or_neither(holds: Holds, client) -> None:
    """A tenant's limit binds all its callers; who is refused by it takes nothing of its own."""
    client.hset(TENANT, mapping=told(limits=limits(requests_per_day=2)))
    callers = [
        replace(bound_by(tokens_per_day=900), key_id=name, bucket=name) for name in ("a", "b", "c")
    ]
    said = [await holds.hold(one, ONE, model="m", request=one.key_id) for one in callers]
    assert [held.refusing.name if held.refusing else "" for held in said] == [
        "",
        "",
        "tenant:requests_per_day",
    ]
    for whom, left in (("a", 750), ("b", 750), ("c", 900)):
        now = await left_of(holds, replace(callers[2], bucket=whom))
        assert now == {"key:tokens_per_day": left, "tenant:requests_per_day": 0}
    assert not client.exists(*scopes_of("t", "c", "m")[0])
    for held in said[:2]:
        await holds.settle(held)
    again = await holds.hold(callers[2], ONE, model="m", request="d")
    assert again.refusing is None, "what was given back is there"


EVERY = {
    "requests_per_minute": {"limit": 1, "burst": 60},
    "tokens_per_minute": {"limit": 1, "burst": 1_000},
    "input_tokens_per_minute": {"limit": 1, "burst": 1_000},
    "output_tokens_per_minute": {"limit": 1, "burst": 1_000},
    "requests_per_day": 60,
    "tokens_per_day": 1_000,
    "input_tokens_per_day": 1_000,
    "output_tokens_per_day": 1_000,
    "tokens_per_month": 1_000,
    "cost_per_day": 0.000_001,
    "cost_per_month": 0.000_001,
    "concurrency": 3,
}
PRICED = Terms(None, 2.0, 4.0)


@pytest.mark.parametrize(
    ("charge", "spent"),
    [
        pytest.param(
            Charge(Usage(90, 10), cost_nanos=220), (1, 100, 90, 10, 220), id="less than it held"
        ),
        pytest.param(
            Charge(Usage(100, 50), cost_nanos=400), (1, 150, 100, 50, 400), id="what it held"
        ),
        pytest.param(
            Charge(Usage(100, 450), cost_nanos=900), (1, 550, 100, 450, 900), id="more than it held"
        ),
        pytest.param(Charge(Usage(0, 0)), (1, 0, 0, 0, 0), id="no tokens"),
        pytest.param(None, (0, 0, 0, 0, 0), id="nothing at all"),
    ],
)
async def test_what_was_used_is_charged(holds: Holds, client, charge, spent) -> None:
    """Every kind of limit in every scope: held while it runs, then what was used and no more."""
    client.hset(TENANT, mapping=told(limits=limits(**EVERY, models={"m": EVERY})))
    claim = bound_by(**EVERY, models={"m": EVERY})
    before = await left_of(holds, claim)
    held = await holds.hold(claim, ONE, model="m", terms=PRICED, request="r")
    assert await taken_since(holds, claim, before) == expected(1, 150, 100, 50, 400, 1)
    await holds.settle(held, charge)
    assert await taken_since(holds, claim, before) == expected(*spent, 0)
    for names in scopes_of():
        assert not client.exists(names[1]), "no lease is left"


async def taken_since(holds: Holds, claim: Claim, before: dict[str, int]) -> dict[str, set[int]]:
    """Return how much less there is of each kind of limit, over all scopes.

    What refills meanwhile, a unit a minute, is less than a unit.
    """
    taken: dict[str, set[int]] = {}
    for name, left in (await left_of(holds, claim)).items():
        taken.setdefault(name.split(":")[1], set()).add(before[name] - left)
    return taken


def expected(requests: int, tokens: int, input_: int, output: int, cost: int, seats: int) -> Any:
    """Return the same as taken_since does."""
    counts = {"requests": requests, "input": input_, "output": output, "tokens": tokens}
    counts |= {"cost": cost, "concurrency": seats}
    return {name: {counts[re.split("_", name)[0]]} for name in EVERY}


async def test_a_request_is_settled_once(holds: Holds, client) -> None:
    """A second settle writes nothing, whatever it says."""
    claim = bound_by(tokens_per_day=1_000)
    held = await holds.hold(claim, ONE, model="m", request="r")
    await holds.settle(held, Charge(Usage(3, 5), class_="batch"))
    after = everything(client)
    for charge in (Charge(Usage(3, 7)), None):
        await holds.settle(held, charge)
    assert everything(client) == after
    hour = held.now_us // 3_600_000_000
    assert client.hgetall(keys.usage("t", "k", hour)) == {
        "m\tbatch\trequests": "1",
        "m\tbatch\tinput_tokens": "3",
        "m\tbatch\toutput_tokens": "5",
    }
    assert 0 < client.ttl(keys.usage("t", "k", hour)) <= 100 * 86_400
    assert client.smembers(keys.used("t", hour)) == {"k"}


async def test_what_cannot_be_settled_is_owed_and_paid(store: Store, holds: Holds, client) -> None:
    """A store that is away loses no usage: it is written when the store is there again."""
    away = Holds(Store("redis://127.0.0.1:1", timeout_ms=50))
    claim = bound_by(tokens_per_day=1_000)
    held = await holds.hold(claim, ONE, model="m", request="r")
    await away.settle(held, Charge(Usage(1, 1)))
    assert await left_of(holds, claim) == {"key:tokens_per_day": 850}
    away._store = store  # it is back
    await away.pay()
    assert await left_of(holds, claim) == {"key:tokens_per_day": 998}
    used = keys.usage("t", "k", held.now_us // 3_600_000_000)
    assert client.hget(used, "m\t\trequests") == "1"


async def test_a_late_settle_charges_what_was_used_once(store: Store) -> None:
    """A hold whose time is over is given back to who asks; settled after that, it is charged."""
    holds, claim = Holds(store, ttl_s=0.02), bound_by(tokens_per_day=1_000, concurrency=1)
    held = await holds.hold(claim, ONE, model="m", request="r")
    assert (await holds.hold(claim, ONE, model="m", request="s")).refusing is not None
    await asyncio.sleep(0.025)  # the store's own clock runs
    assert await left_of(holds, claim) == {"key:tokens_per_day": 1_000, "key:concurrency": 1}
    for _ in range(2):
        await holds.settle(held, Charge(Usage(10, 20)))
        assert await left_of(holds, claim) == {"key:tokens_per_day": 970, "key:concurrency": 1}


async def test_what_runs_is_renewed(store: Store) -> None:
    """A request that runs for longer than its hold lasts keeps it, as long as it is renewed."""
    clock = [0.0]
    holds = Holds(store, ttl_s=0.1, clock=lambda: clock[0])
    claim = bound_by(tokens_per_day=1_000, concurrency=1)
    held = await holds.hold(claim, ONE, model="m", request="r")
    for _ in range(4):
        await asyncio.sleep(0.04)  # the store's own clock runs
        clock[0] += 0.04
        await holds.renew()
    assert await left_of(holds, claim) == {"key:tokens_per_day": 850, "key:concurrency": 0}
    await holds.settle(held)
    clock[0] += 1
    await holds.renew()
    assert await left_of(holds, claim) == {"key:tokens_per_day": 1_000, "key:concurrency": 1}


async def test_limits_admit_exactly_what_they_allow(holds: Holds) -> None:
    """64 at once on a limit of 20: 20 pass, whoever asks first."""
    claim = bound_by(requests_per_minute={"limit": 1, "burst": 20}, concurrency=64)
    said = await asyncio.gather(*(holds.hold(claim, ONE, request=f"r{n}") for n in range(64)))
    refused = [held.refusing for held in said if held.refusing]
    assert len(refused) == 44
    assert all(one.name == "key:requests_per_minute" and one.wait_us > 0 for one in refused)


@pytest.mark.parametrize("kind", sorted(EVERY))
async def test_a_limit_of_nothing_is_never(holds: Holds, client, kind: str) -> None:
    """0 refuses for good and names no wait; looking is still allowed, and nothing is written."""
    claim = bound_by(**{kind: 0})
    refused = await holds.hold(claim, ONE, terms=PRICED, request="r")
    assert refused.refusing is not None
    assert (refused.refusing.wait_us, refused.refusing.left) == (-1, 0)
    assert (await holds.hold(claim)).refusing is None
    assert everything(client) == {}


async def test_a_refusal_takes_nothing(holds: Holds, client) -> None:
    """Neither an unknown key nor a used-up limit writes anything; the wait gets shorter."""
    claim = bound_by(requests_per_minute=1, tokens_per_day=900, concurrency=9)
    unknown = await holds.hold(replace(KEY, proof="wrong"), ONE, request="r0")
    assert (unknown.state, everything(client)) == (State.UNKNOWN, {})
    assert (await holds.hold(claim, ONE, request="r1")).refusing is None
    before = everything(client)
    waits: list[Hold] = [await holds.hold(claim, ONE, request="r2") for _ in range(2)]
    first, second = (held.refusing.wait_us for held in waits if held.refusing)
    assert 0 < second < first
    assert everything(client) == before


async def test_the_tightest_limit_is_named(holds: Holds) -> None:
    """Of all that refuse, the one that refuses longest; a shadow limit is only told."""
    shadow = {"requests_per_minute": 1, "concurrency": 0}
    claim = bound_by(requests_per_minute=1, requests_per_day=1, shadow=shadow)
    first = await holds.hold(claim, ONE, request="r1")
    assert first.refusing is None
    assert [said.name for said in first.would_refuse] == ["key:concurrency"]
    second = await holds.hold(claim, ONE, request="r2")
    assert second.refusing is not None
    assert second.refusing.name == "key:requests_per_day"
    assert [said.name for said in second.would_refuse] == [
        "key:requests_per_minute",
        "key:concurrency",
    ]
