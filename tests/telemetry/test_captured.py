"""The line of a capture: whole, and without credentials, wherever they stood (CONTRACT §6)."""

import json
import secrets
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app import redaction
from serve_app.auth import make
from serve_app.telemetry.captured import TAIL_CHARS, Captured, to_json

KEY = make("acme").text
TAIL = KEY.rpartition("-")[2]
WEAK = "hunter2-hunter2"
EVENT = [(b"content-type", b"text/event-stream; charset=utf-8")]
JSON = [(b"content-type", b"application/json")]
MOST = 1_048_576


def line(most: int = MOST, **parts: Any) -> tuple[str, Any]:
    """Return the line of what went by, as text and as read."""
    whole = {"path": "/v1/chat/completions", "query": b"", "asked": [], **parts}
    pieces = whole.get("pieces", [])
    whole = {"reply_bytes": sum(map(len, pieces)), **whole}
    text = to_json(Captured("k", 0.0, secrets=(KEY, TAIL), **whole), most)
    assert "\n" not in text
    return text, json.loads(text)


def body_of(body: Any, size: int | None = None, most: int = MOST) -> Any:
    """Return what is told of a request's body."""
    raw = json.dumps(body).encode() if isinstance(body, dict) else body
    return line(most, body=body, body_bytes=len(raw) if size is None else size)[1]["request"]


def test_what_is_no_secret_stays() -> None:
    """Headers in their order, both bodies, the query, and what the access log says."""
    asked = {"model": "m", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 8}
    answer = {"choices": [{"message": {"content": "Hi."}}], "usage": {"total_tokens": 9}}
    _, told = line(
        asked=[(b"user-agent", b"curl"), (b"traceparent", b"00-1-2-01"), (b"accept", b"*/*")],
        query=b"a=1&a=2&b=",
        body=asked,
        body_bytes=90,
        told=JSON,
        pieces=[b'{"choices": [{"message": ', json.dumps(answer)[25:].encode()],
        fields={"request_id": "req-1", "status": 200, "queue_ms": 0.5, "output_tokens": 3},
    )
    assert told == {
        "time": "1970-01-01T00:00:00.000000Z",
        "request_id": "req-1",
        "status": 200,
        "queue_ms": 0.5,
        "output_tokens": 3,
        "path": "/v1/chat/completions",
        "query": [["a", "1"], ["a", "2"], ["b", ""]],
        "request": {
            "headers": [["user-agent", "curl"], ["traceparent", "00-1-2-01"], ["accept", "*/*"]],
            "bytes": 90,
            "body": asked,
        },
        "reply": {
            "headers": [["content-type", "application/json"]],
            "bytes": len(json.dumps(answer)),
            "body": answer,
        },
    }


def test_a_stream_stays_as_it_came() -> None:
    """Every frame, with its spaces and line ends, however the pieces were cut."""
    frames = 'data: {"choices":[{"delta":{"content":"Grüße"}}]}\n\n: ping\n\ndata: [DONE]\n\n'
    raw = frames.encode()
    _, told = line(told=EVENT, pieces=[raw[:41], raw[41:43], raw[43:]])
    assert told["reply"]["body"] == frames
    assert told["reply"]["bytes"] == len(raw)


@pytest.mark.parametrize(
    "header",
    ["authorization", "proxy-authorization", "cookie", "x-api-key", "apikey", "api-key",
     "cf-access-client-secret", "cf-access-jwt-assertion", "x-sluicegate-proxy-key",
     "x-forwarded-authorization", "x-access-token"],
)  # fmt: skip
def test_a_credential_of_a_header_is_gone(header: str) -> None:
    """Whatever it looks like: the name of the header says it."""
    text, told = line(asked=[(header.encode(), WEAK.encode())])
    assert WEAK not in text
    assert told["request"]["headers"] == [[header, "[redacted]"]]


PLACES: list[Any] = [
    pytest.param({"asked": [(b"user-agent", KEY.encode())]}, id="another header"),
    pytest.param({"asked": [(KEY.encode(), b"x")]}, id="a header's name"),
    pytest.param({"asked": [(b"referer", b"/?q=" + TAIL.encode())]}, id="its secret alone"),
    pytest.param({"path": f"/v1/models/{KEY}"}, id="path"),
    pytest.param({"query": b"q=" + KEY.encode()}, id="query"),
    pytest.param({"query": b"q=%73g" + KEY[2:].encode()}, id="query with escapes"),
    pytest.param({"query": KEY.encode() + b"=1"}, id="name in the query"),
    pytest.param({"fields": {"model": KEY}}, id="the log's fields"),
    pytest.param({"body": {"messages": [{"content": f"my key is {KEY}"}]}}, id="prompt"),
    pytest.param({"body": {KEY: 1}}, id="name of a member"),
    pytest.param({"body": f'{{"api_key": "{KEY}", '.encode()}, id="broken JSON"),
    pytest.param({"body": rb'{"k": "\u0073\u0067-' + KEY[3:].encode()}, id="escaped, broken JSON"),
    pytest.param({"told": [(b"x-echo", KEY.encode())]}, id="the reply's header"),
    pytest.param({"told": EVENT, "pieces": [b"data: " + KEY[:30].encode(), KEY[30:].encode()]},
                 id="a stream, cut in two"),
    pytest.param({"told": JSON, "pieces": [b'{"a": "\\u0073g' + KEY[2:].encode() + b'"}']},
                 id="an escaped reply"),
]  # fmt: skip


@pytest.mark.parametrize("parts", PLACES)
def test_a_key_is_gone_wherever_it_stood(parts: dict[str, Any]) -> None:
    """In URL, headers, bodies, replies: neither the key nor its secret alone."""
    text, _ = line(body_bytes=len(parts.get("body", b"")), **parts)
    assert KEY not in text
    assert TAIL not in text
    assert "[redacted]" in text


@pytest.mark.parametrize("name", ["api_key", "key", "token", "password", "sig", "X-API-Key"])
def test_a_credential_of_the_query_is_gone(name: str) -> None:
    """A key in the query string is refused, and not kept either."""
    text, told = line(query=f"{name}={WEAK}&n=1".encode())
    assert WEAK not in text
    assert told["query"] == [[name, "[redacted]"], ["n", "1"]]


def test_a_body_without_room_is_cut() -> None:
    """The beginning is kept, what is missing is said, and a secret at the cut is not kept in part.

    The cut falls into a provider's key, whose first letters alone look like nothing.
    """
    provider = "sk-proj-" + secrets.token_hex(24)
    for body in ({"prompt": f"{'x' * 600} {provider}"}, f"{'x' * 600} {provider}".encode()):
        told = body_of(body, 700, 620)
        assert told["cut"]
        assert told["bytes"] == 700
        assert "xxx" in told["body"]
        assert len(told["body"]) <= 620
        assert "sk-proj" not in told["body"].replace("[redacted]", "")
    whole = line(most=600, told=EVENT, pieces=[b"y" * 590], reply_bytes=4_000)[1]["reply"]
    assert whole == {
        "headers": [["content-type", "text/event-stream; charset=utf-8"]],
        "bytes": 4_000,
        "cut": True,
        "body": "y" * (590 - TAIL_CHARS),
    }


@pytest.mark.parametrize("body", [
    pytest.param({"prompt": "@ a://" * 1_600_000}, id="one long text"),
    pytest.param({"prompt": ["@ a://"] * 1_600_000}, id="many texts"),
    pytest.param({"@ a://" * 1_600_000: 1}, id="a long name"),
])  # fmt: skip
def test_what_is_cut_off_is_not_searched(monkeypatch: pytest.MonkeyPatch, body: Any) -> None:
    """A body of 10 MB was searched whole before it was cut: the gateway stood still for a second.

    The work grows with what is kept, and no search is long.
    """
    searched: list[int] = []
    search = redaction._redacted

    def counted(text: str) -> str:
        searched.append(len(text))
        return search(text)

    monkeypatch.setattr(redaction, "_redacted", counted)
    told = body_of(body, 9_600_000, 200_000)
    assert told["cut"]
    assert sum(searched) <= 3 * 200_000
    assert max(searched) <= redaction.PIECE_CHARS + redaction.NEAR_CHARS


@pytest.mark.parametrize("before", range(0, len(KEY) + 1, 7))
def test_a_secret_at_the_cut_of_an_object_is_gone(before: int) -> None:
    """Wherever the key lies across the cut: no eight letters of it are left."""
    most, begun = 600, len('{"prompt": "')
    for room in (most, most + TAIL_CHARS):
        body = {"prompt": "x" * (room - begun - before) + f" {KEY}" + "y" * 2_000}
        told = body_of(body, 3_000, most)["body"]
        assert len(told) <= most
        secret = KEY.rpartition("-")[2]
        assert not [at for at in range(len(secret) - 8) if secret[at : at + 8] in told]


def test_a_request_without_a_body_has_none() -> None:
    """Neither an empty text nor a null: nothing came."""
    _, told = line()
    assert told["request"] == {"headers": [], "bytes": 0}
    assert told["reply"] == {"headers": [], "bytes": 0}


@given(st.binary(max_size=300), st.binary(max_size=100), st.sampled_from([JSON, EVENT, []]))
def test_whatever_went_by_is_a_line(raw: bytes, query: bytes, media: Any) -> None:
    """Bytes that are no text, no JSON, no query: one line of JSON, and no error."""
    line(body=raw, body_bytes=len(raw), query=query, told=media, pieces=[raw], asked=[(raw, raw)])
