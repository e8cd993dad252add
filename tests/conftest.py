"""What every test may use: a real Valkey of its own, and the store on it."""

from collections.abc import AsyncIterator, Iterator

import pytest
import redis

from serve_app.store import EmbeddedStore, Store


@pytest.fixture(scope="session")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real Valkey that runs for this session."""
    embedded = EmbeddedStore(tmp_path_factory.mktemp("valkey"))
    yield embedded.url
    embedded.stop()


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """The store, empty. Its patience is long: the machine under a test may be busy."""
    with redis.Redis.from_url(store_url) as client:
        client.flushall()
    opened = Store(store_url, timeout_ms=5_000)
    yield opened
    await opened.close()
