"""OpenAI's package for Node, as it comes."""

from typing import Any

import pytest

from tests.clients import installed
from tests.clients.asked import Seen, ask, environment, limited_keys, statuses
from tests.running import RunningGate, until

ON_THE_WIRE = [
    "models", "talk", "stream", "stream_helper", "many_at_once", "wrong_key", "may_only_read",
    "wrong_model", "wrong_cap", "broken_replica", "broken_stream", "left_early", "over_the_limit",
    "retried", "quota_spent",
]  # fmt: skip
WITH_A_MODEL = ["parse", "tools", "embeddings", "respond", "respond_parsed"]


@pytest.fixture(scope="module")
def script() -> list[Any]:
    return [installed.node(), installed.NODE / "openai_node.mjs"]


@pytest.fixture(scope="module")
def keys(gate: RunningGate) -> dict[str, str]:
    return limited_keys(gate)


@pytest.fixture(scope="module")
def saw(script: list[Any], gate: RunningGate, keys: dict[str, str]) -> Seen:
    """What it saw of a gate before the simulated engine."""
    return ask(script, ON_THE_WIRE, environment(gate, gate.new_key(), **keys))


@pytest.fixture(scope="module")
def model_saw(script: list[Any], real_gate: RunningGate) -> Seen:
    """What it saw of a gate before a real model."""
    return ask(script, WITH_A_MODEL, environment(real_gate, real_gate.new_key()))


def test_a_chat_is_the_same_whole_streamed_and_by_the_helper(saw: Seen) -> None:
    """Text, finish, usage; the request id and the limits stand where the package looks."""
    whole = saw("talk")
    assert (whole["finish"], whole["tokens"]) == ("length", 8)
    assert saw("stream") == {"text": whole["text"], "finish": "length"}
    assert saw("stream_helper") == {"text": whole["text"], "tokens": 8}
    assert whole["request_id"]
    assert int(whole["remaining"]) > 0


def test_models_are_listed_and_many_are_served_at_once(saw: Seen) -> None:
    """List and retrieve; twelve before eight seats."""
    assert saw("models") == {"listed": ["smollm2-135m"], "one": "smollm2-135m"}
    assert saw("many_at_once") == [8] * 12


@pytest.mark.parametrize(
    ("case", "kind", "status", "code"),
    [
        ("wrong_key", "AuthenticationError", 401, "invalid_api_key"),
        ("may_only_read", "PermissionDeniedError", 403, "permission_denied"),
        ("wrong_model", "NotFoundError", 404, "model_not_found"),
        ("wrong_cap", "BadRequestError", 400, "400"),
        ("over_the_limit", "RateLimitError", 429, "rate_limit_exceeded"),
        ("quota_spent", "RateLimitError", 429, "insufficient_quota"),
        ("broken_replica", "InternalServerError", 502, "upstream_failed"),
    ],
)
def test_a_refusal_is_its_own_exception(saw: Seen, case, kind, status, code) -> None:
    """With status, code and request id where the package reads them."""
    told = saw.raised(case)
    assert (told["classes"][0], told["status"], told["code"]) == (kind, status, code)
    assert told["request_id"] == told["headers"]["x-request-id"]


def test_a_broken_stream_raises(saw: Seen) -> None:
    """Nobody takes half a reply for a whole one."""
    told = saw.raised("broken_stream")
    assert (told["classes"][0], told["code"]) == ("APIError", "upstream_failed")


def test_limits_are_obeyed_and_who_leaves_frees_the_engine(
    saw: Seen, gate: RunningGate, keys: dict[str, str]
) -> None:
    """A retry waits as long as it was told; a spent quota is not asked again."""
    assert saw("retried") == 1
    assert 1.2 < saw.took_s("retried") < 10
    assert statuses(gate, keys["KEY_RETRIED"], 3) == [200, 200, 429]
    assert statuses(gate, keys["KEY_SPENT"], 2) == [200, 429]
    assert saw("left_early") is None
    until(lambda: gate.gauge("num_requests_running") == 0, 10, "the abort")


def test_a_real_model_gives_the_object_that_was_asked_for(model_saw: Seen) -> None:
    """`.parse` with a zod schema, and a tool whose arguments are parsed."""
    assert model_saw("parse").keys() == {"city", "country"}
    assert model_saw("tools") == {"name": "weather", "args": ["city"]}


def test_a_real_model_responds(model_saw: Seen) -> None:
    """The responses API: whole, streamed, parsed; what the model cannot do is no 5xx."""
    told = model_saw("respond")
    assert told["text"]
    assert told["text"] == told["streamed"]
    assert model_saw("respond_parsed").keys() == {"city", "country"}
    assert model_saw.raised("embeddings")["status"] in (400, 404)
