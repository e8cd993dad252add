"""Where responses are kept: whose they are, how many, for how long; on every kind of store."""

import json

import pytest
import redis

from serve_app.queueing import Kept, Place, kept
from serve_app.store import Address, Store, keys, registry

HERE = Address("127.0.0.1", 1, "k")


async def test_a_response_is_found_by_its_maker_while_its_replica_lives(any_store: Store) -> None:
    """By the same caller of the same tenant; withdrawn, the replica takes its responses along."""
    found = Kept(any_store)
    await registry.beat(any_store, "m", "r1", 4, HERE)
    await found.note("acme", "ada", "resp_1", model="m", asked="poet", replica="r1")
    assert await found.find("acme", "ada", "resp_1") == Place("m", "poet", "r1", HERE)
    assert await found.find("acme", "bob", "resp_1") is None
    assert await found.find("other", "ada", "resp_1") is None
    assert await found.find("acme", "ada", "resp_2") is None
    await registry.withdraw(any_store, "m", "r1")
    assert await found.find("acme", "ada", "resp_1") is None


async def test_of_too_many_the_oldest_are_forgotten(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenant never has more than it may; another tenant's are not touched."""
    monkeypatch.setattr(kept, "MOST", 3)
    found = Kept(store)
    await registry.beat(store, "m", "r1", 4, HERE)
    await found.note("other", "ada", "resp_0", model="m", asked="m", replica="r1")
    for at in range(6):
        await found.note("acme", "ada", f"resp_{at}", model="m", asked="m", replica="r1")
    here = [await found.find("acme", "ada", f"resp_{at}") for at in range(6)]
    assert [place is not None for place in here] == [False] * 3 + [True] * 3
    assert await found.find("other", "ada", "resp_0") is not None


async def test_what_is_old_is_forgotten(store: Store, store_url: str) -> None:
    """With the next that is noted; and all of a tenant's when none is noted any more."""
    hash_, since = keys.responses("acme")
    place = json.dumps(["m", "m", "r1", "ada"])
    await store.run("response_keep", [hash_, since], ["old", place, 60, 10])
    await store.add_score(since, "older", 1.0)
    count = await store.run("response_keep", [hash_, since], ["new", place, 60, 10])
    assert count == 2
    assert await store.fields(hash_, "old", "new") == [place, place]
    with redis.Redis.from_url(store_url) as client:
        assert all(0 < client.ttl(key) <= 60 for key in (hash_, since))
