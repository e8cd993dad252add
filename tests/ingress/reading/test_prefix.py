"""A conversation is known by how it begins (DESIGN §4, seats)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.ingress.reading.prefix import prefix_of

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
SYSTEM = {"role": "system", "content": "Be brief."}
HELLO = {"role": "user", "content": "Hello"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "Hello"}]}
REPLY = {"role": "assistant", "content": "Hi!"}
MORE = {"role": "user", "content": "And then?"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def chat(*messages: Any, **more: Any) -> str:
    return prefix_of(CHAT, {"messages": list(messages), **more})


@pytest.mark.parametrize("first", [[HELLO], [SYSTEM, HELLO], [SYSTEM, PARTS]], ids=str)
def test_what_is_said_later_changes_nothing(first: list[dict[str, Any]]) -> None:
    """Nor do the other fields."""
    assert chat(*first) == chat(*first, REPLY, MORE, temperature=1) != ""


def test_another_beginning_is_another_conversation() -> None:
    """By instructions or first words, in any dialect."""
    told = [chat(HELLO), chat(SYSTEM, HELLO), chat(MORE), chat(SYSTEM, MORE)]
    for path, field in (("/v1/messages", "system"), ("/v1/responses", "instructions")):
        where = "messages" if path.endswith("messages") else "input"
        told += [prefix_of(path, {field: said, where: [HELLO]}) for said in ("a", "b")]
    told += [prefix_of(TEXT, {"prompt": prompt}) for prompt in ("one", "two", [1, 2], [12])]
    assert len({*told}) == len(told)


def test_of_a_bare_prompt_the_head_counts() -> None:
    """A longer prompt with the same head goes on with it."""
    head = "x" * 2_000
    assert prefix_of(TEXT, {"prompt": head}) == prefix_of(TEXT, {"prompt": head + "y"})
    ids = [7] * 2_000
    assert prefix_of(TEXT, {"prompt": ids}) == prefix_of(TEXT, {"prompt": [*ids, 8]})


def test_where_nothing_is_generated_there_is_no_conversation() -> None:
    """Embeddings come from any replica; so does a request that says nothing."""
    assert prefix_of("/v1/embeddings", {"input": "Hello"}) == ""
    assert prefix_of("/nowhere", {"prompt": "Hello"}) == ""
    assert chat() == prefix_of(CHAT, {}) == prefix_of(TEXT, {"prompt": ""}) == ""


@given(JSON, JSON)
def test_whatever_a_body_holds_nothing_is_raised(messages: Any, prompt: Any) -> None:
    """What an engine cannot read it refuses in its own words."""
    for path in (CHAT, TEXT, "/v1/messages", "/v1/responses"):
        fields = {"messages": messages, "input": messages, "prompt": prompt, "system": prompt}
        assert len(prefix_of(path, fields)) in (0, 16)
