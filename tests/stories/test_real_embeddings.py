"""An embedding model on real vLLM beside a chat model, each with its own replicas and line."""

import copy
import math
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.clients import installed
from tests.running import ADMIN_KEY, RunningGate, chat, simulated, until

EMBEDS, PATH = "all-minilm-l6-v2", "/v1/embeddings"
TEXTS = ["A cat sleeps on the sofa.", "A kitten naps on the couch.", "The tax return is due."]


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGate]:
    pytest.importorskip("vllm", reason="vLLM is not installed: a gateway-only machine")
    config = simulated()
    models = config["applications"][0]["args"]["models"]
    one = {"min_replicas": 1, "max_replicas": 1}
    models.append(copy.deepcopy(models[0]) | {
        "name": EMBEDS, "source": f"builtin:{EMBEDS}", "engine": "vllm", "autoscaling": one,
        "engine_args": {"runner": "pooling", "dtype": "float32", "enforce_eager": True},
        "env": {"VLLM_CPU_KVCACHE_SPACE": "1"},
    })  # fmt: skip
    folder = tmp_path_factory.mktemp("embeddings")
    found = os.pathsep.join(
        [str(installed.models()), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    env = {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY, "PYTHONPATH": found}
    running = RunningGate(folder, config, env).start()
    try:
        yield running.ready(600)
    finally:
        running.stop()


def must_be_near(told: httpx.Response) -> None:
    """Two sentences of one meaning lie closer than two of different ones."""
    assert told.status_code == 200, told.text
    first, second, other = (one["embedding"] for one in told.json()["data"])
    assert len(first) == 384
    assert cosine(first, second) > 0.5 > cosine(first, other)
    assert told.json()["usage"]["prompt_tokens"] > 10


def cosine(one: list[float], other: list[float]) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / math.hypot(*one) / math.hypot(*other)


def body(**more: Any) -> dict[str, Any]:
    return {"model": EMBEDS, "input": TEXTS, **more}


def test_the_builtin_model_embeds(gate: RunningGate) -> None:
    """Its engine runs it as a pooling model, and the chat model beside it answers."""
    (at,) = gate.replicas(EMBEDS).values()
    must_be_near(httpx.post(f"{at.url}{PATH}", json=body(), headers=at.headers, timeout=60))
    with gate.client() as client:
        assert client.get("/health/ready").json()["models"] == dict.fromkeys(
            ("smollm2-135m", EMBEDS), "ready"
        )
        assert client.post("/v1/chat/completions", json=chat()).status_code == 200


def test_embeddings_through_the_gate(gate: RunningGate) -> None:
    """The same, for a caller with a key that may use this model alone; its input is charged."""
    with gate.client(gate.new_key(models=[EMBEDS])) as client:
        must_be_near(told := client.post(PATH, json=body()))

        def used() -> dict[str, Any]:
            totals: dict[str, Any] = client.get("/v1/usage").json()["totals"]
            return totals

        until(lambda: used()["requests"], 10, "the settlement")
        charged = used()
        assert charged["input_tokens"] == told.json()["usage"]["prompt_tokens"]
        assert (charged["requests"], charged["output_tokens"]) == (1, 0)
        assert client.post("/v1/chat/completions", json=chat()).status_code == 403
