"""Several models in one application: names, aliases, adapters, and one that cannot be started."""

import copy
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import psutil
import pytest

from tests.running import ADMIN_KEY, RunningGate, chat, simulated, until

GOOD, ALIAS, BAD, FIRST = "smollm2-135m", "gpt-4o-mini", "org/broken", "first"
TRIES = 3
"""So often Serve tries to start a deployment of one replica."""


def with_a_broken_one() -> dict[str, Any]:
    """Two models; the engine of one ends at once, because of an option that it does not take."""
    two = {"min_replicas": 2, "max_replicas": 2}
    named = {"aliases": [ALIAS, "gpt-4o"], "adapters": [{"name": FIRST, "source": "org/first"}]}
    config = simulated(autoscaling=two, **named)
    models = config["applications"][0]["args"]["models"]
    bad = {"name": BAD, "aliases": ["broken"], "adapters": []}
    bad |= {"engine_args": {"max_num_seqs": 0}, "autoscaling": {"max_replicas": 1}}
    models.insert(0, copy.deepcopy(models[0]) | bad)
    return config


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGate]:
    env = {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY}
    running = RunningGate(tmp_path_factory.mktemp("models"), with_a_broken_one(), env).start()
    try:
        yield running.ready()
    finally:
        running.stop()


def serves(gate: RunningGate) -> bool:
    with gate.client() as client:
        return client.post("/v1/chat/completions", json=chat()).status_code == 200


def refusal(gate: RunningGate, model: str) -> httpx.Response:
    with gate.client() as client:
        return client.post("/v1/chat/completions", json=chat(model=model))


def tries(gate: RunningGate) -> int:
    """How often the broken engine was started, by its logs."""
    return len([*(gate.data / "logs").glob("engine-org_broken-*.log")])


def heals(gate: RunningGate) -> None:
    """Kill the good one's engine; Serve starts another, though it has given up the application."""
    port = gate.engine().port
    (engine,) = (
        pid for pid in gate.family() if f"--port {port}" in " ".join(psutil.Process(pid).cmdline())
        and "serve_app.engine.simulated" in psutil.Process(pid).cmdline()
        and "serve_app.reaper" not in psutil.Process(pid).cmdline()
    )  # fmt: skip
    psutil.Process(engine).send_signal(signal.SIGKILL)
    until(lambda: all(one.port != port for one in gate.replicas().values()), 20, "its end")
    until(lambda: len(gate.replicas()) == 2, 60, "another in its place")
    assert serves(gate)


def test_one_that_cannot_be_started_takes_no_other_down(gate: RunningGate) -> None:
    """The good one serves before, while and after Serve tries to start the other, and heals.

    What is wrong is said: at the start, in readiness, in the list of models and to who asks for it,
    at once.
    """
    assert "Of several models, a model failed to start: " in gate.said()
    assert "must be 1 to 65536, got '0'; see " in gate.said()
    assert f'"model": "{GOOD}"' in gate.said(), "the line to paste names one that serves"
    assert serves(gate)
    until(lambda: tries(gate) == TRIES and serves(gate), 90, "Serve's last try")
    until(lambda: not gate.actors("model-org-broken"), 30, "the last one's end")
    assert all(serves(gate) for _ in range(20))
    with gate.client() as client:
        told = client.get("/health/ready")
        states = {one["id"]: one["state"] for one in client.get("/v1/models").json()["data"]}
    assert (told.status_code, told.json()["status"]) == (200, "degraded")
    assert told.json()["models"] == {BAD: "failing", GOOD: "ready"}
    assert states == {BAD: "failing", "broken": "failing"} | dict.fromkeys(
        (GOOD, ALIAS, "gpt-4o", FIRST), "ready"
    )
    for name in (BAD, "broken"):
        refused = refusal(gate, name)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (503, "no_capacity")
        assert "its last start failed: the engine ended with exit code 2, see" in error["message"]
        assert refused.headers["retry-after"] == "10"
        assert refused.elapsed.total_seconds() < 5, "nobody waits for what will not come"
    heals(gate)
    assert tries(gate) == TRIES, "Serve has given it up"


def test_the_official_client_asks_under_any_name(gate: RunningGate) -> None:
    """An alias in the list, alone, and in a call, whole and streamed; the reply says the model."""
    with gate.openai(gate.new_key()) as client:
        must_serve_all_names(client)


def must_serve_all_names(client: openai.OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert set(listed) == {BAD, "broken", GOOD, ALIAS, "gpt-4o", FIRST}
    assert client.models.retrieve(ALIAS) == listed[ALIAS]
    assert listed[ALIAS].root == GOOD  # type: ignore[attr-defined]
    told = [client.chat.completions.create(**chat(model=name)) for name in (GOOD, ALIAS)]
    assert {one.model for one in told} == {GOOD}
    assert told[0].choices[0].message.content == told[1].choices[0].message.content
    parts = list(client.chat.completions.create(**chat(model=ALIAS), stream=True))
    assert {part.model for part in parts} == {GOOD}
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(**chat(model="gpt-5"))
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-5")


def test_an_alias_counts_as_its_model(gate: RunningGate) -> None:
    """One limit for all names of a model, one row of usage, one name in the log."""
    limits = {"models": {GOOD: {"requests_per_minute": 3}}}
    key = gate.new_key(limits=limits)
    with gate.client(key) as client:
        asked = [client.post("/v1/chat/completions", json=chat(model=name)) for name in
                 (ALIAS, "gpt-4o", GOOD, ALIAS)]  # fmt: skip
        assert [one.status_code for one in asked] == [200, 200, 200, 429]
        assert asked[-1].headers["x-refused-by"] == "key_model:requests_per_minute"

        def used() -> list[dict[str, Any]]:
            data = client.get("/v1/usage?group_by=model").json()["data"]
            return data if data and data[0]["requests"] == 3 else []

        (row,) = until(used, 10, "the usage")
    assert row["model"] == GOOD
    own = [line for line in gate.access_lines() if line.get("key_id") == key.split("-")[2]]
    names = {line["model"] for line in own if "model" in line}
    assert names == {GOOD}


@pytest.mark.parametrize(
    ("models", "allowed"),
    [([GOOD], {GOOD, ALIAS, "gpt-4o"}), ([ALIAS], {ALIAS}), ([FIRST], {FIRST}), ([BAD], set())],
    ids=["the model", "an alias", "an adapter", "another"],
)
def test_a_key_confined_to_models(gate: RunningGate, models: list[str], allowed: set[str]) -> None:
    """A model's name opens its aliases, too; an alias or an adapter itself. The list agrees."""
    with gate.client(gate.new_key(models=models)) as client:
        listed = {one["id"] for one in client.get("/v1/models").json()["data"]}
        assert listed - {BAD, "broken"} == allowed
        for name in (GOOD, ALIAS, "gpt-4o", FIRST):
            told = client.post("/v1/chat/completions", json=chat(model=name))
            shown = client.get(f"/v1/models/{name}")
            if name in allowed:
                assert (told.status_code, shown.status_code) == (200, 200)
            else:
                assert (told.status_code, shown.status_code) == (403, 403)
                assert told.json()["error"]["code"] == "model_not_allowed"


def said(gate: RunningGate, model: str) -> tuple[str, str]:
    """The name in a reply, and its text."""
    with gate.client() as client:
        told = client.post("/v1/chat/completions", json=chat(model=model))
    assert told.status_code == 200, told.text
    return told.json()["model"], told.json()["choices"][0]["message"]["content"]


def adapters(gate: RunningGate) -> list[set[str]]:
    """The adapters of each engine, by its own account."""
    cards = [
        httpx.get(f"{one.url}/v1/models", headers=one.headers).json()["data"]
        for one in gate.replicas().values()
    ]
    return [{card["id"] for card in each if card["parent"]} for each in cards]


def test_an_adapter_of_the_settings(gate: RunningGate) -> None:
    """It speaks otherwise, under its own name, in which it is counted and listed."""
    name, text = said(gate, FIRST)
    assert name == FIRST
    assert text != said(gate, GOOD)[1]
    with gate.client() as client:
        card = client.get(f"/v1/models/{FIRST}").json()
    assert (card["parent"], card["root"]) == (GOOD, "first")


def test_an_adapter_loaded_while_the_gate_runs(gate: RunningGate) -> None:
    """On both replicas, and on the one that takes a dead one's place; then on none.

    Its use and its limits are its own.
    """
    poet = {"model": ALIAS, "name": "poet", "source": "org/poet"}
    key = gate.new_key(limits={"models": {"poet": {"requests_per_minute": 2}}})
    with gate.client() as admin, gate.client(key) as client:
        assert client.post("/v1/chat/completions", json=chat(model="poet")).status_code == 404
        made = admin.post("/v1/adapters", json=poet)
        assert (made.status_code, made.json()["replicas"]) == (201, 2)
        assert adapters(gate) == [{FIRST, "poet"}] * 2
        asked = [client.post("/v1/chat/completions", json=chat(model="poet")) for _ in range(3)]
        assert [one.status_code for one in asked] == [200, 200, 429]
        assert client.post("/v1/chat/completions", json=chat()).status_code == 200

        def used() -> dict[str, int]:
            data = client.get("/v1/usage?group_by=model").json()["data"]
            return {row["model"]: row["requests"] for row in data if row["requests"]}

        until(lambda: used() == {"poet": 2, GOOD: 1}, 10, "the usage")
        assert len({said(gate, name) for name in (GOOD, FIRST, "poet")}) == 3
        heals(gate)
        assert adapters(gate) == [{FIRST, "poet"}] * 2
        assert admin.delete("/v1/adapters/poet").status_code == 204
        assert adapters(gate) == [{FIRST}] * 2
        gone = client.post("/v1/chat/completions", json=chat(model="poet"))
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")
        audit = admin.get("/v1/audit?target=poet").json()["data"]
    assert [entry["action"] for entry in audit] == ["adapter.load", "adapter.unload"]
