"""The usage in a reply, found as it goes by."""

import json
import time
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.ingress.reading import usage as reading
from serve_app.ingress.reading.dialects import DIALECTS
from serve_app.ingress.reading.usage import MAX_HELD_BYTES, JsonUsage, StreamUsage
from serve_app.limits import Usage

CHUNKS = DIALECTS["/v1/chat/completions"].stream
DONE = b"data: [DONE]\n\n"
TOLD = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


def frame(event: dict[str, object]) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def said(text: str, **more: object) -> bytes:
    return frame({"choices": [{"delta": {"content": text}}], **more})


USAGE = frame({"choices": [], "usage": TOLD})
FRAMES = st.builds(said, st.text(max_size=12) | st.sampled_from(['"usage"', "[DONE]", "\n\n", "ü"]))
BODIES = st.lists(FRAMES, max_size=6).map(b"".join)


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """``data`` in pieces, cut at ``places``."""
    at = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(at)]


def passed(reader: StreamUsage | JsonUsage, chunks: Iterable[bytes]) -> bytes:
    """What the client gets of ``chunks``."""
    return b"".join([*map(reader.feed, chunks), reader.end()])


@given(body=BODIES, keep=st.booleans(), places=st.lists(st.integers(0, 600), max_size=12))
def test_the_cut_does_not_matter(body: bytes, keep: bool, places: list[int]) -> None:
    """However a stream comes in pieces, the same bytes go on and the usage is found.

    The usage frame is dropped unless it was asked for.
    """
    usage = Usage()
    reader = StreamUsage(usage, CHUNKS, keep_frame=keep)
    got = passed(reader, cut(body + USAGE + DONE, places))
    assert got == body + (USAGE if keep else b"") + DONE
    assert usage == Usage(11, 7)
    assert reader.finished


@given(
    data=st.lists(st.sampled_from([b"\n", b"\n\n", b"data: 1", b'"usage"', b"[DONE]", b":"])),
    places=st.lists(st.integers(0, 60), max_size=12),
)
def test_no_byte_of_rubbish_is_lost(data: list[bytes], places: list[int]) -> None:
    """Whatever an engine sends, all of it arrives, and it is counted alike however it is cut."""
    whole, pieces = Usage(), Usage()
    text = b"".join(data)
    assert passed(StreamUsage(whole, CHUNKS, keep_frame=False), [text]) == text
    assert passed(StreamUsage(pieces, CHUNKS, keep_frame=False), cut(text, places)) == text
    assert whole == pieces


def test_only_whole_frames_go_on() -> None:
    """A frame's first half waits for its end: nobody gets half a usage frame."""
    reader = StreamUsage(Usage(), CHUNKS, keep_frame=False)
    assert reader.feed(said("a") + b"data: {") == said("a")
    assert reader.feed(b'"choices"') == b""
    assert reader.feed(b":[]}\n") == b""
    assert reader.feed(b"\nda") == b'data: {"choices":[]}\n\n'
    assert reader.end() == b"da"


@pytest.mark.parametrize(
    ("stream", "output", "finished"),
    [
        pytest.param([said("a"), said("b")], 2, False, id="cut between frames"),
        pytest.param([said("a"), said("b")[:9]], 1, False, id="cut inside a frame"),
        pytest.param([said("a"), USAGE], 7, False, id="cut before the end mark"),
        pytest.param([said("a"), DONE[:-1]], 1, False, id="cut inside the end mark"),
        pytest.param([said("a"), said("[DONE]")], 2, False, id="an end mark that is only said"),
        pytest.param([], 0, False, id="nothing"),
        pytest.param([said("a"), DONE], 1, True, id="an engine that tells no usage"),
        pytest.param([said("a", usage=None), said("b", usage=None)], 2, False, id="usage: null"),
        pytest.param([said("a", usage=TOLD)], 7, False, id="usage in every frame"),
    ],
)
def test_a_broken_stream(stream: list[bytes], output: int, finished: bool) -> None:
    """Without its end mark a stream is not finished; until usage is told, frames are counted."""
    for chunks in (stream, [b"".join(stream)]):
        usage = Usage(input_tokens=5)
        reader = StreamUsage(usage, CHUNKS, keep_frame=False)
        assert passed(reader, chunks) == b"".join(stream).replace(USAGE, b"")
        assert (usage.output_tokens, reader.finished) == (output, finished)


@pytest.mark.parametrize("body", [b"x", b"x\n"])
def test_a_frame_of_twice_the_length_takes_about_twice_as_long(body: bytes) -> None:
    """However small the pieces it comes in; one of 10 MB kept the event loop for ten seconds."""

    def took_s(pieces: int) -> float:
        reader = StreamUsage(Usage(), CHUNKS, keep_frame=False)
        began = time.process_time()
        for _ in range(pieces):
            reader.feed(body * 500)
        return time.process_time() - began

    took_s(100)
    assert took_s(7_000) < 60 * took_s(700) + 0.05


@given(places=st.lists(st.integers(0, 400), max_size=12), long=st.integers(150, 300))
def test_a_frame_beyond_the_bound_goes_on_unread(places: list[int], long: int) -> None:
    """No byte is lost, held back for ever or read twice; what follows it is read again."""
    text = said("a") + said("b" * long) + said("c") + USAGE + DONE
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "MAX_FRAME_BYTES", 150)
        usage = Usage()
        reader = StreamUsage(usage, CHUNKS, keep_frame=True)
        assert passed(reader, cut(text, places)) == text
    assert (reader.finished, usage.output_tokens, reader.frames) == (True, 7, 5)


def test_of_a_frame_beyond_the_bound_little_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as one piece; one that ends the stream ends it, though its usage is not read."""
    monkeypatch.setattr(reading, "MAX_FRAME_BYTES", 64)
    events = DIALECTS["/v1/responses"].stream
    ended = b"event: response.completed\ndata: " + b"x" * 300
    delta = b"event: response.output_text.delta\ndata: " + b"x" * 300
    for text, finished, output in ((ended, True, 0), (delta, False, 1)):
        usage = Usage()
        reader = StreamUsage(usage, events, keep_frame=True)
        for at in range(0, len(text), 10):
            reader.feed(text[at : at + 10])
            assert reader._rest_bytes <= 64
        assert passed(reader, [b"\n", b"\n"]).endswith(b"\n\n")
        assert (reader.finished, usage.output_tokens, reader.frames) == (finished, output, 1)


def test_usage_beside_content_is_passed_on() -> None:
    """A frame that carries content is never dropped, though it carries usage too."""
    both = said("last words", usage=TOLD)
    assert passed(StreamUsage(Usage(), CHUNKS, keep_frame=False), [both, DONE]) == both + DONE


@given(places=st.lists(st.integers(0, 200), max_size=8))
def test_json(places: list[int]) -> None:
    """A whole reply is passed on as it comes, and its usage is read at the end."""
    body = json.dumps({"choices": [{"message": {"content": "ü"}}], "usage": TOLD}).encode()
    usage = Usage()
    reader = JsonUsage(usage)
    chunks = cut(body, places)
    assert [reader.feed(chunk) for chunk in chunks] == chunks
    assert reader.end() == b""
    assert reader.finished
    assert usage == Usage(11, 7)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not JSON",
        b"[]",
        b"\xff\xfe",
        b'{"usage": null}',
        b'{"usage": 3}',
        b'{"error": {"message": "no"}}',
    ],
)
def test_a_reply_without_usage(body: bytes) -> None:
    """Passed on untouched; what was known of the usage stays."""
    usage = Usage(input_tokens=5)
    reader = JsonUsage(usage)
    assert passed(reader, [body]) == body
    assert usage == Usage(input_tokens=5)


@pytest.mark.parametrize("step", [999, 65_536, MAX_HELD_BYTES + 1, 10**9])
def test_of_a_huge_reply_little_is_kept(step: int) -> None:
    """Its usage is found where it stands, not where it is only said; it was charged nothing."""
    tail = json.dumps({"said": 'of "usage": {"prompt_tokens": 1}', "object": "usage"})
    body = b'{"text": "' + b"x" * MAX_HELD_BYTES + b'", ' + tail[1:-1].encode()
    body += b', "usage" : ' + json.dumps(TOLD).encode() + b', "model": "m"}'
    usage = Usage()
    reader = JsonUsage(usage)
    for at in range(0, len(body), step):
        assert reader.feed(body[at : at + step]) == body[at : at + step]
        assert len(reader._held) <= MAX_HELD_BYTES
    assert reader.end() == b""
    assert usage == Usage(11, 7)
    assert reader.told == {"input", "output"}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            {"id": "r", "usage": TOLD, "results": [{"document": {"usage": {}}}]}, id="an order"
        ),
        pytest.param({"choices": ["a" * 99_999], "usage": TOLD, "prompt_logprobs": [1]}, id="chat"),
        pytest.param(
            {"content": [{"input": {"usage": {"input_tokens": 0}}}], "usage": TOLD}, id="message"
        ),
    ],
)
def test_of_a_huge_reply_the_usage_is_found_anywhere(body: dict[str, object]) -> None:
    """At its top, before or behind what is long; rerank's replies over 1 MB were free."""
    text = json.dumps(body | {"more": ["x" * 999] * 1_100}).encode()
    usage = Usage()
    passed(JsonUsage(usage), cut(text, range(0, len(text), 65_536)))
    assert usage == Usage(11, 7)


@pytest.mark.parametrize("tail", [b'"usage": {"prompt', b'"usage": 3}', b"\xff", b""])
def test_a_huge_reply_may_tell_nothing(tail: bytes) -> None:
    """What was known of the usage stays."""
    usage = Usage(5, 3)
    reader = JsonUsage(usage)
    passed(reader, [b" " * MAX_HELD_BYTES, tail, b" "])
    assert (usage, reader.told) == (Usage(5, 3), set())


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        pytest.param(TOLD, Usage(11, 7, 0), id="OpenAI"),
        pytest.param(
            {**TOLD, "prompt_tokens_details": {"cached_tokens": 4}}, Usage(11, 7, 4), id="cached"
        ),
        pytest.param({**TOLD, "prompt_tokens_details": None}, Usage(11, 7, 0), id="no details"),
        pytest.param(
            {**TOLD, "prompt_tokens_details": {"cached_tokens": None}}, Usage(11, 7, 0), id="null"
        ),
        pytest.param(
            {**TOLD, "prompt_tokens_details": {"cached_tokens": 99}},
            Usage(11, 7, 11),
            id="too many",
        ),
        pytest.param(
            {"input_tokens": 11, "output_tokens": 7, "input_tokens_details": {"cached_tokens": 4}},
            Usage(11, 7, 4),
            id="a response",
        ),
        pytest.param(
            {
                "input_tokens": 5,
                "output_tokens": 7,
                "cache_read_input_tokens": 4,
                "cache_creation_input_tokens": 2,
            },
            Usage(11, 7, 4),
            id="Anthropic",
        ),
        pytest.param({"prompt_tokens": 11, "total_tokens": 11}, Usage(11, 3, 0), id="an embedding"),
        pytest.param({"output_tokens": 7}, Usage(5, 7, 0), id="one count after the other"),
        pytest.param({"prompt_tokens": None, "completion_tokens": 7}, Usage(5, 7, 0), id="unknown"),
        pytest.param(
            {"prompt_tokens": -1, "completion_tokens": "7"}, Usage(5, 3, 0), id="no count"
        ),
        pytest.param(
            {"prompt_tokens": True, "completion_tokens": 0.5}, Usage(5, 3, 0), id="no int"
        ),
        pytest.param({}, Usage(5, 3, 0), id="nothing"),
    ],
)
def test_the_counts_of_every_dialect(told: dict[str, object], usage: Usage) -> None:
    """Input, output and what was cached of the input; what is not told stays as it was."""
    found = Usage(input_tokens=5, output_tokens=3)
    passed(JsonUsage(found), [json.dumps({"usage": told}).encode()])
    assert found == usage


def test_the_cache_is_read_from_a_stream_too() -> None:
    """The usage frame tells it; before that it is nothing."""
    usage = Usage()
    told = {**TOLD, "prompt_tokens_details": {"cached_tokens": 4}}
    passed(
        StreamUsage(usage, CHUNKS, keep_frame=False),
        [said("a"), frame({"choices": [], "usage": told})],
    )
    assert usage == Usage(11, 7, 4)


def test_the_frame_that_begins_a_choice_is_no_token() -> None:
    """Each choice of a chat is opened by a frame that says nothing; it was charged as a token."""
    opening = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
    for chunks in ([opening * 2 + said("a")], [opening[:30], opening[30:] + opening, said("a")]):
        usage = Usage()
        passed(StreamUsage(usage, CHUNKS, keep_frame=False), chunks)
        assert usage.output_tokens == 1


@pytest.mark.parametrize("opening", [b"[", b'{"usage":'])
@pytest.mark.parametrize("times", [100, 100_000])
def test_a_reply_nested_without_end_passes(opening: bytes, times: int) -> None:
    """Whoever parses it must not fall over it: it goes on, and tells no usage."""
    whole = opening * times + b'"usage": 1'
    for reader in (JsonUsage(Usage()), StreamUsage(Usage(), CHUNKS, keep_frame=True)):
        assert passed(reader, [whole + b"\n\n", DONE]) == whole + b"\n\n" + DONE
        assert reader.told == set()
