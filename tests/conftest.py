"""What every test may use: a real Valkey with the store on it, and whole gates."""

import copy
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from serve_app.store import EmbeddedStore, Store
from tests.running import ADMIN_KEY, CONFIG, DEFAULT_PROXY, RunningGate, simulated


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


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[Callable[..., RunningGate]]:
    """Make gates that this test alone starts and stops; none of them outlives it."""
    made: list[RunningGate] = []

    def make(config: dict[str, Any], env: dict[str, str] | None = None, **more: Any) -> RunningGate:
        made.append(RunningGate(tmp_path / f"gate{len(made)}", config, env or {}, **more))
        return made[-1]

    yield make
    for gate in made:
        gate.end()


@pytest.fixture(scope="session", params=["haproxy", "default proxy"])
def any_gate(request: pytest.FixtureRequest) -> RunningGate:
    """A gate on the simulated engine, behind each of Serve's proxies in turn."""
    fixture = "gate" if request.param == "haproxy" else "plain_gate"
    found: RunningGate = request.getfixturevalue(fixture)
    return found


@pytest.fixture(scope="session")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGate]:
    """A gate on the simulated engine, behind HAProxy."""
    yield from _running(tmp_path_factory.mktemp("gate"), simulated(), {})


@pytest.fixture(scope="session")
def plain_gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGate]:
    """A gate on the simulated engine, behind Serve's default proxy."""
    yield from _running(tmp_path_factory.mktemp("plain"), simulated(), DEFAULT_PROXY)


@pytest.fixture(scope="session")
def real_gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGate]:
    """A gate on real vLLM with the builtin model, behind HAProxy."""
    pytest.importorskip("vllm", reason="vLLM is not installed: a gateway-only machine")
    yield from _running(tmp_path_factory.mktemp("real"), copy.deepcopy(CONFIG), {}, 600)


def _running(
    folder: Path, config: dict[str, Any], env: dict[str, str], limit_s: float = 120
) -> Iterator[RunningGate]:
    running = RunningGate(folder, config, {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY, **env})
    running.start()
    try:
        yield running.ready(limit_s)
    finally:
        running.stop()
