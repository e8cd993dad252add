"""The lock on the engine's own port."""

import json
from typing import Any

import pytest

from serve_app.engine import InternalKeyGuard
from serve_app.engine.guard import KEY_ENV
from serve_app.store import KEY_HEADER

KEY = b"s3cret"
HEADER = KEY_HEADER.encode()
SHOWN = (HEADER, KEY)


class Engine:
    """An ASGI application that remembers what reached it."""

    def __init__(self) -> None:
        self.reached: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached.append(scope["type"])


async def silence() -> dict[str, Any]:
    return {"type": "http.disconnect"}


async def answered(
    scope: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> tuple[list[str], list[Any]]:
    """What reached the engine, and what was sent back."""
    monkeypatch.setenv(KEY_ENV, KEY.decode())
    engine = Engine()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await InternalKeyGuard(engine)(scope, silence, send)
    return engine.reached, sent


@pytest.mark.parametrize(
    ("headers", "admitted"),
    [
        pytest.param([], False, id="no key"),
        pytest.param([(HEADER, b"wrong")], False, id="wrong key"),
        pytest.param([(HEADER, b"")], False, id="empty key"),
        pytest.param([(HEADER, KEY[:-1])], False, id="half a key"),
        pytest.param([(HEADER, KEY + b" ")], False, id="key and more"),
        pytest.param([(HEADER, b"\xff\xfe")], False, id="not ASCII"),
        pytest.param([SHOWN, SHOWN], False, id="twice"),
        pytest.param([(HEADER, b"wrong"), SHOWN], False, id="wrong and right"),
        pytest.param([(b"authorization", b"Bearer " + KEY)], False, id="elsewhere"),
        pytest.param([SHOWN], True, id="right key"),
        pytest.param([(b"host", b"x"), SHOWN, (b"accept", b"*/*")], True, id="among others"),
    ],
)
@pytest.mark.parametrize("path", ["/health", "/docs", "/v1/chat/completions", "/nowhere"])
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_only_the_key_opens(kind, path, headers, admitted, monkeypatch) -> None:
    """Every path, HTTP and WebSocket alike, is refused unless the key is shown, once."""
    reached, sent = await answered({"type": kind, "path": path, "headers": headers}, monkeypatch)
    assert reached == ([kind] if admitted else [])
    assert bool(sent) != admitted


async def test_how_http_is_refused(monkeypatch) -> None:
    """A whole 401 in the error shape that says whose port it is, and not how to open it."""
    _, (start, body) = await answered({"type": "http", "headers": []}, monkeypatch)
    assert (start["type"], start["status"]) == ("http.response.start", 401)
    assert json.loads(body["body"])["error"]["type"] == "authentication_error"
    assert not body.get("more_body")
    assert HEADER not in body["body"]


async def test_how_a_websocket_is_refused(monkeypatch) -> None:
    """It is closed before it was accepted."""
    _, sent = await answered({"type": "websocket", "headers": []}, monkeypatch)
    assert sent == [{"type": "websocket.close", "code": 1008}]


async def test_the_servers_own_start_and_stop_pass(monkeypatch) -> None:
    """A lifespan is the server's own; no stranger can send one."""
    assert await answered({"type": "lifespan"}, monkeypatch) == (["lifespan"], [])


@pytest.mark.parametrize("key", [None, ""])
def test_no_engine_starts_unguarded(key: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key in the environment the guard stops the engine's start."""
    monkeypatch.delenv(KEY_ENV, raising=False)
    if key is not None:
        monkeypatch.setenv(KEY_ENV, key)
    with pytest.raises(RuntimeError, match=f"{KEY_ENV} is not set"):
        InternalKeyGuard(Engine())
