import asyncio

import pytest
import redis
import redis.asyncio

from serve_app.errors import StoreUnavailable
from serve_app.store import Store, keys


async def test_a_step_called_with_the_wrong_counts_is_caught(store: Store) -> None:
    """A header is a contract: callers who break it hear at once."""
    with pytest.raises(TypeError, match="hold takes"):
        await store.run("hold", ["one"], [])


async def test_a_step_runs_on_a_server_that_has_never_seen_it(store: Store, store_url: str) -> None:
    """A script the server forgot is sent whole; the caller does not notice."""
    with redis.Redis.from_url(store_url) as client:
        client.script_flush()
    assert await store.run("key_drop", [keys.key_record("t", "k"), keys.key_index("t")], ["k"]) == 0


async def test_a_published_message_is_heard(store: Store, store_url: str) -> None:
    """What is published on a channel reaches whoever hears it."""
    heard = store.hear("sg:wake:test")
    listening = asyncio.create_task(anext(heard))
    client = redis.asyncio.Redis.from_url(store_url)
    while not await client.publish("sg:wake:test", "now"):
        await asyncio.sleep(0.01)  # until the subscription is there
    assert await asyncio.wait_for(listening, 5) == "now"
    await heard.aclose()
    await client.aclose()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        pytest.param("redis://127.0.0.1:1/0", "cannot be reached", id="nobody there"),
        pytest.param("redis://:wrong@{at}/0", "refuses our user or password", id="wrong password"),
        pytest.param("redis://nobody:x@{at}/0", "refuses our user or password", id="wrong user"),
    ],
)
async def test_every_failure_is_one_refusal(store_url: str, url: str, says: str) -> None:
    """Whatever goes wrong on the way is StoreUnavailable, and says what to look at."""
    at = store_url.rpartition("@")[2].removesuffix("/0")
    broken = Store(url.format(at=at), timeout_ms=500)
    with pytest.raises(StoreUnavailable, match=says) as told:
        await broken.ping()
    assert told.value.retry_after_s == 1.0
    assert "wrong" not in str(told.value)
    await broken.close()


async def test_more_calls_than_connections_wait_for_one(store: Store) -> None:
    """500 at once on a healthy store: all are answered."""
    told = await asyncio.gather(*(store.ping() for _ in range(500)), return_exceptions=True)
    assert told == [None] * 500
