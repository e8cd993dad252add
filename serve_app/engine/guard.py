"""The lock on the engine's own port: without this deployment's key, every path is refused.

vLLM takes it as ``--middleware serve_app.engine.guard.InternalKeyGuard``; its ``--api-key`` guards
``/v1`` alone. The key comes from the environment, so that no command line shows it.
"""

import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from serve_app.log_records import install as redact_log_records
from serve_app.store import KEY_HEADER

KEY_ENV = "SLUICEGATE_INTERNAL_KEY"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_BODY = b'{"error":{"message":"This port belongs to the gate.","type":"authentication_error"}}'


class InternalKeyGuard:
    """ASGI middleware: HTTP without the key is 401, a WebSocket without it is closed.

    Raises:
        RuntimeError: the environment holds no key; an unguarded engine does not start.
    """

    def __init__(self, app: App) -> None:
        redact_log_records()  # an engine's own logs hold no secret either
        self._app = app
        self._key = os.environ.get(KEY_ENV, "").encode()
        if not self._key:
            raise RuntimeError(f"{KEY_ENV} is not set; the engine does not start unguarded")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what carries the key; answer the rest here."""
        if scope["type"] == "lifespan" or self._admits(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Internal")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": _BODY})

    def _admits(self, scope: Scope) -> bool:
        header = KEY_HEADER.encode()
        shown = [value for name, value in scope["headers"] if name == header]
        return len(shown) == 1 and hmac.compare_digest(shown[0], self._key)
