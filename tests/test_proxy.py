"""Serve's Python servers: what passes before the gate, and what is refused."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from starlette.middleware import Middleware

from serve_app import proxy
from serve_app.haproxy import PROXY_KEY_ENV, PROXY_KEY_HEADER, STEERING, STRANGER, body
from serve_app.proxy import Doorkeeper, Place, admits, passed

KEY = b"0123456789-_.~abc"
FRONT, BEHIND = Place(behind=False, key=KEY), Place(behind=True, key=KEY)
FRONT_UNKEYED, BEHIND_UNKEYED = Place(behind=False), Place(behind=True)
SHOWN = (PROXY_KEY_HEADER.encode(), KEY)
PEER = ("9.9.9.9", 4711)


def scope(path: str = "/v1/models", *headers: tuple[bytes, bytes], **more: Any) -> dict[str, Any]:
    """An ASGI scope as uvicorn makes it."""
    return {"type": "http", "path": path, "headers": list(headers), "client": PEER, **more}


@pytest.mark.parametrize(
    ("place", "path", "shown", "admitted"),
    [
        pytest.param(FRONT, "/v1/models", None, True, id="a caller"),
        pytest.param(FRONT, "/-/routes", None, False, id="Serve's routes"),
        pytest.param(FRONT, "/-/healthz", None, False, id="Serve's health"),
        pytest.param(FRONT, "/-/", SHOWN, False, id="not even with the secret"),
        pytest.param(FRONT_UNKEYED, "/-/routes", None, False, id="also without a secret"),
        pytest.param(FRONT, "/-", None, True, id="a path like another"),
        pytest.param(BEHIND, "/v1/models", SHOWN, True, id="by way of HAProxy"),
        pytest.param(BEHIND, "/v1/models", None, False, id="past HAProxy"),
        pytest.param(BEHIND, "/v1/models", (SHOWN[0], b"wrong"), False, id="a wrong secret"),
        pytest.param(BEHIND, "/-/healthz", SHOWN, True, id="HAProxy's check"),
        pytest.param(BEHIND, "/-/healthz", None, False, id="a stranger's check"),
        pytest.param(BEHIND, "/-/routes", SHOWN, False, id="nobody needs the routes"),
        pytest.param(BEHIND_UNKEYED, "/-/healthz", None, True, id="a check without any secret"),
        pytest.param(BEHIND_UNKEYED, "/v1/models", None, True, id="a caller without any secret"),
        pytest.param(BEHIND_UNKEYED, "/-/routes", None, False, id="routes without any secret"),
    ],
)
def test_who_is_admitted(place: Place, path: str, shown, admitted: bool) -> None:
    """The front is for all but Serve's own paths; behind HAProxy only HAProxy may come."""
    asked = scope(path, shown) if shown else scope(path)
    assert admits(asked, place) is admitted
    mounted = {**asked, "path": "/mounted" + path, "root_path": "/mounted"}
    assert admits(mounted, place) is admitted


def test_a_secret_shown_twice_is_none() -> None:
    """A request with two secrets was put together by somebody else."""
    assert not admits(scope("/v1/models", SHOWN, SHOWN), BEHIND)


def test_the_front_vouches_for_the_peer() -> None:
    """It comes last, beside what the client wrote; a forged secret is replaced."""
    forged = ((b"x-forwarded-for", b"6.6.6.6"), (SHOWN[0], b"forged"))
    assert passed(scope("/", *forged), FRONT) == [
        (b"x-forwarded-for", b"6.6.6.6"),
        (b"x-forwarded-for", b"9.9.9.9"),
        SHOWN,
    ]


@pytest.mark.parametrize(
    ("place", "client"),
    [
        pytest.param(FRONT_UNKEYED, PEER, id="no secret to vouch with"),
        pytest.param(FRONT, ("6.6.6.6", 0), id="a header was taken for the peer"),
        pytest.param(FRONT, None, id="no peer"),
        pytest.param(BEHIND_UNKEYED, PEER, id="the peer is a proxy"),
    ],
)
def test_nobody_is_vouched_for_in_doubt(place: Place, client) -> None:
    """And a secret that the client wrote goes."""
    assert passed(scope("/", (SHOWN[0], b"forged"), client=client), place) == []


def test_behind_haproxy_headers_stay() -> None:
    """HAProxy has seen to them."""
    headers = (SHOWN, (b"x-request-id", b"fine"), (b"x-forwarded-for", b"9.9.9.9"))
    assert passed(scope("/", *headers), BEHIND) == list(headers)


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        ([b"fine-1.2:3_"], True),
        ([b"a" * 128], True),
        ([b"a" * 129], False),
        ([b""], False),
        ([b"<a>"], False),
        ([b"a b"], False),
        ([b"a\n"], False),
        ([b"fine", b"fine"], False),
        ([b"<a>", b"fine"], False),
    ],
)
def test_only_one_safe_id_passes(ids: list[bytes], kept: bool) -> None:
    """Serve sends back the first it finds."""
    told = passed(scope("/", *((b"x-request-id", each) for each in ids)), FRONT_UNKEYED)
    assert told == [(b"x-request-id", each) for each in ids if kept]


@pytest.mark.parametrize("name", STEERING)
def test_no_client_steers_serve(name: str) -> None:
    """Serve's own headers are not a client's to send."""
    assert passed(scope("/", (name.encode(), b"?1")), FRONT_UNKEYED) == []


async def app(scope, _receive, send) -> None:
    """A gate that tells what it got."""
    if scope["type"] == "lifespan":
        return
    told = json.dumps([[name.decode(), value.decode()] for name, value in scope["headers"]])
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": told.encode()})


async def asked(place: Place, path: str, headers: dict[str, str]) -> httpx.Response:
    transport = httpx.ASGITransport(Doorkeeper(app, place), client=PEER)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://gate") as client:
        return await client.get(path, headers=headers)


async def test_a_refusal_is_in_the_gates_shape() -> None:
    """401 with the error object, how to authenticate, and an id; a safe one of the client's."""
    told = await asked(FRONT, "/-/routes", {"x-request-id": "mine"})
    assert (told.status_code, told.json()) == (401, body(STRANGER))
    assert told.headers["www-authenticate"] == 'Bearer realm="sluicegate"'
    assert told.headers["x-request-id"] == "mine"
    told = await asked(FRONT, "/-/routes", {"x-request-id": "not mine"})
    assert told.headers["x-request-id"].startswith("req-")


async def test_what_passes_reaches_the_gate() -> None:
    """With the headers that may go on."""
    told = await asked(FRONT, "/v1/models", {"x-request-timeout-seconds": "1"})
    names = [name for name, _ in told.json()]
    assert "x-request-timeout-seconds" not in names
    assert {"x-forwarded-for", PROXY_KEY_HEADER} <= set(names)


async def test_a_websocket_that_may_not_pass_is_closed() -> None:
    """Before it was accepted."""
    said: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    socket = {**scope("/v1/models"), "type": "websocket"}
    await Doorkeeper(app, BEHIND)(socket, asyncio.Queue().get, send)  # type: ignore[arg-type]
    assert said == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(
    ("env", "place"),
    [
        ({}, Place(False)),
        ({PROXY_KEY_ENV: KEY.decode()}, FRONT),
        ({PROXY_KEY_ENV: "short"}, Place(False)),
        ({"RAY_SERVE_ENABLE_HA_PROXY": "0", PROXY_KEY_ENV: KEY.decode()}, FRONT),
        ({"RAY_SERVE_ENABLE_HA_PROXY": "1"}, BEHIND_UNKEYED),
        ({"RAY_SERVE_ENABLE_HA_PROXY": "1", PROXY_KEY_ENV: KEY.decode()}, BEHIND),
    ],
)
def test_the_environment_tells_where_a_server_stands(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], place: Place
) -> None:
    """Serve gets one middleware, in the form that it asks for."""
    for name in ("RAY_SERVE_ENABLE_HA_PROXY", PROXY_KEY_ENV):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    (middleware,) = proxy.middlewares()
    assert isinstance(middleware, Middleware)
    assert (middleware.cls, middleware.args) == (Doorkeeper, (place,))


@pytest.mark.parametrize(
    ("binary", "told"), [("/usr/sbin/haproxy", 1), ("/x/sluicegate-haproxy", 0)]
)
def test_a_missing_shim_is_told(monkeypatch, caplog, binary: str, told: int) -> None:
    """A gate that refuses everybody says why in its log."""
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    monkeypatch.setenv(PROXY_KEY_ENV, KEY.decode())
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", binary)
    proxy.middlewares()
    assert len([line for line in caplog.messages if "sluicegate-haproxy" in line]) == told


async def test_the_start_of_a_server_passes() -> None:
    """It is no request."""
    await Doorkeeper(app, BEHIND)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
