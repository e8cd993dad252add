"""LiteLLM's SDK, as it comes, by three of its providers."""

from typing import Any

import pytest

from tests.clients.asked import Seen, ask, environment, limited_keys, python_script
from tests.running import RunningGate

ON_THE_WIRE = [
    "talk", "many_at_once", "complete", "wrong_key", "may_only_read", "wrong_model", "wrong_cap",
    "long_prompt", "over_the_limit", "broken_replica",
]  # fmt: skip
WITH_A_MODEL = ["talk", "talk_as_anthropic"]


@pytest.fixture(scope="module")
def script() -> list[Any]:
    return python_script("litellm_sdk.py")


@pytest.fixture(scope="module")
def saw(script: list[Any], gate: RunningGate) -> Seen:
    """What it saw of a gate before the simulated engine."""
    return ask(script, ON_THE_WIRE, environment(gate, gate.new_key(), **limited_keys(gate)))


@pytest.fixture(scope="module")
def model_saw(script: list[Any], real_gate: RunningGate) -> Seen:
    """What it saw of a gate before a real model."""
    return ask(script, WITH_A_MODEL, environment(real_gate, real_gate.new_key()))


def test_a_chat_is_the_same_whole_and_streamed(saw: Seen) -> None:
    """As `openai` and as `hosted_vllm`."""
    told = saw("talk")
    texts = {text for both in told.values() for text in both}
    assert set(told) == {"openai", "hosted_vllm"}
    assert len(texts) == 1
    assert texts.pop()


def test_many_at_once_and_the_older_completions(saw: Seen) -> None:
    """Twelve before eight seats; `text_completion`."""
    assert saw("many_at_once") == [8] * 12
    assert saw("complete")


@pytest.mark.parametrize(
    ("case", "kind", "status"),
    [
        ("wrong_key", "AuthenticationError", 401),
        ("may_only_read", "APIError", 403),
        ("wrong_model", "NotFoundError", 404),
        ("wrong_cap", "BadRequestError", 400),
        ("long_prompt", "BadRequestError", 400),
        ("over_the_limit", "RateLimitError", 429),
        ("broken_replica", "BadGatewayError", 502),
    ],
)
def test_a_refusal_is_its_own_exception(saw: Seen, case: str, kind: str, status: int) -> None:
    """As LiteLLM maps it from OpenAI's; of a 403 it keeps the status only."""
    told = saw.raised(case)
    assert (told["classes"][0], told["status"]) == (kind, status)


def test_a_real_model_answers_each_provider(model_saw: Seen) -> None:
    """`openai`, `hosted_vllm` and `anthropic`, whole and streamed."""
    for whole, streamed in [*model_saw("talk").values(), model_saw("talk_as_anthropic")]:
        assert whole
        assert whole == streamed
