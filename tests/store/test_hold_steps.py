"""The limit's steps in the store and their pure twin stay equal."""

import asyncio
from dataclasses import dataclass, replace

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.limits import Holds, Outcome, Rate, State, Taken, Usage, give_back, take_all
from serve_app.store import Store, keys

RECORD, TENANT = keys.key_record("t", "k"), keys.tenant_record("t")
BUCKET, TENANT_BUCKET = keys.request_bucket("t", "k"), keys.tenant_bucket("t")
SECOND_US = 10**6


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


@settings(max_examples=300, deadline=None)
@given(
    ahead_us=st.tuples(*[st.integers(-(10**7), 3 * 10**7)] * 2),
    rpm=st.tuples(*[st.integers(1, 100_000)] * 2),
    burst=st.tuples(*[st.integers(1, 50)] * 2),
    cost=st.integers(0, 60),
    back=st.booleans(),
)
def test_hold_and_settle_do_what_their_twins_do(
    store_url, ahead_us, rpm, burst, cost, back
) -> None:
    """The step tells the time it used; at that time the twin says the same of both buckets."""

    async def both() -> None:
        store = Store(store_url, timeout_ms=10_000)
        with redis.Redis.from_url(store_url) as client:
            client.flushall()
            seconds, us = client.time()
            tats_us = [seconds * SECOND_US + us + ahead for ahead in ahead_us]
            client.mset(dict(zip((BUCKET, TENANT_BUCKET), tats_us, strict=True)))
            client.hset(RECORD, mapping={"sha256": "s", "limits": f"r {rpm[0]} {burst[0]} 0"})
            client.hset(TENANT, mapping={"attributes": "{}", "limits": f"r {rpm[1]} {burst[1]} 0"})
            holds = Holds(store, default="r 1 1 0")
            held = await holds.hold(KEY, cost=cost)
            rates = [Rate.per_minute(*pair) for pair in zip(rpm, burst, strict=True)]
            buckets = list(zip(tats_us, rates, strict=True))
            said, tightest, new_us = take_all(buckets, held.now_us, cost)
            assert held.allowed == said.allowed
            assert (held.scope, held.remaining, held.retry_after_us, held.reset_after_us) == (
                ("key", "tenant")[tightest],
                said.remaining,
                said.retry_after_us,
                said.reset_after_us,
            )
            if held.allowed and cost == 1 and back:
                await holds.settle(
                    held, request_id="1", model="m", outcome=Outcome.RETURNED, usage=Usage()
                )
                new_us = [
                    give_back(tat_us, held.now_us, rate, tat_us)
                    for tat_us, rate in zip(new_us, rates, strict=True)
                ]
            if held.allowed and cost:
                for name, tat_us in zip((BUCKET, TENANT_BUCKET), new_us, strict=True):
                    if tat_us - held.now_us > SECOND_US:  # else it may have expired by now
                        assert int(client.get(name) or 0) == tat_us
        await store.close()

    asyncio.run(both())


def told(**fields: object) -> dict[str, object]:
    return {"attributes": "{}", **fields}


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
        pytest.param(USER, None, State.REVOKED, id="no such user"),
        pytest.param(USER, told(), State.KNOWN, id="a user"),
        pytest.param(USER, told(disabled="0"), State.KNOWN, id="an enabled user"),
        pytest.param(USER, told(disabled="1"), State.REVOKED, id="a disabled user"),
        pytest.param(USER, told(not_before_ms=1_000), State.KNOWN, id="issued just then"),
        pytest.param(USER, told(not_before_ms=1_001), State.REVOKED, id="issued before"),
        pytest.param(ANYONE, None, State.KNOWN, id="vouched for"),
        pytest.param(
            replace(ANYONE, tenant_must_exist=True), None, State.NO_TENANT, id="of no tenant"
        ),
    ],
)
async def test_who_is_known(store: Store, store_url: str, claim: Claim, record, state) -> None:
    """The record decides, in the store's time; whoever is not known takes nothing."""
    name = keys.user_record("t", claim.user) if claim.user else RECORD
    with redis.Redis.from_url(store_url) as client:
        if record is not None:
            client.hset(name, mapping=record)
        held = await Holds(store, default="r 5 5 0").hold(claim, cost=1)
        assert held.state is state
        assert held.allowed == (state is State.KNOWN)
        assert bool(client.exists(BUCKET)) == held.allowed


@pytest.mark.parametrize("claim", [USER, replace(ANYONE, token_id="j1")], ids=["session", "token"])
async def test_a_revoked_token_is_revoked_at_once(store: Store, store_url, claim: Claim) -> None:
    """Its mark is read in the same call; another tenant's mark of that name is not its own."""
    holds = Holds(store, default="r 5 5 0")
    with redis.Redis.from_url(store_url) as client:
        client.hset(keys.user_record("t", "ada"), mapping=told())
        client.set(keys.revoked("other", "j1"), 1)
        assert (await holds.hold(claim, cost=0)).state is State.KNOWN
        client.set(keys.revoked("t", "j1"), 1)
        assert (await holds.hold(claim, cost=0)).state is State.REVOKED


async def test_the_last_use_is_noted_once_a_minute(store: Store, store_url: str) -> None:
    """One write a minute and key, whatever the traffic; wrong secrets are no use."""
    holds = Holds(store, default="r 100 100 0")
    with redis.Redis.from_url(store_url, decode_responses=True) as client:
        client.hset(RECORD, mapping=told(sha256="s"))
        await holds.hold(replace(KEY, proof="wrong"), cost=1)
        assert client.hget(RECORD, "used_ms") is None
        first = await holds.hold(KEY, cost=1)
        noted_ms = int(client.hget(RECORD, "used_ms") or 0)
        assert noted_ms == first.now_us // 1_000
        await holds.hold(KEY, cost=1)
        assert client.hget(RECORD, "used_ms") == str(noted_ms)
        client.hset(RECORD, "used_ms", noted_ms - 60_000)
        await holds.hold(KEY, cost=1)
        assert int(client.hget(RECORD, "used_ms") or 0) >= noted_ms


async def test_both_buckets_or_neither(store: Store, store_url: str) -> None:
    """A tenant's limit binds all its callers; who is refused by it takes nothing of its own."""
    holds = Holds(store, default="r 100 100 0")
    with redis.Redis.from_url(store_url) as client:
        client.hset(TENANT, mapping=told(limits="r 2 2 0"))
        callers = [replace(ANYONE, key_id=name, bucket=name) for name in ("a", "b", "c")]
        said = [await holds.hold(claim, cost=1) for claim in callers]
        assert [held.allowed for held in said] == [True, True, False]
        assert (said[2].scope, said[2].limit_rpm, said[2].taken) == (
            "tenant",
            2,
            (Taken(), Taken()),
        )
        assert not client.exists(keys.request_bucket("t", "c"))
        for at in (0, 1):
            await holds.settle(
                said[at], request_id=str(at), model="m", outcome=Outcome.RETURNED, usage=Usage()
            )
        assert (await holds.hold(callers[2], cost=1)).allowed, "what was given back is there"


async def test_a_request_is_settled_once(store: Store, store_url: str) -> None:
    """A second settle writes nothing, whatever it says."""
    holds = Holds(store, default="r 600 600 0")
    held = await holds.hold(ANYONE, cost=1)
    for output in (5, 7):
        await holds.settle(
            held, request_id="r", model="m", outcome=Outcome.USED, usage=Usage(3, output)
        )
    with redis.Redis.from_url(store_url, decode_responses=True) as client:
        (name,) = client.keys("*usage*")
        assert client.hgetall(name) == {
            "m:requests": "1",
            "m:input_tokens": "3",
            "m:output_tokens": "5",
        }
        assert 0 < client.ttl(name) <= 100 * 86_400


async def test_what_cannot_be_settled_is_owed_and_paid(store: Store) -> None:
    """A store that is away loses no usage: it is written when the store is there again."""
    away = Holds(Store("redis://127.0.0.1:1", timeout_ms=50), default="r 600 600 0")
    here = Holds(store, default="r 600 600 0")
    held = await here.hold(ANYONE, cost=1)
    await away.settle(held, request_id="r", model="m", outcome=Outcome.USED, usage=Usage(1, 1))
    away._store = store  # it is back
    await away.pay()
    assert await store.fields(keys.usage("t", "k", held.now_us // 3_600_000_000), "m:requests") == [
        "1"
    ]


async def test_limits_admit_exactly_what_they_allow(store: Store) -> None:
    """64 at once on a limit of 20 a minute: 20 pass, whoever asks first."""
    holds = Holds(store, default="r 20 20 0")
    said = await asyncio.gather(*(holds.hold(ANYONE, cost=1) for _ in range(64)))
    assert sum(held.allowed for held in said) == 20
    assert all(held.retry_after_us > 0 for held in said if not held.allowed)


async def test_a_limit_of_nothing_is_never(store: Store) -> None:
    """0 a minute refuses for good and names no wait; looking is still allowed."""
    holds = Holds(store, default="r 0 0 0")
    refused = await holds.hold(ANYONE, cost=1)
    looked = await holds.hold(ANYONE, cost=0)
    assert (refused.allowed, refused.retry_after_us, looked.allowed) == (False, -1, True)


async def test_a_refusal_takes_nothing(store: Store) -> None:
    """Neither an unknown key nor a used-up bucket writes anything."""
    holds = Holds(store, default="r 1 1 0")
    unknown = await holds.hold(replace(KEY, proof="wrong"), cost=1)
    assert unknown.state is State.UNKNOWN
    first = await holds.hold(ANYONE, cost=1)
    second = await holds.hold(ANYONE, cost=1)
    third = await holds.hold(ANYONE, cost=1)
    assert (first.allowed, second.allowed, third.allowed) == (True, False, False)
    assert third.retry_after_us <= second.retry_after_us
