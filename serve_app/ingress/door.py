"""The door: requests come in here, errors become replies here, and each line is logged here.

This is the one place that catches what nobody foresaw.
"""

import asyncio
import logging
import time

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Router
from starlette.types import ASGIApp

from serve_app.auth_settings import Cors
from serve_app.errors import Dropped, GateError, Internal, NoSuchRoute
from serve_app.ingress import refusals
from serve_app.ingress.admin.ledger import note_refusal
from serve_app.ingress.admission import admitted
from serve_app.ingress.exchange import Exchange, Receive, Scope, Send
from serve_app.ingress.gate import Gate
from serve_app.ingress.routes import routes
from serve_app.ingress.told import EXPOSED

_log = logging.getLogger("sluicegate")
CLIENT_GONE = 499


class Door:
    """The ASGI application of one gateway."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._router = Router(routes(gate), default=self._nowhere, redirect_slashes=False)
        self._cors = _within_cors(self._routed, gate.settings.cors)
        self._vary = {"vary": "Origin"} if gate.settings.cors.origins else {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; nothing escapes but the client's own leaving."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._answer(Exchange(scope, receive, send))

    async def _answer(self, exchange: Exchange) -> None:
        """Answer within CORS, so that a refusal carries its headers too; log, however it ends."""
        exchange.scope["exchange"] = exchange
        try:
            if exchange.header("origin") is None:
                exchange.headers_out |= self._vary
                await self._routed(exchange.scope, exchange.receive, exchange.send)
            else:
                send = exchange.send_theirs if _is_preflight(exchange) else exchange.send
                await self._cors(exchange.scope, exchange.receive, send)
        finally:
            self._note(exchange)
            exchange.body, exchange.raw = None, b""  # exchange and scope name each other, and stay

    async def _routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["exchange"]
        exchange.send = send
        try:
            await self._router(scope, receive, send)
        except GateError as err:
            exchange.code = err.code
            if isinstance(err, Dropped) and err.waited_ms is not None:
                exchange.note_wait(err.waited_ms)
            note_refusal(self._gate, exchange)
            await _refuse(exchange, err)
        except ConnectionError:
            exchange.code, exchange.status = "client_gone", CLIENT_GONE
        except asyncio.CancelledError:
            exchange.code, exchange.status = "client_gone", CLIENT_GONE
            raise
        except Exception:
            exchange.code = Internal.code
            _log.exception("request %s failed", exchange.request_id)
            await _refuse(
                exchange, Internal(f"Something broke here; quote request {exchange.request_id}.")
            )

    async def _nowhere(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        """Say that there is no such route, to whoever may know what routes there are."""
        async with admitted(self._gate, scope["exchange"]):
            raise NoSuchRoute(f"There is no route '{scope['path'][:200]}'.")

    def _note(self, exchange: Exchange) -> None:
        if exchange.code not in (None, "client_gone"):
            self._gate.metrics.refused(exchange.code)
        if exchange.notes.keys() >= {"model", "class", "queue_ms"}:
            waited_s = exchange.notes["queue_ms"] / 1_000
            self._gate.metrics.waited(exchange.notes["model"], exchange.notes["class"], waited_s)
        fields = {
            "request_id": exchange.request_id,
            "address": self._gate.address(exchange),
            "method": exchange.method,
            "route": exchange.scope.get("route_path", ""),
            "status": exchange.status,
            "code": exchange.code,
            **exchange.notes,
            "bytes_out": exchange.bytes_out,
            "total_ms": round((time.perf_counter() - exchange.began_s) * 1_000, 3),
        }
        self._gate.access_log.write(fields)
        if exchange.captured is not None:
            exchange.captured(fields)


def _within_cors(app: ASGIApp, settings: Cors) -> CORSMiddleware:
    """Return ``app`` within the rules; a preflight is answered before anybody is identified."""
    return CORSMiddleware(
        app,
        allow_origins=settings.origins,
        allow_methods=settings.methods,
        allow_headers=settings.headers,
        allow_credentials=settings.credentials,
        max_age=settings.max_age_s,
        expose_headers=EXPOSED,
    )


def _is_preflight(exchange: Exchange) -> bool:
    asks = exchange.header("access-control-request-method") is not None
    return asks and exchange.method == "OPTIONS"


async def _refuse(exchange: Exchange, err: GateError) -> None:
    """Send the refusal; into a stream that has begun, as its last event."""
    if not exchange.started:
        body = refusals.body(err, exchange.path)
        await exchange.reply(err.status, body, refusals.headers(err))
    elif exchange.streaming:
        await exchange.write(refusals.event(err, exchange.path, exchange.events_out), more=False)
    else:
        raise ConnectionAbortedError("the reply broke off") from err


async def _lifespan(receive: Receive, send: Send) -> None:
    """Nothing to do: ``app`` opens and closes what a gateway needs."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
