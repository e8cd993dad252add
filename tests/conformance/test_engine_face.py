"""One suite for every engine: what the gate relies on holds on the simulated one and on vLLM."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.running import RunningGate, chat, until


@pytest.fixture(params=["simulated", "vllm"])
def running(request: pytest.FixtureRequest) -> RunningGate:
    found: RunningGate = request.getfixturevalue(
        "gate" if request.param == "simulated" else "real_gate"
    )
    return found


@pytest.fixture
def engine(running: RunningGate) -> Iterator[httpx.Client]:
    """The engine itself, past the gate, with its key."""
    at = running.engine()
    with httpx.Client(base_url=at.url, headers=at.headers, timeout=60) as client:
        yield client


def frames(client: httpx.Client, path: str, body: dict[str, Any]) -> list[str]:
    with client.stream("POST", path, json={**body, "stream": True}) as told:
        assert told.headers["content-type"].startswith("text/event-stream")
        raw = b"".join(told.iter_raw())
    assert raw.endswith(b"data: [DONE]\n\n")
    return [frame.removeprefix("data: ") for frame in raw.decode().split("\n\n")[:-2]]


def test_health_is_200_and_empty(engine: httpx.Client) -> None:
    """The supervisor asks this."""
    told = engine.get("/health")
    assert (told.status_code, told.content) == (200, b"")


def test_the_model_is_listed_under_its_served_name(engine: httpx.Client) -> None:
    """With the length of its context."""
    (model,) = engine.get("/v1/models").json()["data"]
    assert (model["id"], model["object"]) == ("smollm2-135m", "model")
    assert model["max_model_len"] == 2048


def test_a_rank_is_taken(engine: httpx.Client) -> None:
    """The gate tells it at the end of the body; an engine without priorities refuses any but 0."""
    raw = json.dumps({**chat(max_tokens=2), "priority": 0}).removesuffix("}") + ',"priority":3}'
    told = engine.post(
        "/v1/chat/completions", content=raw, headers={"content-type": "application/json"}
    )
    assert told.status_code == 200, told.text


def test_a_chat_has_the_fields_that_clients_read(engine: httpx.Client) -> None:
    """Choices, finish reason, usage that adds up."""
    told = engine.post("/v1/chat/completions", json=chat(max_tokens=5, ignore_eos=True)).json()
    assert told["object"] == "chat.completion"
    (choice,) = told["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["finish_reason"] == "length"
    usage = told["usage"]
    assert usage["completion_tokens"] == 5
    assert usage["total_tokens"] == usage["prompt_tokens"] + 5


def test_a_completion_has_the_fields_that_clients_read(engine: httpx.Client) -> None:
    """The older route, too."""
    body = {"model": "smollm2-135m", "prompt": "one two", "max_tokens": 3, "ignore_eos": True}
    told = engine.post("/v1/completions", json=body).json()
    assert told["object"] == "text_completion"
    assert told["choices"][0]["text"]
    assert told["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("asked", [True, False])
def test_the_usage_frame_is_last_and_has_no_choices(engine: httpx.Client, asked: bool) -> None:
    """It comes exactly when it is asked for; other frames carry none."""
    more = {"stream_options": {"include_usage": True}} if asked else {}
    told = [json.loads(one) for one in frames(engine, "/v1/chat/completions", chat(**more))]
    assert told[0]["choices"][0]["delta"]["role"] == "assistant"
    assert all(event["object"] == "chat.completion.chunk" for event in told)
    with_usage = [event for event in told if event.get("usage")]
    assert len(with_usage) == int(asked)
    if asked:
        assert told[-1]["choices"] == []
        assert told[-1]["usage"]["completion_tokens"] > 0


def test_a_frame_is_one_data_line_and_usage_is_found_by_its_name(engine: httpx.Client) -> None:
    """The relay splits at blank lines and looks for the word."""
    more = {"stream_options": {"include_usage": True}}
    raw = frames(engine, "/v1/chat/completions", chat(**more))
    assert not any("\n" in frame for frame in raw)
    assert ['"usage"' in frame for frame in raw] == [False] * (len(raw) - 1) + [True]


def test_the_last_mention_of_a_member_wins(engine: httpx.Client) -> None:
    """The gate appends what it sets; the engine must obey it."""
    body = json.dumps(chat(max_tokens=9, ignore_eos=True))[:-1] + ',"max_tokens":2}'
    told = engine.post(
        "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
    )
    assert told.json()["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param({"model": "nope", "messages": []}, 404, id="no such model"),
        pytest.param({"model": "smollm2-135m"}, 400, id="no messages"),
        pytest.param(chat(max_tokens=-1), 400, id="impossible cap"),
        pytest.param(chat(temperature="hot"), 400, id="wrong type"),
        pytest.param(chat("word " * 9_000), 400, id="longer than its context"),
    ],
)
def test_a_mistake_is_refused_in_the_error_shape(engine: httpx.Client, body, status: int) -> None:
    """The gate passes these on in the engine's own words."""
    told = engine.post("/v1/chat/completions", json=body)
    assert told.status_code == status
    error = told.json()["error"]
    assert error["message"]
    assert error["code"] == status


def test_the_gauges_that_the_gate_reads_are_there(running: RunningGate) -> None:
    """Running, waiting, cache use and preemptions."""
    for name in (
        "num_requests_running",
        "num_requests_waiting",
        "kv_cache_usage_perc",
        "num_preemptions_total",
        "prompt_tokens_total",
        "generation_tokens_total",
    ):
        assert running.gauge(name) >= 0


def test_a_hang_up_past_the_gate_aborts(running: RunningGate, engine: httpx.Client) -> None:
    """The engine itself stops when its client leaves."""
    body = chat(max_tokens=1_500, stream=True, ignore_eos=True)
    with engine.stream("POST", "/v1/chat/completions", json=body) as told:
        lines = told.iter_lines()  # kept: a forgotten iterator closes the reply
        next(lines)
        until(lambda: running.gauge("num_requests_running") == 1, 10, "the work")
    until(lambda: running.gauge("num_requests_running") == 0, 10, "the abort")
