"""Serve's own Python servers, kept as tight as HAProxy is by its shim.

    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve_app.proxy:middlewares

Serve asks there for middleware whenever it starts a server: the default proxy, and behind HAProxy
the fallback proxy and each gateway's own port. Which of them it is, the environment tells:

    the front        the TCP peer is appended to ``X-Forwarded-For``, with the secret that vouches
                     for it; an unsafe ``x-request-id`` and the headers that steer Serve go
    behind HAProxy   whoever does not show the proxy's secret is refused, whatever is asked

Serve's own paths, those below ``/-/``, are told to nobody, but for the health that HAProxy checks.

**Decided: behind HAProxy a gateway's own port answers HAProxy alone.** It is a second way to the
same application, past the front's TLS and its rules.

**Decided: the peer is vouched for only if it is one.** uvicorn puts what a stranger wrote into
``scope["client"]`` unless FORWARDED_ALLOW_IPS is empty, as the launcher and the manifest set it.

**Decided: one function of Ray is replaced.** A replica's server for other deployments binds every
address; :func:`stay_on_node` narrows it to the node's own. Ray is pinned, and a test looks at what
listens.
"""

import hmac
import json
import logging
import os
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from importlib import import_module
from typing import Any, NamedTuple

from serve_app.haproxy import (
    PROXY_KEY_ENV,
    PROXY_KEY_HEADER,
    SAFE_ID,
    STEERING,
    STRANGER,
    body,
    headers,
    usable,
)
from serve_app.redaction import redacted

HEALTH = "/-/healthz"
NOT_ALLOWED = 1008  # to a WebSocket
SHIM, SHIM_ENV = "sluicegate-haproxy", "RAY_SERVE_HAPROXY_BINARY_PATH"
SHIMLESS = (
    f"HAProxy runs without our shim, so it shows no secret and every request is refused; set "
    f"{SHIM_ENV} to the program '{SHIM}'"
)
_log = logging.getLogger("sluicegate")
_KEY = PROXY_KEY_HEADER.encode()
_SAFE_ID = re.compile(SAFE_ID.encode())
_STEERING = {name.encode() for name in STEERING}

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]


class Place(NamedTuple):
    """Where a server stands.

    Attributes:
        behind: whether HAProxy stands before it.
        key: the proxy's secret; empty if there is none.
    """

    behind: bool
    key: bytes = b""


def middlewares() -> list[Any]:
    """Return the middleware of a server that Serve is about to start in this process."""
    from starlette.middleware import Middleware  # noqa: PLC0415 - the functions below need none

    key = os.environ.get(PROXY_KEY_ENV, "")
    behind = os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1"
    place = Place(behind, key.encode() if usable(key) else b"")
    if place.behind and place.key and SHIM not in os.environ.get(SHIM_ENV, ""):
        _log.error(SHIMLESS)
    return [Middleware(Doorkeeper, place)]


class Doorkeeper:
    """ASGI middleware: passes on what may pass, and answers the rest."""

    def __init__(self, app: App, place: Place) -> None:
        self._app, self._place = app, place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif admits(scope, self._place):
            scope["headers"] = passed(scope, self._place)
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": NOT_ALLOWED})
        else:
            await _refuse(scope, send)


def admits(scope: Scope, place: Place) -> bool:
    """Return whether a request may go on to Serve. Pure."""
    path = str(scope["path"])[len(scope.get("root_path", "")) :]
    ours = not path.startswith("/-/")
    if not place.behind:
        return ours
    return (ours or path == HEALTH) and (not place.key or _shows(scope, place.key))


def passed(scope: Scope, place: Place) -> list[Header]:
    """Return the headers that go on with a request. Pure."""
    lines: list[Header] = scope["headers"]
    if place.behind and place.key:  # HAProxy has seen to the rest; it knows no secret by its looks
        return [line for line in lines if line[0] != b"x-request-id" or _is_safe(line[1])]
    ids = [value for name, value in lines if name == b"x-request-id"]
    gone = {_KEY, *_STEERING}
    if len(ids) != 1 or not _is_safe(ids[0]):
        gone.add(b"x-request-id")
    kept = [(name, value) for name, value in lines if name not in gone]
    return kept if place.behind else [*kept, *_vouched(scope, place)]


def _is_safe(request_id: bytes) -> bool:
    """Return whether Serve may log and repeat an id: it is of safe characters and no secret."""
    told = request_id.decode("latin-1")
    return _SAFE_ID.fullmatch(request_id) is not None and redacted(told) == told


def _vouched(scope: Scope, place: Place) -> Iterator[Header]:
    """Return the TCP peer as our HAProxy would tell it; nothing if it is not known."""
    host, port = scope.get("client") or ("", 0)
    if place.key and port:  # 0: a header was taken for it
        yield b"x-forwarded-for", str(host).encode()
        yield _KEY, place.key


def _shows(scope: Scope, key: bytes) -> bool:
    shown = [value for name, value in scope["headers"] if name == _KEY]
    return len(shown) == 1 and hmac.compare_digest(shown[0], key)


async def _refuse(scope: Scope, send: Send) -> None:
    said = json.dumps(body(STRANGER)).encode()
    given = [value for name, value in scope["headers"] if name == b"x-request-id"]
    safe = len(given) == 1 and _is_safe(given[0])
    told = {
        **headers(STRANGER),
        "content-type": "application/json",
        "content-length": str(len(said)),
        "x-request-id": given[0].decode() if safe else f"req-{secrets.token_hex(12)}",
    }
    lines = [(name.encode(), value.encode()) for name, value in told.items()]
    await send({"type": "http.response.start", "status": STRANGER.status, "headers": lines})
    await send({"type": "http.response.body", "body": said})


def stay_on_node() -> None:
    """Let this process's server for other deployments listen on the node's address alone."""
    ray = import_module("ray")  # the functions above need none
    replica: Any = import_module("ray.serve._private.replica")
    everywhere, node = replica.add_port_to_grpc_server, ray.util.get_node_ip_address()
    here = f"[{node}]" if ":" in node else node

    def on_node(server: object, address: str) -> object:
        return everywhere(server, f"{here}:{address.rpartition(':')[2]}")

    replica.add_port_to_grpc_server = on_node
