"""The names of the simulated engine: aliases and LoRA adapters, as vLLM has them."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.engine.test_simulated_server import CHAT, FAST, running


@pytest.fixture(scope="module")
def engine() -> Iterator[httpx.Client]:
    options = ("gpt", "other", "--enable-lora", "--lora-modules", "first=org/first")
    with running(FAST, *options) as (url, _), httpx.Client(base_url=url) as client:
        yield client


def said(engine: httpx.Client, model: str) -> tuple[str, str]:
    """The name that a reply carries, and its text."""
    told = engine.post("/v1/chat/completions", json={**CHAT, "model": model})
    assert told.status_code == 200, told.text
    return told.json()["model"], told.json()["choices"][0]["message"]["content"]


def cards(engine: httpx.Client) -> dict[str, tuple[str, str | None]]:
    data = engine.get("/v1/models").json()["data"]
    return {one["id"]: (one["root"], one["parent"]) for one in data}


def test_an_alias_is_the_model(engine: httpx.Client) -> None:
    """The same text under each name; the reply carries the first one, as vLLM's does."""
    assert said(engine, "sim") == said(engine, "gpt") == said(engine, "other")
    assert said(engine, "gpt")[0] == "sim"


def test_an_adapter_speaks_otherwise_and_under_its_name(engine: httpx.Client) -> None:
    """Named at the start, it is there; its text is not the model's."""
    name, text = said(engine, "first")
    assert name == "first"
    assert text != said(engine, "sim")[1]
    streamed = engine.post("/v1/chat/completions", json={**CHAT, "model": "first", "stream": True})
    assert json.loads(streamed.text.partition("\n")[0].removeprefix("data: "))["model"] == "first"


def test_adapters_come_and_go(engine: httpx.Client, tmp_path: Path) -> None:
    """Loaded while it runs, listed under its parent, unloaded; each mistake in vLLM's words."""

    def do(step: str, **body: str) -> tuple[int, str]:
        told = engine.post(f"/v1/{step}_lora_adapter", json=body)
        return told.status_code, told.text

    second = {"lora_name": "second", "lora_path": str(tmp_path)}
    assert do("load", **second) == (200, "Success: LoRA adapter 'second' added successfully.")
    assert cards(engine)["second"] == (str(tmp_path), "sim")
    assert said(engine, "second")[1] not in (said(engine, "first")[1], said(engine, "sim")[1])
    for body, status in (
        (second, 400),
        ({"lora_name": "gpt", "lora_path": "x"}, 400),
        ({"lora_name": "third", "lora_path": "/no/such/folder"}, 404),
        ({"lora_name": "third"}, 400),
    ):
        assert do("load", **body)[0] == status
    assert do("unload", lora_name="second")[0] == 200
    assert do("unload", lora_name="second")[0] == 404
    assert set(cards(engine)) == {"sim", "gpt", "other", "first"}
    refused = engine.post("/v1/chat/completions", json={**CHAT, "model": "second"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (404, "model")


def test_without_adapters_there_are_no_such_routes() -> None:
    """As in vLLM, unless it was told that they may come."""
    with running(FAST) as (url, _):
        body = {"lora_name": "x", "lora_path": "x"}
        assert httpx.post(f"{url}/v1/load_lora_adapter", json=body).status_code == 404
