"""Several models in one application: names, aliases, and one that cannot be started."""

import copy
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import psutil
import pytest

from tests.running import ADMIN_KEY, RunningGate, chat, simulated, until

GOOD, ALIAS, BAD = "smollm2-135m", "gpt-4o-mini", "org/broken"
TRIES = 3
"""So often Serve tries to start a deployment of one replica."""


def with_a_broken_one() -> dict[str, Any]:
    """Two models; the engine of one ends at once, because of an option that it does not take."""
    config = simulated(aliases=[ALIAS, "gpt-4o"], autoscaling={"max_replicas": 1})
    models = config["applications"][0]["args"]["models"]
    bad = {"name": BAD, "aliases": ["broken"], "engine_args": {"max_num_seqs": 0}}
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
    until(gate.replicas, 60, "another in its place")
    assert serves(gate)


def test_one_that_cannot_be_started_takes_no_other_down(gate: RunningGate) -> None:
    """The good one serves before, while and after Serve tries to start the other, and heals.

    What is wrong is said: at the start, in readiness, in the list of models and to who asks for it,
    at once.
    """
    assert "Of several models, a model failed to start: " in gate.said()
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
        (GOOD, ALIAS, "gpt-4o"), "ready"
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
    client = gate.openai(gate.new_key())
    listed = {model.id: model for model in client.models.list()}
    assert set(listed) == {BAD, "broken", GOOD, ALIAS, "gpt-4o"}
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
    [([GOOD], {GOOD, ALIAS, "gpt-4o"}), ([ALIAS], {ALIAS}), ([BAD], set())],
    ids=["the model", "an alias", "another"],
)
def test_a_key_confined_to_models(gate: RunningGate, models: list[str], allowed: set[str]) -> None:
    """A model's name opens its aliases, too; an alias opens itself. The list says the same."""
    with gate.client(gate.new_key(models=models)) as client:
        listed = {one["id"] for one in client.get("/v1/models").json()["data"]}
        assert listed - {BAD, "broken"} == allowed
        for name in (GOOD, ALIAS, "gpt-4o"):
            told = client.post("/v1/chat/completions", json=chat(model=name))
            shown = client.get(f"/v1/models/{name}")
            if name in allowed:
                assert (told.status_code, shown.status_code) == (200, 200)
            else:
                assert (told.status_code, shown.status_code) == (403, 403)
                assert told.json()["error"]["code"] == "model_not_allowed"
