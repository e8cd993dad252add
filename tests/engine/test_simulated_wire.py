"""The frames, byte by byte as vLLM 0.32 writes them."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.engine.simulated.reply import Reply
from serve_app.engine.simulated.request import Ask
from serve_app.engine.simulated.wire import CHAT, COMPLETION, Dialect, Envelope, Frames, whole

PIECES = ("one", " two", " three")


def ask(*, stop: str | None = None, usage: bool = False, continuous: bool = False) -> Ask:
    reply = Reply(PIECES, "stop" if stop else "length", stop)
    return Ask(7, reply, 0, stream=True, include_usage=usage, continuous_usage=continuous)


def envelope(dialect: Dialect, model: str = "sim") -> Envelope:
    return Envelope(dialect, "x", 1, model)


def told(stream: bytes) -> list[str]:
    """Return the data of every frame, without what all of them repeat."""
    frames = stream.decode().split("\n\n")
    assert frames.pop() == ""
    return [frame.removeprefix("data: ").partition('"model":"sim",')[2] for frame in frames]


def test_a_chat_stream() -> None:
    """Role, then tokens; only the last one has a stop reason and the fingerprint."""
    stream = Frames(envelope(CHAT), ask()).between(0, 3)
    assert stream.startswith(
        b'data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"sim",'
    )
    assert stream.endswith(b"\n\ndata: [DONE]\n\n")
    middle = '"choices":[{"index":0,"delta":{"content":"%s"},"logprobs":null,'
    assert told(stream) == [
        '"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,'
        '"finish_reason":null}],"prompt_token_ids":null,"prompt_text":null}',
        middle % "one" + '"finish_reason":null,"token_ids":null}]}',
        middle % " two" + '"finish_reason":null,"token_ids":null}]}',
        middle % " three" + '"finish_reason":"length","stop_reason":null,"token_ids":null}],'
        '"system_fingerprint":"vllm-0.32.0+simulated"}',
        "",
    ]


def test_a_completion_stream() -> None:
    """No role; the stop string is named; asked for, usage comes in a frame of its own."""
    stream = Frames(envelope(COMPLETION), ask(stop="four", usage=True)).between(0, 3)
    choice = '"choices":[{"index":0,"text":"%s","logprobs":null,"finish_reason":%s,"stop_reason":%s'
    nothing = ',"prompt_token_ids":null,"token_ids":null}]}'
    assert told(stream) == [
        choice % ("one", "null", "null") + nothing,
        choice % (" two", "null", "null") + nothing,
        choice % (" three", '"stop"', '"four"') + nothing,
        '"choices":[],"usage":{"prompt_tokens":7,"total_tokens":10,"completion_tokens":3},'
        '"system_fingerprint":"vllm-0.32.0+simulated"}',
        "",
    ]


def test_continuous_usage() -> None:
    """Every frame tells the tokens so far, the role's frame none."""
    stream = Frames(envelope(CHAT), ask(usage=True, continuous=True)).between(0, 3)
    *frames, _ = stream.decode().split("\n\n")[:-1]
    used = [json.loads(frame.removeprefix("data: "))["usage"] for frame in frames]
    assert [one["completion_tokens"] for one in used] == [0, 1, 2, 3, 3]
    assert [one["total_tokens"] for one in used] == [7, 8, 9, 10, 10]


@given(cuts=st.sets(st.integers(1, 2)), dialect=st.sampled_from([CHAT, COMPLETION]))
def test_however_it_is_cut(cuts, dialect) -> None:
    """A listener that is late for some tokens gets the same bytes as one that is not."""
    frames = Frames(envelope(dialect), ask(usage=True))
    parts = [frames.between(seen, to) for seen, to in pairwise([0, *sorted(cuts), 3])]
    assert b"".join(parts) == frames.between(0, 3)


@pytest.mark.parametrize("dialect", [CHAT, COMPLETION], ids=["chat", "completion"])
def test_names_are_escaped(dialect) -> None:
    """Whatever a model is called, the frames and the whole reply are JSON."""
    odd = envelope(dialect, 'a"b\\u0000\0\u00e4\n')
    *frames, _ = Frames(odd, ask()).between(0, 3).split(b"\n\n")[:-1]
    bodies = [*(frame.removeprefix(b"data: ") for frame in frames), whole(odd, ask())]
    assert {json.loads(body)["model"] for body in bodies} == {odd.model}
