"""What a request may cost, in every dialect, before it runs."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.ingress.reading.demand import CAP_MAX, CHOICES_MAX, TEXT_MAX, Weighed, weighed
from serve_app.ingress.reading.dialects import DIALECTS
from serve_app.model_settings import Model

MODEL = Model(name="m", image_tokens=1_000, tool_tokens=50)
CHAT, PLAIN, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
ANTHROPIC, COUNT = "/v1/messages", "/v1/messages/count_tokens"
EMBED, SCORE, RERANK = "/v1/embeddings", "/v1/score", "/v1/rerank"
AUDIO, TOKENIZE, DETOKENIZE = "/v1/audio/transcriptions", "/tokenize", "/detokenize"
GENERATING = (CHAT, PLAIN, RESPONSES, ANTHROPIC, AUDIO)
BASE64 = "data:image/png;base64," + "iVBORw0KGgo" * 1_000


def asked(path: str, **fields: Any) -> Weighed:
    return weighed(path, len(json.dumps(fields)), fields, MODEL)


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def text(said: str, kind: str = "text") -> dict[str, Any]:
    return {"type": kind, "text": said}


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"properties": {"at": {}}}}}
TOOL_BYTES = len("typefunctionfunctionnamelookparameterspropertiesat")
ANTHROPIC_TOOL = {"name": "look", "input_schema": {"type": "object"}}


@pytest.mark.parametrize(
    ("path", "fields", "text_bytes", "fixed_tokens"),
    [
        pytest.param(CHAT, {"messages": [user("hello")]}, 5, 4, id="chat"),
        pytest.param(CHAT, {"messages": [user("é密")]}, 5, 4, id="bytes of UTF-8"),
        pytest.param(CHAT, {"messages": [user("\ud800")]}, 3, 4, id="half a character"),
        pytest.param(CHAT, {"messages": [user("a"), user("b")]}, 2, 8, id="each message"),
        pytest.param(CHAT, {"messages": [user([text("a"), text("bc")])]}, 3, 4, id="parts"),
        pytest.param(CHAT, {"messages": [user("text")]}, 4, 4, id="a word of the protocol, said"),
        pytest.param(CHAT, {"messages": [{"role": "x" * 99}]}, 99, 4, id="a role of its own"),
        pytest.param(
            CHAT,
            {"messages": [user([{"type": "image_url", "image_url": {"url": BASE64}}, text("a")])]},
            1,
            1_004,
            id="an image",
        ),
        pytest.param(
            CHAT, {"messages": [user([{"image_url": BASE64}])]}, 0, 1_004, id="an image, bare"
        ),
        pytest.param(
            CHAT,
            {"messages": [user([{"type": "input_audio", "input_audio": {"data": BASE64}}] * 2)]},
            0,
            2_004,
            id="two sounds",
        ),
        pytest.param(
            CHAT,
            {"messages": [user([{"type": "video_url", "video_url": {"url": BASE64}}])]},
            0,
            1_004,
            id="a video",
        ),
        pytest.param(
            CHAT,
            {"messages": [user([{"type": "prompt_embeds", "data": BASE64}])]},
            0,
            1_004,
            id="embeddings in a message",
        ),
        pytest.param(
            CHAT,
            {"messages": [user([{"type": "text", "text": "abc", "image_url": None}])]},
            3,
            4,
            id="no image",
        ),
        pytest.param(
            CHAT,
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {
                                "id": "call",
                                "type": "function",
                                "function": {"name": "look", "arguments": '{"file":1}'},
                            }
                        ],
                    }
                ]
            },
            len('calllook{"file":1}'),
            4,
            id="a call of a tool",
        ),
        pytest.param(CHAT, {"messages": [], "tools": [TOOL]}, TOOL_BYTES, 50, id="a tool"),
        pytest.param(
            CHAT, {"messages": [], "functions": [{"name": "look"}] * 2}, 16, 100, id="functions"
        ),
        pytest.param(
            CHAT,
            {"messages": [], "documents": [{"text": "abc", "source": "d"}]},
            len("textabcsourced"),
            0,
            id="documents",
        ),
        pytest.param(
            CHAT,
            {"messages": [], "response_format": {"json_schema": {"x": "y" * 999}}, "user": "z"},
            0,
            0,
            id="what stands in no prompt",
        ),
        pytest.param(PLAIN, {"prompt": "hello"}, 5, 0, id="completion"),
        pytest.param(PLAIN, {"prompt": ["ab", "c"], "suffix": "d"}, 4, 0, id="completions"),
        pytest.param(PLAIN, {"prompt": [5, 6, 7]}, 0, 3, id="token ids"),
        pytest.param(PLAIN, {"prompt": [[5, 6], [7]]}, 0, 3, id="lists of token ids"),
        pytest.param(PLAIN, {"prompt": ["ab", [7]]}, 2, 1, id="a text and token ids"),
        pytest.param(PLAIN, {"prompt_embeds": BASE64}, 0, 1_000, id="embeddings"),
        pytest.param(PLAIN, {"prompt_embeds": [BASE64] * 2}, 0, 2_000, id="many embeddings"),
        pytest.param(RESPONSES, {"input": "hello", "instructions": "ab"}, 7, 4, id="response"),
        pytest.param(
            RESPONSES,
            {
                "input": [
                    user([text("ab", "input_text"), {"type": "input_image", "image_url": BASE64}]),
                    {"type": "function_call_output", "call_id": "c", "output": "def"},
                ],
                "tools": [{"type": "function", "name": "f"}],
            },
            len("ab" + "cdef" + "typefunctionnamef"),
            1_058,
            id="items of a response",
        ),
        pytest.param(
            ANTHROPIC,
            {
                "system": [{"type": "text", "text": "ab", "cache_control": {"type": "ephemeral"}}],
                "messages": [
                    user([text("c"), {"type": "image", "source": {"data": BASE64}}]),
                    user([{"type": "tool_use", "id": "i", "name": "n", "input": {"file": "def"}}]),
                    user([{"type": "tool_result", "tool_use_id": "i", "content": [text("g")]}]),
                ],
                "tools": [ANTHROPIC_TOOL],
            },
            len("abc" + "infiledef" + "ig" + "namelookinput_schematypeobject"),
            1_062,
            id="Anthropic's blocks",
        ),
        pytest.param(COUNT, {"system": "ab", "messages": [user("c")]}, 3, 4, id="counting"),
        pytest.param(EMBED, {"input": "hello"}, 5, 0, id="an embedding"),
        pytest.param(EMBED, {"input": ["ab", "c"]}, 3, 0, id="embeddings of texts"),
        pytest.param(EMBED, {"input": [[1, 2], [3]]}, 0, 3, id="embeddings of token ids"),
        pytest.param(EMBED, {"messages": [user("hello")]}, 5, 4, id="the embedding of a chat"),
        pytest.param(SCORE, {"text_1": "ab", "text_2": "c"}, 3, 0, id="a score"),
        pytest.param(
            SCORE, {"text_1": "ab", "text_2": ["c", "d", "e"]}, 9, 0, id="one against three"
        ),
        pytest.param(
            SCORE, {"queries": ["a", "b"], "documents": ["c", "d"]}, 4, 0, id="pair by pair"
        ),
        pytest.param(RERANK, {"query": "ab", "documents": ["c", "d", "e"]}, 9, 0, id="a rerank"),
        pytest.param(AUDIO, {"prompt": "ab"}, 2, 1_000, id="a transcription"),
        pytest.param(TOKENIZE, {"prompt": "ab"}, 2, 0, id="tokens of a text"),
        pytest.param(TOKENIZE, {"messages": [user("ab")]}, 2, 4, id="tokens of a chat"),
        pytest.param(DETOKENIZE, {"tokens": [1, 2]}, 0, 2, id="text of tokens"),
    ],
)
def test_what_a_prompt_weighs(path, fields, text_bytes: int, fixed_tokens: int) -> None:
    """Its text in bytes; media, tools, messages and token ids in tokens; base64 is no text."""
    told = asked(path, **fields)
    assert (told.text_bytes, told.fixed_tokens) == (text_bytes, fixed_tokens)


@pytest.mark.parametrize(
    ("path", "fields", "choices"),
    [
        (CHAT, {}, 1),
        (CHAT, {"n": 3}, 3),
        (CHAT, {"n": None}, 1),
        (CHAT, {"n": "3"}, 3),
        (CHAT, {"n": 3.0}, 3),
        (CHAT, {"n": 0}, 1),
        (CHAT, {"n": -7}, 1),
        (CHAT, {"n": True}, 1),
        (CHAT, {"n": "many"}, 1),
        (CHAT, {"n": [3]}, 1),
        (CHAT, {"n": 10**400}, CHOICES_MAX),
        (CHAT, {"n": "9" * 5_000}, 1),
        (CHAT, {"n": 1e308}, CHOICES_MAX),
        (PLAIN, {"prompt": "a", "n": 2, "best_of": 5}, 5),
        (PLAIN, {"prompt": "a", "n": 5, "best_of": 2}, 5),
        (PLAIN, {"prompt": ["a", "b"], "n": 3}, 6),
        (PLAIN, {"prompt": [[1], [2]], "n": 3}, 6),
        (PLAIN, {"prompt": [1, 2], "n": 3}, 3),
        (PLAIN, {"prompt_embeds": ["a", "b"]}, 2),
        (PLAIN, {"prompt": []}, 1),
        (PLAIN, {"prompt": ["a"] * 99, "n": 10**9}, CHOICES_MAX),
        (RESPONSES, {"input": ["a", "b"]}, 1),
        (ANTHROPIC, {"messages": [user("a"), user("b")]}, 1),
        (AUDIO, {}, 1),
        (EMBED, {"input": ["a", "b"], "n": 3}, 0),
        *[(path, {"n": 3}, 0) for path in DIALECTS if path not in GENERATING],
    ],
)
def test_how_many_replies_are_asked_for(path: str, fields: dict[str, Any], choices: int) -> None:
    """As many as ``n`` or ``best_of`` says, to each prompt; none where nothing is generated."""
    assert asked(path, **fields).choices == choices


@pytest.mark.parametrize(
    ("path", "fields", "cap"),
    [
        (CHAT, {}, None),
        (CHAT, {"max_tokens": 5}, 5),
        (CHAT, {"max_completion_tokens": 5}, 5),
        (CHAT, {"max_tokens": 5, "max_completion_tokens": 9}, 9),
        (CHAT, {"max_tokens": 9, "max_completion_tokens": 5}, 9),
        (CHAT, {"max_tokens": None, "max_completion_tokens": 5}, 5),
        (CHAT, {"max_tokens": None}, None),
        (CHAT, {"max_tokens": "500"}, 500),
        (CHAT, {"max_tokens": "5e2"}, 500),
        (CHAT, {"max_tokens": 500.0}, 500),
        (CHAT, {"max_tokens": "inf"}, None),
        (CHAT, {"max_tokens": {}}, None),
        (CHAT, {"max_tokens": 0}, 0),
        (CHAT, {"max_tokens": -1}, 0),
        (CHAT, {"max_tokens": 10**30}, CAP_MAX),
        (CHAT, {"max_output_tokens": 5}, None),
        (PLAIN, {}, 16),
        (PLAIN, {"max_tokens": None}, 16),
        (PLAIN, {"max_tokens": 5}, 5),
        (RESPONSES, {"max_output_tokens": 5}, 5),
        (RESPONSES, {"max_tokens": 5}, None),
        (ANTHROPIC, {"max_tokens": 5}, 5),
        (AUDIO, {"max_completion_tokens": "5"}, 5),
        (EMBED, {"max_tokens": 5}, None),
    ],
)
def test_how_long_a_reply_may_get(path: str, fields: dict[str, Any], cap: int | None) -> None:
    """The larger of the dialect's fields, read as an engine reads it; a completion has 16 else."""
    told = asked(path, **fields)
    assert (told.default_cap if told.cap is None else told.cap) == cap


@pytest.mark.parametrize(
    ("path", "fields", "chars", "longest"),
    [
        (CHAT, {"messages": [user("é密a")]}, 3, "messages"),
        (CHAT, {"messages": [user("a")], "tools": [TOOL]}, 1 + TOOL_BYTES, "tools"),
        (CHAT, {}, 0, ""),
        (PLAIN, {"prompt": [1, 2, 3]}, 3, "prompt"),
        (SCORE, {"text_1": "ab", "text_2": ["c", "d", "e"]}, 5, "text_2"),
    ],
)
def test_how_many_characters_a_prompt_has(path, fields, chars: int, longest: str) -> None:
    """Characters as the client wrote them, once each; a token id counts as one."""
    told = asked(path, **fields)
    assert (told.chars, told.longest) == (chars, longest)


def test_a_path_nobody_knows() -> None:
    """The whole body is text, and one reply of unknown length is asked for."""
    told = weighed("/v1/later", 999, {"x": "y"}, MODEL)
    assert (told.text_bytes, told.fixed_tokens, told.choices, told.cap) == (999, 0, 1, None)


CARRIERS = {name for one in DIALECTS.values() for name in (*one.carriers, *one.caps)}
PARTS = {"n", "best_of", "content", "type", "role", "image_url", "source", "input", "arguments"}
NAMES = st.sampled_from(sorted(CARRIERS | PARTS))
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(["9" * 5_000, "text", "1_0", "\ud800", 10**400, -(10**400)]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(), inner),
    max_leaves=20,
)


@given(path=st.sampled_from(sorted(DIALECTS)), fields=st.dictionaries(NAMES, ANYTHING))
def test_nothing_that_is_sent_surprises(path: str, fields: dict[str, Any]) -> None:
    """Any JSON has a cost that is finite, bounded and not negative, and the body is not changed."""
    before = repr(fields)
    told = weighed(path, len(before), fields, MODEL)
    assert 0 <= told.text_bytes <= TEXT_MAX
    assert told.fixed_tokens >= 0
    assert told.choices in (range(1, CHOICES_MAX + 1) if path in GENERATING else [0])
    assert told.cap is None or 0 <= told.cap <= CAP_MAX
    assert told.chars >= 0
    assert repr(fields) == before


@given(messages=st.lists(st.builds(user, st.text(st.characters(exclude_categories=["Cs"])))))
def test_text_is_never_more_than_the_body(messages: list[dict[str, Any]]) -> None:
    """What is counted of a chat are the bytes and the characters of what is said."""
    told = asked(CHAT, messages=messages)
    assert told.text_bytes == sum(len(one["content"].encode()) for one in messages)
    assert told.chars == sum(len(one["content"]) for one in messages)


def test_nesting_costs_nothing() -> None:
    """A hundred thousand brackets are walked without recursion."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert asked_deep(deep) == 0


def asked_deep(deep: list[Any]) -> int:
    return weighed(CHAT, 200_000, {"messages": deep, "tools": deep}, MODEL).text_bytes


@pytest.mark.parametrize(
    ("body", "limit_us"),
    [
        pytest.param([user("hello wor" * 55) for _ in range(20)], 300, id="10 kB"),
        pytest.param([user("hello wor" * 55) for _ in range(2_000)], 30_000, id="1 MB"),
        pytest.param([user("密" * 340_000)], 30_000, id="1 MB of Chinese"),
    ],
)
def test_the_cost_of_the_cost(body: list[dict[str, Any]], limit_us: int) -> None:
    """Some ten microseconds for ten kilobytes, a millisecond for a megabyte; ten times is lost."""
    best_s = min(timed(body) for _ in range(20))
    assert best_s * 1e6 < limit_us


def timed(body: list[dict[str, Any]]) -> float:
    began_s = time.perf_counter()
    weighed(CHAT, 0, {"messages": body}, MODEL)
    return time.perf_counter() - began_s


@pytest.mark.parametrize(
    ("source", "text_bytes", "media"),
    [
        ({"type": "text", "media_type": "text/plain", "data": "x" * 99}, 99, 0),
        ({"type": "content", "content": [{"type": "text", "text": "x" * 99}]}, 99, 0),
        ({"type": "content", "content": "x" * 99}, 99, 0),
        ({"type": "base64", "media_type": "application/pdf", "data": "x" * 99}, 0, 1),
        ({"type": "url", "url": "https://example/a.pdf"}, 0, 1),
        ({"type": "text"}, 0, 1),
        ({"type": ["text"], "data": "x"}, 0, 1),
        ("x", 0, 1),
        (None, 0, 0),
    ],
)
def test_a_document_that_is_written_out_is_text(source: Any, text_bytes: int, media: int) -> None:
    """It cost what an image costs, however long it was; what is a file is still media."""
    part = {"type": "document", "source": source}
    fields = {"model": "m", "messages": [{"role": "user", "content": [part]}]}
    model = Model(name="m", image_tokens=1_000)
    found = weighed("/v1/messages", 500, fields, model)
    assert (found.text_bytes, found.fixed_tokens) == (text_bytes, media * 1_000 + 4)


@pytest.mark.parametrize(
    ("raw_bytes", "tokens"), [(0, 1_024), (640 * 1_024, 1_024), (640 * 5_000, 5_000)]
)
def test_a_sound_counts_by_its_bytes(raw_bytes: int, tokens: int) -> None:
    """It cost the same however long it was; and only one field of a form bounds its reply."""
    fields = {"model": "m", "max_tokens": "1", "max_completion_tokens": "9"}
    told = weighed(AUDIO, raw_bytes, fields, Model(name="m"))
    assert (told.fixed_tokens, told.cap, told.choices) == (tokens, 9, 1)
    assert weighed(AUDIO, raw_bytes, {"max_tokens": "1"}, Model(name="m")).cap is None
