"""The limit's steps in the store and their pure twin stay equal."""

import asyncio

import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.limits import Holds, Outcome, Rate, Usage, give_back, take
from serve_app.store import Store, keys

RECORD, BUCKET = keys.key_record("t", "k"), keys.request_bucket("t", "k")


@settings(max_examples=300, deadline=None)
@given(
    ahead_us=st.integers(-(10**7), 3 * 10**7),
    rpm=st.integers(1, 100_000),
    burst=st.integers(1, 50),
    cost=st.integers(0, 60),
    back=st.booleans(),
)
def test_hold_and_settle_do_what_their_twins_do(
    store_url, ahead_us, rpm, burst, cost, back
) -> None:
    """The step tells the time it used; at that time the twin says the same."""

    async def both() -> None:
        store = Store(store_url, timeout_ms=10_000)
        with redis.Redis.from_url(store_url) as client:
            client.flushall()
            seconds, us = client.time()
            tat_us = seconds * 10**6 + us + ahead_us
            client.set(BUCKET, tat_us)
            client.hset(RECORD, mapping={"sha256": "s", "rpm": rpm, "burst": burst})
            holds = Holds(store, default_rpm=1)
            held = await holds.hold(tenant="t", key_id="k", sha256="s", cost=cost)
            rate = Rate.per_minute(rpm, burst)
            said, new_tat_us = take(tat_us, held.now_us, rate, cost)
            assert (held.allowed, held.remaining, held.retry_after_us, held.reset_after_us) == (
                said.allowed,
                said.remaining,
                said.retry_after_us,
                said.reset_after_us,
            )
            if said.allowed and cost == 1 and back and new_tat_us - held.now_us > 10**6:
                await holds.settle(
                    held, request_id="1", model="m", outcome=Outcome.RETURNED, usage=Usage()
                )
                expected = give_back(new_tat_us, held.now_us, rate, new_tat_us)
                assert int(client.get(BUCKET) or 0) in {expected, 0}
            elif said.allowed and cost and new_tat_us - held.now_us > 50_000:
                assert int(client.get(BUCKET)) == new_tat_us
        await store.close()

    asyncio.run(both())


async def test_a_request_is_settled_once(store: Store, store_url: str) -> None:
    """A second settle writes nothing, whatever it says."""
    holds = Holds(store, default_rpm=600)
    held = await holds.hold(tenant="t", key_id="k", sha256="", cost=1)
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
    away = Holds(Store("redis://127.0.0.1:1", timeout_ms=50), default_rpm=600)
    here = Holds(store, default_rpm=600)
    held = await here.hold(tenant="t", key_id="k", sha256="", cost=1)
    await away.settle(held, request_id="r", model="m", outcome=Outcome.USED, usage=Usage(1, 1))
    away._store = store  # it is back
    await away.pay()
    assert await store.fields(keys.usage("t", "k", held.now_us // 3_600_000_000), "m:requests") == [
        "1"
    ]


async def test_limits_admit_exactly_what_they_allow(store: Store) -> None:
    """64 at once on a limit of 20 a minute: 20 pass, whoever asks first."""
    holds = Holds(store, default_rpm=20)
    told = await asyncio.gather(
        *(holds.hold(tenant="t", key_id="k", sha256="", cost=1) for _ in range(64))
    )
    assert sum(held.allowed for held in told) == 20
    assert all(held.retry_after_us > 0 for held in told if not held.allowed)


async def test_a_limit_of_nothing_is_never(store: Store) -> None:
    """0 a minute refuses for good and names no wait; looking is still allowed."""
    holds = Holds(store, default_rpm=0)
    refused = await holds.hold(tenant="t", key_id="k", sha256="", cost=1)
    looked = await holds.hold(tenant="t", key_id="k", sha256="", cost=0)
    assert (refused.allowed, refused.retry_after_us, looked.allowed) == (False, -1, True)


async def test_a_refusal_takes_nothing(store: Store) -> None:
    """Neither an unknown key nor a used-up bucket writes anything."""
    holds = Holds(store, default_rpm=1)
    unknown = await holds.hold(tenant="t", key_id="k", sha256="wrong", cost=1)
    assert not unknown.known
    assert await store.run("key_page", [keys.key_index("t")], [0, 10]) == []
    first = await holds.hold(tenant="t", key_id="k", sha256="", cost=1)
    second = await holds.hold(tenant="t", key_id="k", sha256="", cost=1)
    third = await holds.hold(tenant="t", key_id="k", sha256="", cost=1)
    assert (first.allowed, second.allowed, third.allowed) == (True, False, False)
    assert third.retry_after_us <= second.retry_after_us
