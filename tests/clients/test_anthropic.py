"""Anthropic's package for Python, as it comes."""

from typing import Any

import pytest

from tests.clients.asked import Seen, ask, environment, limited_keys, python_script, statuses
from tests.running import RunningGate

REFUSED = [
    "models", "bearer", "wrong_key", "may_only_read", "wrong_model", "long_prompt", "large_body",
]  # fmt: skip
WITH_A_MODEL = [
    "message", "stream", "system_and_turns", "many_at_once", "count", "tools", "wrong_cap",
    "over_the_limit", "retried", "quota_spent",
]  # fmt: skip


@pytest.fixture(scope="module")
def script() -> list[Any]:
    return python_script("anthropic_python.py")


@pytest.fixture(scope="module")
def refused(script: list[Any], gate: RunningGate) -> Seen:
    """What it saw of a gate that does not let it through to an engine."""
    return ask(script, REFUSED, environment(gate, gate.new_key(), **limited_keys(gate)))


@pytest.fixture(scope="module")
def keys(real_gate: RunningGate) -> dict[str, str]:
    return limited_keys(real_gate)


@pytest.fixture(scope="module")
def saw(script: list[Any], real_gate: RunningGate, keys: dict[str, str]) -> Seen:
    """What it saw of a gate before a real model."""
    return ask(script, WITH_A_MODEL, environment(real_gate, real_gate.new_key(), **keys))


def test_a_message_is_the_same_whole_and_streamed(saw: Seen) -> None:
    """Text, stop reason, usage; the events come in Anthropic's order."""
    whole, parts = saw("message"), saw("stream")
    assert (whole["type"], whole["role"]) == ("message", "assistant")
    assert "Paris" in whole["text"]
    assert (whole["text"], whole["stop"]) == (parts["text"], parts["stop"])
    assert whole["tokens"] == parts["tokens"] > 0
    assert whole["input"] > 0
    assert whole["request_id"]
    assert parts["kinds"][0] == "message_start"
    assert parts["kinds"][-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_a_talk_has_turns_parts_and_a_system_prompt(saw: Seen) -> None:
    """Text as a string and as blocks."""
    assert isinstance(saw("system_and_turns"), str)


def test_many_streams_at_once_are_all_whole(saw: Seen) -> None:
    """Twelve of the asynchronous client, before eight seats."""
    told = saw("many_at_once")
    assert len(told) == 12
    assert all(0 < tokens <= 8 for tokens in told)


def test_tokens_are_counted_as_they_are_used(saw: Seen) -> None:
    """`count_tokens` says what a message's usage then tells."""
    told = saw("count")
    assert told["counted"] == told["used"] > 0


def test_tools_are_called_and_answered(saw: Seen) -> None:
    """Whole and streamed; the talk goes on with the result."""
    told = saw("tools")
    assert told["names"] == ["weather", "weather"]
    assert told["inputs"] == [["city"], ["city"]]
    assert told["after"] == "text"


def test_models_are_listed_with_either_credential(refused: Seen) -> None:
    """`x-api-key`, or a bearer token."""
    assert refused("models") == ["smollm2-135m"]
    assert refused("bearer") == "smollm2-135m"


@pytest.mark.parametrize(
    ("case", "kind", "status", "type_"),
    [
        ("wrong_key", "AuthenticationError", 401, "authentication_error"),
        ("may_only_read", "PermissionDeniedError", 403, "permission_error"),
        ("wrong_model", "NotFoundError", 404, "not_found_error"),
        ("long_prompt", "BadRequestError", 400, "invalid_request_error"),
        ("large_body", "ContentTooLargeError", 413, "request_too_large"),
    ],
)
def test_a_refusal_is_its_own_exception(refused: Seen, case, kind, status, type_) -> None:
    """With Anthropic's type in Anthropic's shape, and the request's id."""
    told = refused.raised(case)
    assert (told["classes"][0], told["status"]) == (kind, status)
    assert f"'type': '{type_}'" in told["said"]
    assert "'type': 'error'" in told["said"]
    assert told["request_id"] == told["headers"]["request-id"]


def test_what_the_engine_refuses_is_an_exception_too(saw: Seen) -> None:
    """In the engine's own words."""
    told = saw.raised("wrong_cap")
    assert (told["classes"][0], told["status"]) == ("BadRequestError", 400)
    assert "max_tokens" in told["said"]


def test_limits_are_told_and_obeyed(saw: Seen, real_gate: RunningGate, keys) -> None:
    """A retry waits as long as it was told; a spent quota is not asked again."""
    told = saw.raised("over_the_limit")
    assert (told["classes"][0], told["status"]) == ("RateLimitError", 429)
    assert "'type': 'rate_limit_error'" in told["said"]
    assert saw("retried") == {"retries": [0, 1]}
    assert saw.took_s("retried") > 1.2
    assert saw.raised("quota_spent")["headers"]["x-should-retry"] == "false"
    assert statuses(real_gate, keys["KEY_SPENT"], 2) == [200, 429]
