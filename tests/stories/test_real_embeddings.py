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


SCORES = {"text_1": TEXTS[0], "text_2": TEXTS[1:]}
RANKS = {"query": TEXTS[0], "documents": TEXTS[:0:-1]}


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/score", SCORES),
        ("/v1/score", {"text_1": TEXTS, "text_2": TEXTS}),
        ("/v1/rerank", RANKS),
        ("/v1/rerank", RANKS | {"top_n": 1}),
        ("/v1/score", {"text_1": TEXTS, "text_2": TEXTS[:2]}),
        ("/v1/rerank", RANKS | {"documents": 7}),
    ],
)
def test_scores_and_ranks_are_the_engines(
    gate: RunningGate, path: str, asked: dict[str, Any]
) -> None:
    """Field by field, good and bad; what they tell is charged, and they are one request each."""
    (at,) = gate.replicas(EMBEDS).values()
    asked = {"model": EMBEDS} | asked
    own = httpx.post(at.url + path, json=asked, headers=at.headers, timeout=60)
    with gate.client(gate.new_key(models=[EMBEDS])) as client:
        told = client.post(path, json=asked)
        assert told.status_code == own.status_code
        assert lasting(told.json()) == lasting(own.json())
        if told.status_code == 200:
            until(lambda: client.get("/v1/usage").json()["totals"]["requests"], 10, "settlement")
            charged = client.get("/v1/usage").json()["totals"]["input_tokens"]
            assert charged == told.json()["usage"]["prompt_tokens"] > 10


def lasting(told: dict[str, Any]) -> dict[str, Any]:
    """What two answers to one question have in common."""
    return {name: said for name, said in told.items() if name not in ("id", "created")}


def test_the_nearest_document_comes_first(gate: RunningGate) -> None:
    """Scores tell meaning: the kitten is nearer to the cat than the tax return."""
    with gate.client() as client:
        near, far = client.post("/v1/score", json={"model": EMBEDS} | SCORES).json()["data"]
        assert near["score"] > 0.5 > far["score"]
        first, _ = client.post("/v1/rerank", json={"model": EMBEDS} | RANKS).json()["results"]
        assert (first["index"], first["document"]["text"]) == (1, TEXTS[1])


@pytest.mark.parametrize(("path", "asked"), [("/v1/score", SCORES), ("/v1/rerank", RANKS)])
def test_scores_and_ranks_are_limited(gate: RunningGate, path: str, asked: dict[str, Any]) -> None:
    """Tokens as those of any prompt; a key that may not use the model is told so."""
    body = {"model": EMBEDS} | asked
    with gate.client(gate.new_key(limits={"tokens_per_minute": 40})) as client:
        codes = [client.post(path, json=body).status_code for _ in range(4)]
        assert (codes[0], codes[-1]) == (200, 429)
    with gate.client(gate.new_key(models=["smollm2-135m"])) as client:
        told = client.post(path, json=body)
        assert (told.status_code, told.json()["error"]["code"]) == (403, "model_not_allowed")


def test_a_model_that_only_chats_scores_nothing(gate: RunningGate) -> None:
    """Nor does one that embeds chat: the path is named, in our errors' shape."""
    with gate.client() as client:
        told = client.post("/v1/chat/completions", json=chat() | {"model": EMBEDS})
        error = told.json()["error"]
        assert (told.status_code, error["code"]) == (404, "not_found")
        assert f"'{EMBEDS}' does not serve /v1/chat/completions" in error["message"]
