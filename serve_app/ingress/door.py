"""The door: requests come in here, errors become replies here, and each line is logged here.

This is the one place that catches what nobody foresaw.
"""

import asyncio
import logging
import time

from starlette.routing import Router

from serve_app.errors import GateError, Internal, NoSuchRoute
from serve_app.ingress import refusals
from serve_app.ingress.exchange import Exchange, Receive, Scope, Send
from serve_app.ingress.gate import Gate
from serve_app.ingress.routes import routes

_log = logging.getLogger("sluicegate")
CLIENT_GONE = 499


class Door:
    """The ASGI application of one gateway."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._router = Router(routes(gate), default=_no_such_route, redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; nothing escapes but the client's own leaving."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._answer(Exchange(scope, receive, send))

    async def _answer(self, exchange: Exchange) -> None:
        exchange.scope["exchange"] = exchange
        code = None
        try:
            await self._router(exchange.scope, exchange.receive, exchange.send)
        except GateError as err:
            code = err.code
            await _refuse(exchange, err)
        except ConnectionError:
            code, exchange.status = "client_gone", CLIENT_GONE
        except asyncio.CancelledError:
            code, exchange.status = "client_gone", CLIENT_GONE
            raise
        except Exception:
            code = Internal.code
            _log.exception("request %s failed", exchange.request_id)
            await _refuse(
                exchange, Internal(f"Something broke here; quote request {exchange.request_id}.")
            )
        finally:
            self._note(exchange, code)

    def _note(self, exchange: Exchange, code: str | None) -> None:
        self._gate.access_log.write(
            {
                "request_id": exchange.request_id,
                "address": self._gate.address(exchange),
                "method": exchange.method,
                "route": exchange.scope.get("route_path", ""),
                "status": exchange.status,
                "code": code,
                **exchange.notes,
                "bytes_out": exchange.bytes_out,
                "total_ms": round((time.perf_counter() - exchange.began_s) * 1_000, 3),
            }
        )


async def _refuse(exchange: Exchange, err: GateError) -> None:
    """Send the refusal; into a stream that has begun, as its last event."""
    if not exchange.started:
        await exchange.reply(err.status, refusals.body(err), refusals.headers(err))
    elif exchange.streaming:
        await exchange.write(refusals.event(err), more=False)
    else:
        raise ConnectionAbortedError("the reply broke off") from err


async def _no_such_route(scope: Scope, _receive: Receive, _send: Send) -> None:
    raise NoSuchRoute(f"There is no route '{scope['path'][:200]}'.")


async def _lifespan(receive: Receive, send: Send) -> None:
    """Nothing to do: ``app`` opens and closes what a gateway needs."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
