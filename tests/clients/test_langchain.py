"""LangChain's ChatOpenAI, as it comes."""

from typing import Any

import pytest

from tests.clients.asked import Seen, ask, environment, limited_keys, python_script
from tests.running import RunningGate

ON_THE_WIRE = ["talk", "stream", "many_at_once", "wrong_key", "wrong_model", "over_the_limit"]
WITH_A_MODEL = ["talk", "stream", "structured", "tools", "respond"]


@pytest.fixture(scope="module")
def script() -> list[Any]:
    return python_script("langchain_chat.py")


@pytest.fixture(scope="module")
def saw(script: list[Any], gate: RunningGate) -> Seen:
    """What it saw of a gate before the simulated engine."""
    return ask(script, ON_THE_WIRE, environment(gate, gate.new_key(), **limited_keys(gate)))


@pytest.fixture(scope="module")
def model_saw(script: list[Any], real_gate: RunningGate) -> Seen:
    """What it saw of a gate before a real model."""
    return ask(script, WITH_A_MODEL, environment(real_gate, real_gate.new_key()))


def test_a_chat_is_the_same_whole_streamed_and_in_a_batch(saw: Seen) -> None:
    """With the usage that LangChain reads, in streams too."""
    whole = saw("talk")
    assert (whole["tokens"], whole["finish"]) == (8, "length")
    assert saw("stream") == {"text": whole["text"], "tokens": 8}
    assert saw("many_at_once") == [whole["text"]] * 12


@pytest.mark.parametrize(
    ("case", "kind", "status"),
    [
        ("wrong_key", "AuthenticationError", 401),
        ("wrong_model", "NotFoundError", 404),
        ("over_the_limit", "RateLimitError", 429),
    ],
)
def test_a_refusal_is_its_own_exception(saw: Seen, case: str, kind: str, status: int) -> None:
    """One of OpenAI's."""
    told = saw.raised(case)
    assert kind in told["classes"]
    assert told["status"] == status


def test_a_real_model_gives_the_object_that_was_asked_for(model_saw: Seen) -> None:
    """`with_structured_output` by a schema and by a tool."""
    assert model_saw("structured") == ["Answer", "Answer"]


def test_a_real_model_calls_a_tool_and_takes_its_result(model_saw: Seen) -> None:
    """`bind_tools`, and the talk goes on."""
    told = model_saw("tools")
    assert (told["name"], told["args"]) == ("weather", ["city"])
    assert told["after"]


def test_a_real_model_talks_streams_and_responds(model_saw: Seen) -> None:
    """The chat and the responses API."""
    assert model_saw("talk")["text"] == model_saw("stream")["text"]
    assert model_saw("respond")
