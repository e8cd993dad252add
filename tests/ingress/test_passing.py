"""What a reply is charged that passes by, told or not."""

import json
from typing import Any

import pytest

from serve_app.auth import Caller
from serve_app.errors import UpstreamFailed
from serve_app.ingress.bill import Bill
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.passing import passed_on
from serve_app.ingress.reading.call import read
from serve_app.ingress.reading.usage import MAX_HELD_BYTES
from serve_app.ingress.upstream import Upstream
from serve_app.limits import Hold, State, Usage
from serve_app.model_settings import Model
from serve_app.settings import QueueClass

CHAT, EMBED = "/v1/chat/completions", "/v1/embeddings"
SOUND = "/v1/audio/transcriptions"
MODELS = {"m": Model(name="m")}
CLAIM: Any = None
TOLD = b'"usage":{"prompt_tokens":9,"completion_tokens":2}'
SAID = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'


class Engine:
    """An engine's reply, of which these chunks are still to come."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = [*chunks]

    async def more(self) -> bytes:
        return self._chunks.pop(0) if self._chunks else b""


async def passed(
    path: str, *chunks: bytes, status: int = 200, stream: bool = False, **headers: str
) -> Bill:
    """The bill of a reply in these chunks; 30 input and 50 output tokens were held for it."""

    async def wire(*_: Any) -> Any:
        """Whoever listens hears it all."""

    fields = {"model": "m", "messages": [], "stream": stream}
    call = read(path, json.dumps(fields).encode(), fields, MODELS)
    held = Hold(CLAIM, State.KNOWN, input_tokens=30, output_tokens=50 * (path in (CHAT, SOUND)))
    bill = Bill(Caller("t", "k", frozenset()), QueueClass(name="c"), held)
    scope = {"method": "POST", "path": path, "headers": [], "query_string": b""}
    engine: Any = Engine(*chunks[1:])
    await passed_on(
        Exchange(scope, wire, wire), call, bill, Upstream(status, headers, chunks[0], engine)
    )
    assert bill.used
    return bill


@pytest.mark.parametrize(
    ("path", "chunks", "status", "usage", "teaches"),
    [
        pytest.param(CHAT, [b"{" + TOLD + b"}"], 200, (9, 2), True, id="told"),
        pytest.param(CHAT, [b'{"id":1}'], 200, (30, 50), False, id="nothing told"),
        pytest.param(CHAT, [b'{"usage":{}}'], 200, (30, 50), False, id="nothing in it"),
        pytest.param(CHAT, [b'{"usage":{"prompt_tokens":9}}'], 200, (9, 50), False, id="half"),
        pytest.param(CHAT, [b"rubbish"], 200, (30, 50), False, id="no JSON"),
        pytest.param(
            CHAT, [b"{" + b" " * MAX_HELD_BYTES, TOLD + b"}"], 200, (9, 2), True, id="large"
        ),
        pytest.param(CHAT, [b" " * MAX_HELD_BYTES, b"{}"], 200, (30, 50), False, id="large, none"),
        pytest.param(CHAT, [b'{"error":{}}'], 400, (0, 0), False, id="the engine refuses"),
        pytest.param(EMBED, [b'{"usage":{"prompt_tokens":9}}'], 200, (9, 0), True, id="embedding"),
        pytest.param(EMBED, [b"\0\1\2\3"], 200, (30, 0), False, id="bytes"),
        pytest.param("/v1/score", [b"{}"], 200, (30, 0), False, id="a score, nothing told"),
        pytest.param("/v1/rerank", [b"{}"], 200, (30, 0), False, id="an order, nothing told"),
        pytest.param(EMBED, [b'{"error":{}}'], 400, (0, 0), False, id="no embedding"),
        pytest.param("/tokenize", [b'{"count":3}'], 200, (0, 0), False, id="nothing generated"),
    ],
)
async def test_a_whole_reply(path, chunks, status, usage, teaches) -> None:
    """What it tells is charged; if it tells nothing, what was held, and that teaches nothing."""
    bill = await passed(path, *chunks, status=status)
    assert (bill.usage, bill.ended_well) == (Usage(*usage), teaches)


@pytest.mark.parametrize(
    ("reply", "usage"),
    [
        pytest.param(
            {"text": "a" * 9, "usage": {"type": "duration", "seconds": 3}}, (150, 3), id="s"
        ),
        pytest.param(
            {"text": "", "usage": {"type": "duration", "seconds": 0}}, (30, 0), id="short"
        ),
        pytest.param({"text": "ü" * 4, "duration": "2.5", "segments": []}, (125, 2), id="verbose"),
        pytest.param({"text": "ab", "duration": "long"}, (30, 1), id="no number"),
        pytest.param({"usage": {"type": "duration", "seconds": 1e999}}, (30, 50), id="for ever"),
        pytest.param({}, (30, 50), id="nothing"),
    ],
)
async def test_a_transcript(reply: dict[str, Any], usage: tuple[int, int]) -> None:
    """It tells seconds and text: they are charged, and no less input than was held; it was free."""
    bill = await passed(SOUND, json.dumps(reply).encode())
    assert (bill.usage, bill.ended_well) == (Usage(*usage), False)


@pytest.mark.parametrize(
    ("metadata", "usage", "teaches"),
    [
        ('{"data":[],"usage":{"prompt_tokens":9,"total_tokens":9}}', (9, 0), True),
        ('{"data":[]}', (30, 0), False),
        ("rubbish", (30, 0), False),
    ],
)
async def test_embeddings_as_bytes(metadata: str, usage: tuple[int, int], teaches: bool) -> None:
    """They tell their usage in a header, or are charged what was held: they were free."""
    bill = await passed(EMBED, b"\0\1\2\3", metadata=metadata)
    assert (bill.usage, bill.ended_well) == (Usage(*usage), teaches)


@pytest.mark.parametrize(
    ("frames", "usage", "teaches"),
    [
        ([SAID, b'data: {"choices":[],' + TOLD + b"}\n\n", b"data: [DONE]\n\n"], (9, 2), True),
        ([SAID, SAID, SAID, b"data: [DONE]\n\n"], (30, 3), False),
    ],
)
async def test_a_stream(frames: list[bytes], usage: tuple[int, int], teaches: bool) -> None:
    """Without a usage frame it is charged the prompt as estimated and what was streamed."""
    bill = await passed(CHAT, *frames, stream=True)
    assert (bill.usage, bill.ended_well) == (Usage(*usage), teaches)


async def test_an_engines_own_fault_is_told_by_the_gate() -> None:
    """What vLLM says of itself in the middle of a stream names its stack; our event goes on."""
    fault = b'data: {"error":{"message":"See stack trace (above)","code":500}}\n\n'
    with pytest.raises(UpstreamFailed):
        await passed(CHAT, SAID, fault, stream=True)
