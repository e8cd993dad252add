"""What every test may use: a real Valkey with the store on it, and whole gates."""

import copy
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import redis

from serve_app.store import EmbeddedStore, Store
from tests.running import ADMIN_KEY, CONFIG, DEFAULT_PROXY, RunningGate, patient, simulated
from tests.stores import Cluster, Sentinels

for name, drawn_alike in (("here", False), ("ci", True)):  # what fails there fails again, and here
    hypothesis.settings.register_profile(name, derandomize=drawn_alike, deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")


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


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A real Redis Cluster of three primaries that runs for this session."""
    started = Cluster(tmp_path_factory.mktemp("cluster"))
    yield started
    started.end()


@pytest.fixture(scope="session")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    """A real primary, its replica and a sentinel that run for this session."""
    started = Sentinels(tmp_path_factory.mktemp("sentinels"))
    yield started
    started.end()


@pytest.fixture(scope="session")
def cluster_url(cluster: Cluster) -> str:
    """The URL of a real Redis Cluster."""
    return cluster.url


@pytest.fixture(scope="session")
def sentinel_url(sentinels: Sentinels) -> str:
    """The URL of a real store behind Sentinel."""
    return sentinels.url


@pytest.fixture(params=["single", "cluster", "sentinel"])
def any_store_url(request: pytest.FixtureRequest) -> str:
    """The URL of a real store, empty, without scripts: one server, a cluster, behind Sentinel."""
    if request.param == "single":
        url: str = request.getfixturevalue("store_url")
        with redis.Redis.from_url(url) as client:
            client.flushall()
            client.script_flush()
        return url
    fixture = {"cluster": "cluster", "sentinel": "sentinels"}[request.param]
    kind: Cluster | Sentinels = request.getfixturevalue(fixture)
    kind.flush()
    return kind.url


@pytest.fixture
async def any_store(any_store_url: str) -> AsyncIterator[Store]:
    """The store, empty, on each kind of server in turn."""
    opened = Store(any_store_url, timeout_ms=5_000)
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
    config = patient(copy.deepcopy(CONFIG))
    (model,) = config["applications"][0]["args"]["models"]
    model["autoscaling"] = {"min_replicas": 1, "max_replicas": 1}  # two engines starve two cores
    model["env"] = {**model.get("env", {}), "VLLM_ENABLE_RESPONSES_API_STORE": "1"}
    yield from _running(tmp_path_factory.mktemp("real"), config, {}, 600)


def _running(
    folder: Path, config: dict[str, Any], env: dict[str, str], limit_s: float = 120
) -> Iterator[RunningGate]:
    running = RunningGate(folder, config, {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY, **env})
    running.start()
    try:
        yield running.ready(limit_s)
    finally:
        running.stop()
