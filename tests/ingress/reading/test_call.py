"""What a client asks of a model, and what the engine gets of it (CONTRACT §3)."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import InvalidRequest, NoSuchModel, PromptTooLong
from serve_app.ingress.reading.call import Call, append, read
from serve_app.model_settings import Model

MODELS = {"small": Model(name="small"), "org/large": Model(name="org/large")}
CHAT = "/v1/chat/completions"

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=8) | st.sampled_from(["a", "b"]), VALUES, max_size=5)
BLANKS = st.text(" \t\r\n", max_size=3)


def written(fields: dict[str, Any]) -> Call:
    return read(CHAT, json.dumps(fields).encode(), fields, MODELS)


def test_an_alias_counts_as_its_model_and_an_adapter_as_itself() -> None:
    """The bytes stay; limits, usage and log know the alias as the model (CONTRACT §3)."""
    model = Model(name="small", aliases=["gpt"], adapters=[{"name": "poet", "source": "org/p"}])
    for asked, counts_as in (("small", "small"), ("gpt", "small"), ("poet", "poet")):
        raw = json.dumps({"model": asked, "messages": []}).encode()
        call = read(CHAT, raw, json.loads(raw), dict.fromkeys(("small", "gpt", "poet"), model))
        assert (call.body, call.model, call.counts_as) == (raw, model, counts_as)


@given(fields=OBJECTS, ours=OBJECTS, indent=st.none() | st.integers(0, 2), blank=BLANKS)
def test_appended_members_win_and_nothing_else_changes(fields, ours, indent, blank) -> None:
    """The last mention of a member counts; every byte before the end stays as it was written."""
    text = json.dumps(fields, indent=indent, ensure_ascii=bool(indent))
    raw = (blank + text + blank).encode(errors="surrogatepass")
    added = append(raw, ours)
    if not ours:
        assert added == raw
    kept = raw.rstrip(b" \t\r\n").removesuffix(b"}").rstrip(b" \t\r\n")
    assert json.loads(added.decode(errors="surrogatepass")) == {**fields, **ours}
    assert added.startswith(kept)


@pytest.mark.parametrize(
    ("raw", "members", "added"),
    [
        (b"{}", {"a": 1}, b'{"a":1}'),
        (b" { } ", {"a": 1}, b' {"a":1}'),
        (b'{"b":"}"}', {"a": 1}, b'{"b":"}","a":1}'),
        (b'{"b":{}}\n', {"a": 1}, b'{"b":{},"a":1}'),
        (b'{ "a" : 0 }', {"a": 1}, b'{ "a" : 0,"a":1}'),
        (b' {"b": 1}\n', {}, b' {"b": 1}\n'),
    ],
)
def test_append(raw: bytes, members: dict[str, Any], added: bytes) -> None:
    """The object is reopened at its end; with nothing to add it stays as it is."""
    assert append(raw, members) == added


@given(fields=OBJECTS)
def test_what_the_gate_need_not_change_stays_byte_for_byte(fields: dict[str, Any]) -> None:
    """Without a stream and a priority the engine gets what the client wrote."""
    kept = {k: v for k, v in fields.items() if k not in ("stream", "stream_options", "priority")}
    raw = json.dumps({**kept, "model": "small"}, indent=1).encode()
    assert read(CHAT, raw, json.loads(raw), MODELS).body == raw


@pytest.mark.parametrize(
    ("asked", "sent", "wants_usage"),
    [
        ({"stream": True}, {"include_usage": True}, False),
        ({"stream": True, "stream_options": None}, {"include_usage": True}, False),
        ({"stream": True, "stream_options": {}}, {"include_usage": True}, False),
        (
            {"stream": True, "stream_options": {"include_usage": False}},
            {"include_usage": True},
            False,
        ),
        (
            {"stream": True, "stream_options": {"include_usage": True}},
            {"include_usage": True},
            True,
        ),
        (
            {"stream": True, "stream_options": {"continuous_usage_stats": True}},
            {"include_usage": True},
            False,
        ),
        (
            {"stream": True, "stream_options": {"other": 1, "include_usage": False}},
            {"other": 1, "include_usage": True},
            False,
        ),
        (
            {
                "stream": True,
                "stream_options": {"continuous_usage_stats": True, "include_usage": True},
            },
            {"continuous_usage_stats": True, "include_usage": True},
            True,
        ),
    ],
)
def test_a_stream_always_tells_its_usage(asked, sent, wants_usage) -> None:
    """The engine is asked for the usage frame beside the client's options; its wish is noted."""
    call = written({"model": "small", **asked})
    assert json.loads(call.body)["stream_options"] == sent
    assert (call.streaming, call.wants_usage) == (True, wants_usage)


@pytest.mark.parametrize("priority", [-1_000, 0, "first", None])
def test_a_client_does_not_choose_its_priority(priority: object) -> None:
    """The engine sees 0, whatever the body says; the class decides."""
    call = written({"model": "small", "priority": priority})
    assert json.loads(call.body)["priority"] == 0


FCFS = {"scheduling_policy": "fcfs"}


@pytest.mark.parametrize(
    ("path", "model", "rank", "added"),
    [
        pytest.param(CHAT, {}, 0, None, id="the highest"),
        pytest.param(CHAT, {}, 2, 2, id="vllm"),
        pytest.param("/v1/completions", {"engine": "simulated"}, 1, 1, id="simulated"),
        pytest.param(CHAT, {"engine_args": FCFS}, 2, None, id="first come first served"),
        pytest.param(CHAT, {"engine_args": {"scheduling-policy": None}}, 2, None, id="vllm's own"),
        pytest.param(
            CHAT, {"engine": "simulated", "engine_args": FCFS}, 3, 3, id="simulated, whatever"
        ),
        pytest.param("/v1/audio/transcriptions", {}, 2, None, id="no JSON"),
        pytest.param("/unknown", {}, 2, None, id="who knows what"),
    ],
)
def test_an_engine_is_told_the_rank(path, model, rank, added) -> None:
    """Of its class, if it schedules by it; what the client wrote stays byte for byte before it."""
    raw = b'{ "model": "small" ,\n "messages": [] }\n'
    call = read(path, raw, json.loads(raw), {"small": Model(name="small", **model)})
    sent = call.ranked(rank).body
    if added is None:
        assert sent == raw
    else:
        assert sent.startswith(raw.rstrip(b" }\n"))
        assert json.loads(sent) == {**json.loads(raw), "priority": added}


@pytest.mark.parametrize("rank", [0, 1, 15])
@pytest.mark.parametrize("theirs", [-1_000, 0, "first", None])
def test_the_rank_goes_over_the_clients_priority(theirs: object, rank: int) -> None:
    """Also over that of a body in which it stands twice: the last mention wins."""
    call = written({"model": "small", "priority": theirs})
    assert json.loads(call.ranked(rank).body)["priority"] == rank


@pytest.mark.parametrize("stream", [False, None])
def test_no_stream(stream: object) -> None:
    """False and null ask for a whole reply, and nothing is added."""
    call = written({"model": "small", "stream": stream})
    assert not call.streaming
    assert b"stream_options" not in call.body


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "model"),
        ({"model": None}, "model"),
        ({"model": 1}, "model"),
        ({"model": ["small"]}, "model"),
        ({"model": "small", "stream": 1}, "stream"),
        ({"model": "small", "stream": "true"}, "stream"),
        ({"model": "small", "stream": {"on": True}}, "stream"),
        ({"model": "small", "stream": 0}, "stream"),
        ({"model": "small", "stream": ""}, "stream"),
        ({"model": "small", "stream": True, "stream_options": [1]}, "stream_options"),
        ({"model": "small", "stream": True, "stream_options": "usage"}, "stream_options"),
        ({"model": "small", "stream": True, "stream_options": []}, "stream_options"),
        ({"model": "small", "stream": True, "stream_options": False}, "stream_options"),
    ],
)
def test_a_wrong_type_is_named(fields: dict[str, Any], param: str) -> None:
    """A field that the gate must understand has its type, or 400 names it; null is absent."""
    with pytest.raises(InvalidRequest, match=f"'{param}' must be") as told:
        written(fields)
    assert (told.value.status, told.value.param) == (400, param)


@pytest.mark.parametrize("name", ["", "Small", "small ", "large", "x" * 5_000, "\ud800"])
def test_a_model_that_is_not_there(name: str) -> None:
    """404 repeats at most 128 characters of the name."""
    with pytest.raises(NoSuchModel) as told:
        written({"model": name})
    assert (told.value.status, told.value.code) == (404, "model_not_found")
    assert told.value.param == "model"
    assert f"'{name[:128]}'" in str(told.value)
    assert len(str(told.value)) < 200


@pytest.mark.parametrize(
    ("path", "fields", "sent"),
    [
        (CHAT, {}, {"max_tokens": 7}),
        (CHAT, {"max_tokens": None}, {"max_tokens": 7}),
        ("/v1/completions", {}, {"max_tokens": 7}),
        ("/v1/responses", {}, {"max_output_tokens": 7}),
        ("/v1/messages", {}, {"max_tokens": 7}),
        ("/v1/embeddings", {}, {}),
        ("/v1/audio/transcriptions", {}, {}),
        ("/unknown", {}, {}),
    ],
)
def test_a_cap_is_put_into_the_dialects_own_field(path, fields, sent) -> None:
    """A request that names no cap gets one; where nothing is generated, nothing is added."""
    asked = {"model": "small", **fields}
    call = read(path, json.dumps(asked).encode(), asked, MODELS)
    assert json.loads(call.capped(7).body) == {**asked, **sent}


@pytest.mark.parametrize(
    ("most", "chars", "fits"), [(10, 10, True), (10, 11, False), (0, 11, True)]
)
def test_a_prompt_has_so_many_characters(most: int, chars: int, fits: bool) -> None:
    """Characters, not bytes, of the text alone; one more is 400 and names field, count, limit."""
    messages = [
        {"role": "system", "content": "密" * 5},
        {"role": "user", "content": [{"type": "text", "text": "é" * (chars - 5)}]},
    ]
    fields = {"model": "small", "messages": messages}
    raw = json.dumps(fields).encode()
    if fits:
        assert read(CHAT, raw, fields, MODELS, max_prompt_chars=most).body == raw
        return
    with pytest.raises(PromptTooLong, match=r"11 characters.*'messages'.*at most 10") as told:
        read(CHAT, raw, fields, MODELS, max_prompt_chars=most)
    assert (told.value.status, told.value.code) == (400, "prompt_too_long")
    assert told.value.param == "messages"


@pytest.mark.parametrize("said", [True, 1, "true", "on", "false", 0, [], {}])
def test_nothing_is_made_in_the_background(said: object) -> None:
    """It would go on without a seat and a charge: whatever an engine may read as yes is 400."""
    fields = {"model": "small", "input": "a", "background": said}
    with pytest.raises(InvalidRequest, match="must be false") as told:
        read("/v1/responses", json.dumps(fields).encode(), fields, MODELS)
    assert (told.value.status, told.value.param) == (400, "background")
    for no in (False, None):
        read("/v1/responses", b"{}", {**fields, "background": no}, MODELS)
