"""OpenAI's package for Python, as it comes: the one that litellm takes, and the newest."""

import sys
from typing import Any

import pytest

from tests.clients.asked import Seen, ask, environment, limited_keys, python_script, statuses
from tests.running import RunningGate, until

ON_THE_WIRE = [
    "models", "talk", "stream", "stream_helper", "many_at_once", "complete", "wrong_key",
    "may_only_read", "wrong_model", "wrong_cap", "long_prompt", "broken_replica", "broken_stream",
    "too_slow", "left_early", "over_the_limit", "retried", "quota_spent",
]  # fmt: skip
WITH_A_MODEL = [
    "parse", "structured", "tools", "logprobs", "embeddings", "respond", "respond_parsed",
    "respond_wrong",
]  # fmt: skip


@pytest.fixture(scope="module", params=["clients.lock", "dev.lock"])
def script(request: pytest.FixtureRequest) -> list[Any]:
    """The script, with the openai of each lock."""
    newest = sys.executable if request.param == "dev.lock" else None
    return python_script("openai_python.py", newest)


@pytest.fixture(scope="module")
def keys(gate: RunningGate, script: list[Any]) -> dict[str, str]:  # noqa: ARG001  (new for each)
    """Keys that are refused."""
    return limited_keys(gate)


@pytest.fixture(scope="module")
def saw(script: list[Any], gate: RunningGate, keys: dict[str, str]) -> Seen:
    """What it saw of a gate before the simulated engine."""
    return ask(script, ON_THE_WIRE, environment(gate, gate.new_key(), **keys))


@pytest.fixture(scope="module")
def model_saw(script: list[Any], real_gate: RunningGate) -> Seen:
    """What it saw of a gate before a real model."""
    return ask(script, WITH_A_MODEL, environment(real_gate, real_gate.new_key()))


def test_models_are_listed_and_found(saw: Seen) -> None:
    """List and retrieve."""
    assert saw("models") == {"listed": ["smollm2-135m"], "one": "smollm2-135m"}


def test_a_chat_is_the_same_whole_streamed_and_by_the_helper(saw: Seen) -> None:
    """Text, finish, usage; the request id and the limits stand where the package looks."""
    whole, parts, helped = saw("talk"), saw("stream"), saw("stream_helper")
    assert (whole["role"], whole["finish"], whole["tokens"]) == ("assistant", "length", 8)
    assert whole["text"] == whole["again"] == parts["text"]
    assert helped["text"] == helped["whole"]
    assert whole["request_id"]
    assert int(whole["headers"]["x-ratelimit-remaining-requests"]) > 0
    assert (parts["finish"], parts["ids"]) == ("length", 1)
    assert (parts["usage_unasked"], parts["usage_asked"]) == ([], 8)
    assert {"chunk", "content.delta", "content.done"} <= set(helped["kinds"])


def test_many_streams_at_once_are_all_whole(saw: Seen) -> None:
    """Twenty of the asynchronous client, before eight seats."""
    told = saw("many_at_once")
    assert told["texts"] == [told["whole"]] * 20


def test_the_older_completions_too(saw: Seen) -> None:
    """Whole and streamed."""
    told = saw("complete")
    assert told["text"]
    assert told["text"] == told["streamed"]


@pytest.mark.parametrize(
    ("case", "kind", "status", "code"),
    [
        ("wrong_key", "AuthenticationError", 401, "invalid_api_key"),
        ("may_only_read", "PermissionDeniedError", 403, "permission_denied"),
        ("wrong_model", "NotFoundError", 404, "model_not_found"),
        ("wrong_cap", "BadRequestError", 400, "400"),
        ("long_prompt", "BadRequestError", 400, "prompt_too_long"),
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
    assert told["classes"][0] == "APIError"
    assert told["code"] == "upstream_failed"


def test_who_has_no_patience_or_leaves_frees_the_engine(saw: Seen, gate: RunningGate) -> None:
    """The package's timeout, and a stream that is closed after its first part."""
    assert saw.raised("too_slow")["classes"][0] == "APITimeoutError"
    assert saw("left_early") is None
    assert saw.took_s("left_early") < 10
    until(lambda: gate.gauge("num_requests_running") == 0, 10, "the abort")


def test_a_retry_waits_as_long_as_it_was_told(saw: Seen) -> None:
    """One retry is enough: `retry-after-ms` is true, and the package obeys it to the millisecond.

    Its own first wait is at most one second; the key is let in again after two.
    """
    assert saw("retried") == {"retries": [0, 1]}
    assert 1.2 < saw.took_s("retried") < 10
    wait_ms = int(saw.raised("over_the_limit")["headers"]["retry-after-ms"])
    assert 1_000 < wait_ms <= 2_000


def test_a_spent_quota_is_not_asked_again(saw: Seen, gate: RunningGate, keys) -> None:
    """`x-should-retry: false` is obeyed: of three retries, none is made."""
    assert saw.raised("quota_spent")["headers"]["x-should-retry"] == "false"
    assert statuses(gate, keys["KEY_SPENT"], 2) == [200, 429]


def test_parse_gives_the_object_that_was_asked_for(model_saw: Seen) -> None:
    """`.parse` and the streaming helper, with a pydantic model; a real model was made to obey."""
    whole, streamed = model_saw("parse")
    assert whole.keys() == streamed.keys() == {"city", "country"}


def test_structured_output_obeys_its_schema(model_saw: Seen) -> None:
    """OpenAI's json_schema, and vLLM's own member for a choice."""
    told = model_saw("structured")
    assert told["json"]["n"] in (1, 2)
    assert told["choice"] in ("yes", "no")


def test_tools_are_called_and_answered(model_saw: Seen) -> None:
    """Whole and streamed the same call, its arguments parsed; the talk goes on with the result."""
    told = model_saw("tools")
    assert told["names"] == ["Weather", "Weather"]
    assert told["parsed"] == ["Weather", "Weather"]
    assert "tool_calls.function.arguments.delta" in told["kinds"]
    assert told["after"]


def test_logprobs_come_with_the_tokens(model_saw: Seen) -> None:
    """Of each token, and the two likeliest."""
    told = model_saw("logprobs")
    assert told["top"] == [2] * told["tokens"]


def test_what_a_model_cannot_do_is_a_clear_mistake(model_saw: Seen) -> None:
    """Embeddings of a model that writes: the package's own exception, no 5xx, no retry."""
    told = model_saw.raised("embeddings")
    assert told["classes"][0] in ("BadRequestError", "NotFoundError")
    assert told["said"]


def test_responses_are_the_same_whole_and_streamed(model_saw: Seen) -> None:
    """The text, the events from the first to the last, the object that was asked for."""
    told = model_saw("respond")
    assert told["text"]
    assert told["text"] == told["streamed"]
    assert told["tokens"] > 0
    assert told["kinds"][0] == "response.created"
    assert told["kinds"][-1] in ("response.completed", "response.incomplete")
    assert "response.output_text.delta" in told["kinds"]
    assert model_saw("respond_parsed").keys() == {"city", "country"}
    assert model_saw.raised("respond_wrong")["classes"][0] == "NotFoundError"
