"""Aliases and LoRA adapters on real vLLM; the adapters are made here, with random weights."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serve_app.engine import resolve
from serve_app.model_settings import Model
from tests.lora import RANK, make_adapter
from tests.running import ADMIN_KEY, CONFIG, RunningGate, chat, patient

GOOD, ALIAS, FIRST = "smollm2-135m", "gpt-4o-mini", "first"


@pytest.fixture(scope="module")
def base() -> Path:
    """The folder of the builtin model."""
    pytest.importorskip("vllm", reason="vLLM is not installed: a gateway-only machine")
    return Path(resolve(Model(name=GOOD)))


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[RunningGate]:
    folder = tmp_path_factory.mktemp("adapters")
    made = make_adapter(base, folder / "made" / FIRST)
    config = patient(copy.deepcopy(CONFIG))
    (model,) = config["applications"][0]["args"]["models"]
    model["autoscaling"] = {"min_replicas": 1, "max_replicas": 1}
    model["engine_args"] |= {"max_lora_rank": RANK, "max_loras": 2}
    model |= {"aliases": [ALIAS], "adapters": [{"name": FIRST, "source": str(made)}]}
    running = RunningGate(folder / "gate", config, {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY}).start()
    try:
        yield running.ready(600)
    finally:
        running.stop()


def said(gate: RunningGate, model: str, **more: Any) -> tuple[str, str]:
    """The name in a reply, and its text; the same for the same weights."""
    body = chat("What is the capital of France?", model=model, max_tokens=16, temperature=0, **more)
    with gate.openai() as client:
        told = client.chat.completions.create(**body)
    return told.model, told.choices[0].message.content or ""


def test_an_alias_is_the_model(gate: RunningGate) -> None:
    """The engine takes it as it stands in the client's bytes, and answers with the model's name."""
    assert said(gate, ALIAS) == said(gate, GOOD)
    assert said(gate, GOOD)[0] == GOOD


def test_adapters_speak_otherwise(gate: RunningGate, base: Path, tmp_path: Path) -> None:
    """One of the settings, one loaded while it serves: three voices; what is no adapter is refused.

    Unloaded, it is unknown.
    """
    second = make_adapter(base, tmp_path / "second", seed=2)
    with gate.client() as admin:
        made = admin.post("/v1/adapters", json={
            "model": GOOD, "name": "second", "source": str(second),
        })  # fmt: skip
        assert (made.status_code, made.json()["replicas"]) == (201, 1), made.text
        told = [said(gate, name) for name in (GOOD, FIRST, "second")]
        assert [name for name, _ in told] == [GOOD, FIRST, "second"]
        assert len({text for _, text in told}) == 3
        assert "Paris" in told[0][1]
        listed = {one["id"] for one in admin.get("/v1/models").json()["data"]}
        assert listed == {GOOD, ALIAS, FIRST, "second"}
        nothing = {"model": GOOD, "name": "third", "source": str(tmp_path / "nothing")}
        refused = admin.post("/v1/adapters", json=nothing)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "source")
        assert admin.delete("/v1/adapters/second").status_code == 204
        gone = admin.post("/v1/chat/completions", json=chat(model="second"))
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")
    assert said(gate, FIRST) == told[1], "the other one stays"
