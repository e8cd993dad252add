"""Capture an exchange of a key that operators watch: what it asks, and what it is sent from now.

An exchange that nobody watches passes here once, and its bytes never.
"""

import time
from collections.abc import MutableMapping
from typing import Any

from serve_app import auth
from serve_app.ingress.exchange import Exchange
from serve_app.telemetry import Captured, Captures

TAIL_MIN = 16


class Recording:
    """What one exchange sends, kept as it goes by.

    Only bodies that go to an engine or come from one are kept: others hold passwords and new keys.
    """

    def __init__(self, captures: Captures, exchange: Exchange, key_id: str) -> None:
        self._captures, self._exchange, self._send = captures, exchange, exchange.send
        self._bodies = bool(exchange.scope.get("by_engine"))
        self._captured = Captured(
            key_id,
            time.time() - (time.perf_counter() - exchange.began_s),
            exchange.path,
            exchange.scope["query_string"],
            exchange.scope["headers"],
            secrets=_shown(exchange),
        )
        exchange.send = self.send

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Send ``message`` on, and keep it."""
        if message["type"] == "http.response.start":
            self._captured.told = list(message["headers"])
        elif self._bodies:
            self._captures.take(self._captured, message.get("body", b""))
        await self._send(message)

    def keep(self, fields: dict[str, Any]) -> None:
        """Have it written, with the ``fields`` of its line in the access log."""
        self._captured.fields = fields
        if self._bodies:
            found = self._exchange.body
            self._captured.body = found[1] if found else self._exchange.raw
            self._captured.body_bytes = len(self._exchange.raw)
        self._captures.keep(self._captured)


def watched(captures: Captures, exchange: Exchange, caller: auth.Caller, now_us: int) -> None:
    """Begin to capture ``exchange`` if its key is watched, and that has not been done."""
    if caller.capture_ends_ms * 1_000 <= now_us or exchange.captured is not None:
        return
    if captures.max_minutes and captures.begun():
        exchange.captured = Recording(captures, exchange, caller.key_id).keep


def _shown(exchange: Exchange) -> tuple[str, ...]:
    """Return the credential of the headers, and its secret alone."""
    shown = auth.find(exchange.scope["headers"])
    texts = (shown.text, shown.text.rpartition("-")[2]) if shown else ()
    return tuple(text for text in texts if len(text) >= TAIL_MIN)
