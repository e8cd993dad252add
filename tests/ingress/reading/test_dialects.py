"""The table of dialects: how each streams, tells its usage, is ranked, refuses (§2, §5)."""

import json
from typing import Any

import httpx
import openai
import pytest

from serve_app.errors import InvalidRequest, UpstreamFailed
from serve_app.ingress import ENDPOINTS, refusals
from serve_app.ingress.reading.call import Call, read
from serve_app.ingress.reading.dialects import DIALECTS, RANK_HEADER, dialect_of
from serve_app.ingress.reading.usage import JsonUsage, StreamUsage
from serve_app.limits import Usage
from serve_app.model_settings import Model

CHAT, PLAIN, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MESSAGES, COUNT, SOUND = "/v1/messages", "/v1/messages/count_tokens", "/v1/audio/transcriptions"
POOLING = ["/v1/embeddings", "/v1/score", "/v1/rerank"]
MODELS = {"m": Model(name="m")}


def event(kind: str, **members: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()


def data(**members: Any) -> bytes:
    return b"data: " + json.dumps(members).encode() + b"\n\n"


SAID = data(choices=[{"delta": {"content": "a"}}])
USED = {"input_tokens": 9, "output_tokens": 2}
OF_CHAT = {"prompt_tokens": 9, "completion_tokens": 2}
BEGUN = event("message_start", message={"usage": {"input_tokens": 9, "output_tokens": 0}})
BLOCK = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "a"})
CREATED = event("response.created", response={"usage": None})
DELTA = event("response.output_text.delta", delta="a")
STREAMS = {
    CHAT: ([SAID, SAID], data(choices=[], usage=OF_CHAT), b"data: [DONE]\n\n"),
    PLAIN: ([SAID, SAID], data(choices=[], usage=OF_CHAT), b"data: [DONE]\n\n"),
    SOUND: ([SAID, SAID], data(choices=[], usage=OF_CHAT), b"data: [DONE]\n\n"),
    RESPONSES: (
        [CREATED, DELTA, DELTA],
        b"",
        event("response.completed", response={"usage": USED}),
    ),
    MESSAGES: (
        [BEGUN, BLOCK, BLOCK],
        event("message_delta", delta={}, usage=USED),
        event("message_stop"),
    ),
}
"""Of each dialect that streams: pieces, what tells the usage if it is no piece, the end."""


def reader_of(path: str, usage: Usage) -> StreamUsage:
    stream = DIALECTS[path].stream
    assert stream is not None
    return StreamUsage(usage, stream, keep_frame=True)


def asked(path: str, **fields: Any) -> Call:
    body = {"model": "m", **fields}
    return read(path, json.dumps(body).encode(), body, MODELS)


def test_every_row_is_a_route() -> None:
    """A row of the table is reached, and a key may be confined to it."""
    assert set(DIALECTS) == ENDPOINTS


def test_what_streams_has_its_stream_here() -> None:
    """A new dialect that streams is tried below."""
    assert set(STREAMS) == {path for path, one in DIALECTS.items() if one.stream is not None}


@pytest.mark.parametrize("path", STREAMS)
@pytest.mark.parametrize("cut", [1, 7, 10_000])
def test_a_stream_ends_well(path: str, cut: int) -> None:
    """Every byte goes on, however it is cut; the usage is the engine's; the end mark is seen."""
    pieces, told, end = STREAMS[path]
    whole, usage = b"".join(pieces) + told + end, Usage(input_tokens=5)
    reader = reader_of(path, usage)
    parts = [reader.feed(whole[at : at + cut]) for at in range(0, len(whole), cut)]
    assert b"".join(parts) + reader.end() == whole
    assert (usage, reader.finished, reader.failed) == (Usage(9, 2), True, False)


@pytest.mark.parametrize("path", STREAMS)
def test_a_stream_that_breaks_counts_what_came(path: str) -> None:
    """Two pieces came: two tokens, and of the input what was told or else held; it has no end."""
    pieces, _, _ = STREAMS[path]
    usage = Usage(input_tokens=5)
    reader = reader_of(path, usage)
    assert reader.feed(b"".join(pieces)) == b"".join(pieces)
    assert usage == Usage(9 if path == MESSAGES else 5, 2)
    assert not reader.finished


GONE, BAD = {"message": "See stack trace above"}, {"message": "No such grammar.", "code": 400}
BY_TYPE = {"message": "No such grammar.", "type": "BadRequestError"}


@pytest.mark.parametrize(
    ("path", "error", "goes_on"),
    [
        (CHAT, data(error=GONE | {"code": 500, "type": "InternalServerError"}), False),
        (CHAT, data(error=GONE), False),
        (CHAT, data(error=BAD), True),
        (CHAT, data(error=BY_TYPE), True),
        (SOUND, data(error=GONE), False),
        (SOUND, data(error=BAD), True),
        (RESPONSES, event("error", **GONE), False),
        (RESPONSES, event("error", **BAD), True),
        (MESSAGES, event("error", error=GONE | {"type": "internal_error"}), False),
        (MESSAGES, event("error", error=GONE | {"type": "invalid_request_error"}), True),
    ],
)
def test_an_engine_gives_up(path: str, error: bytes, goes_on: bool) -> None:
    """What was wrong with the request it says itself; its own faults, with their stacks, the gate.

    Nothing follows: no end mark, not even its own.
    """
    pieces, _, end = STREAMS[path]
    for chunks in ([*pieces, error, end], [b"".join(pieces) + error + end], [error + end[:5]]):
        reader = reader_of(path, Usage())
        got = b"".join([*map(reader.feed, chunks), reader.end()])
        came = b"".join(pieces) if len(chunks) > 1 or pieces[0] in chunks[0] else b""
        assert got == came + error * goes_on
        assert (reader.finished, reader.failed, reader.broken) == (True, True, not goes_on)


@pytest.mark.parametrize("how", ["completed", "failed", "incomplete"])
def test_a_response_ends_in_three_ways(how: str) -> None:
    """Each of them is an end of the stream and tells what was used."""
    usage = Usage()
    reader = reader_of(RESPONSES, usage)
    reader.feed(event(f"response.{how}", response={"usage": USED}))
    assert (reader.finished, usage) == (True, Usage(9, 2))


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        pytest.param({"usage": USED}, Usage(9, 2), id="a message or a response"),
        pytest.param({"usage": {"prompt_tokens": 4, "total_tokens": 4}}, Usage(4, 0), id="pooling"),
        pytest.param({"usage": {"type": "duration", "seconds": 3}}, Usage(), id="a sound"),
        pytest.param({"count": 3, "tokens": [1, 2, 3]}, Usage(), id="tokens"),
        pytest.param({"input_tokens": 3}, Usage(), id="counted, not used"),
        pytest.param(
            {"usage": {**USED, "cache_read_input_tokens": 4}}, Usage(13, 2, 4), id="cached"
        ),
    ],
)
def test_a_whole_reply(told: dict[str, Any], usage: Usage) -> None:
    """Each dialect's usage is read by its names; what was not used is not charged."""
    found = Usage()
    reader = JsonUsage(found)
    reader.feed(json.dumps(told).encode())
    reader.end()
    assert found == usage


@pytest.mark.parametrize("path", sorted(DIALECTS))
def test_only_who_reads_stream_options_gets_them(path: str) -> None:
    """Elsewhere nothing is added to a stream's request, and what the client says of them passes."""
    fields: dict[str, Any] = {"stream": True}
    if path not in (CHAT, PLAIN):
        fields["stream_options"] = "whatever"
    call = asked(path, **fields)
    sent = json.loads(call.body)
    expected = {"include_usage": True} if path in (CHAT, PLAIN) else "whatever"
    assert sent["stream_options"] == expected
    assert call.streaming == (path in STREAMS)
    assert call.wants_usage == (path not in (CHAT, PLAIN))


@pytest.mark.parametrize("path", sorted(DIALECTS))
def test_the_rank_stands_where_the_engine_reads_it(path: str) -> None:
    """In the field, in the header, or nowhere; the client's own never counts."""
    ranked = asked(path, priority=-9).ranked(2)
    body = json.loads(ranked.body)
    if path in (CHAT, PLAIN, RESPONSES, *POOLING):
        assert (body["priority"], ranked.headers) == (2, {})
    else:
        wanted = {RANK_HEADER: "2"} if path == MESSAGES else {}
        assert (body["priority"], ranked.headers) == (-9, wanted)


@pytest.mark.parametrize(
    ("said", "streams"),
    [("true", True), ("True", True), ("1", True), ("false", False), ("0", False), ("", False)],
)
def test_a_form_asks_for_a_stream_in_words(said: str, streams: bool) -> None:
    """As an engine reads them; the bytes of the form stay as they are."""
    call = read(SOUND, b"--x", {"model": "m", "stream": said}, MODELS, media_type="m/f")
    assert (call.streaming, call.body, call.media_type) == (streams, b"--x", "m/f")
    assert call.capped(5).ranked(2).body == b"--x"


@pytest.mark.parametrize("said", ["yes", "on", "t", "2", "tru\u0435"])
def test_a_word_that_an_engine_might_read_otherwise_is_refused(said: str) -> None:
    """Nobody streams without the permission because two readers differ."""
    with pytest.raises(InvalidRequest, match="'stream' must be"):
        read(SOUND, b"--x", {"model": "m", "stream": said}, MODELS)


def test_a_response_says_whether_it_is_kept_and_what_it_follows() -> None:
    """Kept unless the client says not to; its name is the gate's, whatever the body says."""
    call = asked(RESPONSES, previous_response_id="resp_1", request_id="mine")
    assert (call.kept, call.follows) == (True, "resp_1")
    assert json.loads(call.named("resp_2").body)["request_id"] == "resp_2"
    assert not asked(RESPONSES, store=False).kept
    assert asked(CHAT, previous_response_id=5).follows == ""
    with pytest.raises(InvalidRequest, match="previous_response_id"):
        asked(RESPONSES, previous_response_id=5)


@pytest.mark.parametrize(
    ("path", "above"),
    [
        (CHAT, CHAT),
        ("/api/v1/messages", MESSAGES),
        (COUNT, COUNT),
        ("/v1/messages/batches", MESSAGES),
        ("/v1/responses/resp_1/cancel", RESPONSES),
        ("/v1/messagesque", None),
        ("/v1/models", None),
        ("/", None),
        ("", None),
    ],
)
def test_a_path_has_the_dialect_above_it(path: str, above: str | None) -> None:
    """Also an unknown one: whoever calls below ``/v1/messages`` reads Anthropic's errors."""
    assert dialect_of(path) is (DIALECTS[above] if above else None)


BROKE = UpstreamFailed("It broke.")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (CHAT, refusals.body(BROKE)),
        (
            RESPONSES,
            {
                "type": "error",
                "sequence_number": 7,
                "code": "upstream_failed",
                "message": "It broke.",
                "param": None,
                **refusals.body(BROKE),
            },
        ),
        (MESSAGES, {"type": "error", "error": {"type": "api_error", "message": "It broke."}}),
    ],
)
def test_a_broken_stream_ends_in_its_dialects_shape(path: str, told: dict[str, Any]) -> None:
    """An event ``error`` that the official clients raise, and no end mark."""
    head, body, *rest = refusals.event(BROKE, path, 7).split(b"\n")
    assert (head, json.loads(body.removeprefix(b"data: ")), rest) == (
        b"event: error",
        told,
        [b"", b""],
    )


def breaking(path: str, web: Any) -> Any:
    """A client whose every request gets a stream that breaks after its first pieces."""
    pieces, _, _ = STREAMS[path]
    body = b"".join(pieces) + refusals.event(BROKE, path, len(pieces))
    answer = web.Response(200, headers={"content-type": "text/event-stream"}, content=body)
    return web.Client(transport=web.MockTransport(lambda _request: answer))


HELLO: list[Any] = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_openais_client_raises_a_broken_stream(path: str) -> None:
    """A chat or a response: what came is told, then the error, with our code."""
    stream: Any
    with breaking(path, httpx) as web:
        client = openai.OpenAI(api_key="k", base_url="http://x/v1", http_client=web)
        if path == CHAT:
            stream = client.chat.completions.create(model="m", messages=HELLO, stream=True)
        else:
            stream = client.responses.create(model="m", input="Hello", stream=True)
        got: list[Any] = []
        with pytest.raises(openai.APIError, match="It broke") as told:
            got.extend(stream)
    assert told.value.code == "upstream_failed"
    assert len(got) == len(STREAMS[path][0])


def test_anthropics_client_raises_a_broken_stream() -> None:
    """A message: what came is told, then the error."""
    anthropic: Any = pytest.importorskip("anthropic", reason="it comes with vLLM")
    got: list[Any] = []
    with breaking(MESSAGES, pytest.importorskip("httpx2")) as web:
        client = anthropic.Anthropic(api_key="k", base_url="http://x", http_client=web)
        stream = client.messages.create(model="m", messages=HELLO, max_tokens=1, stream=True)
        with pytest.raises(anthropic.APIStatusError, match="It broke"):
            got.extend(stream)
    assert len(got) == len(STREAMS[MESSAGES][0])
