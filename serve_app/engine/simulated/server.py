"""The ASGI app: vLLM's routes over a driver."""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.engine.simulated import wire
from serve_app.engine.simulated.driver import ClientGone, Driver, Tap
from serve_app.engine.simulated.exposition import CONTENT_TYPE, expose
from serve_app.engine.simulated.faults import HEADER, Fault, choose
from serve_app.engine.simulated.names import Names
from serve_app.engine.simulated.request import Ask, Refusal, Served, read_chat, read_completion

JSON = (b"content-type", b"application/json")
EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
Reader = Callable[[bytes, Served], Ask]


@dataclass(slots=True)
class Engine:
    """What the routes share.

    Attributes:
        dice: chance for the fault rates; seeded, so that a run can be repeated.
    """

    driver: Driver
    names: Names
    dice: random.Random = field(default_factory=lambda: random.Random(0))

    @property
    def served(self) -> Served:
        """Return what a request may ask for."""
        names, tokens = self.names, self.driver.scheduler.context_tokens
        return Served(names.model, tokens, frozenset(names.aliases), frozenset(names.adapters))


def build_app(engine: Engine, middleware: Sequence[Callable[[ASGIApp], ASGIApp]] = ()) -> ASGIApp:
    """Return the server's app inside ``middleware``; as in vLLM, the last one is outermost.

    Every scope passes through it: each path, unknown ones too, and WebSockets.
    """
    app: ASGIApp = Router(_routes(engine), redirect_slashes=False, default=_absent)
    for wrap in middleware:
        app = wrap(app)
    return app


def _routes(engine: Engine) -> list[Route]:
    async def health(_request: Request) -> Response:
        return Response(status_code=200 if engine.driver.ready else 503)

    async def models(_request: Request) -> Response:
        max_model_len = engine.driver.scheduler.max_model_len
        return Response(wire.models(engine.names, max_model_len), media_type=JSON[1].decode())

    async def metrics(_request: Request) -> Response:
        text = expose(engine.driver.scheduler, engine.names.model)
        return Response(text, headers={"content-type": CONTENT_TYPE})

    async def version(_request: Request) -> Response:
        return JSONResponse({"version": wire.VERSION})

    chat = Completions(engine, wire.CHAT, read_chat)
    completion = Completions(engine, wire.COMPLETION, read_completion)
    return [
        *(_lora_routes(engine.names) if engine.names.takes_adapters else []),
        _Route("/v1/chat/completions", chat, methods=["POST"]),
        _Route("/v1/completions", completion, methods=["POST"]),
        _Route("/health", health),
        _Route("/metrics", metrics),
        _Route("/v1/models", models),
        _Route("/version", version),
    ]


def _lora_routes(names: Names) -> list[Route]:
    def answering(do: Callable[[bytes], str]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                return Response(do(await request.body()))
            except Refusal as refusal:
                body = wire.error(refusal)
                return Response(body, refusal.status, media_type=JSON[1].decode())

        return answer

    steps = {"load": names.load, "unload": names.unload}
    return [
        Route(f"/v1/{step}_lora_adapter", answering(do), methods=["POST"])
        for step, do in steps.items()
    ]


class _Route(Route):
    """A route that answers a wrong method in FastAPI's words."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.matches(scope)[0] is Match.PARTIAL:
            allow = (b"allow", ", ".join(sorted(self.methods or ())).encode())
            body = wire.not_found(HTTPStatus.METHOD_NOT_ALLOWED)
            await _answer(send, HTTPStatus.METHOD_NOT_ALLOWED, body, allow)
        else:
            await self.app(scope, receive, send)


async def _absent(scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer a path that does not exist; refuse a WebSocket before it opens."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000})
    else:
        await _answer(send, HTTPStatus.NOT_FOUND, wire.not_found(HTTPStatus.NOT_FOUND))


@dataclass(frozen=True, slots=True)
class Completions:
    """One completion endpoint, as raw ASGI: nothing wraps ``send`` on the way of a token."""

    engine: Engine
    dialect: wire.Dialect
    read: Reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, whole or as a stream, until it is done or its client gone."""
        headers = dict(scope["headers"])
        raw = await _body(receive)
        try:
            ask, fault = self._admit(headers, raw)
        except Refusal as refusal:
            await _answer(send, refusal.status, wire.error(refusal))
            return
        if fault is Fault.HANG:
            await _hang_up(receive)
            return
        envelope = self._envelope(headers, ask)
        with suppress(ClientGone), self.engine.driver.serving(ask) as tap:
            watch = asyncio.create_task(_hang_up(receive))
            watch.add_done_callback(lambda _: tap.close())
            try:
                reply = _stream if ask.stream else _whole
                await reply(Exchange(ask, envelope, tap, fault is Fault.BREAK), send)
            finally:
                watch.cancel()

    def _admit(self, headers: dict[bytes, bytes], raw: bytes) -> tuple[Ask, Fault | None]:
        """Return what is asked for and how it shall fail; ``crash`` ends the process here.

        Raises:
            Refusal: with the status and the body's words.
        """
        engine = self.engine
        if not engine.driver.ready:
            kind = "ServiceUnavailableError"
            raise Refusal("The engine is still starting.", status=503, kind=kind)
        media = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if media != b"application/json":
            said = "Unsupported Media Type: Only 'application/json' is allowed"
            raise Refusal(said, kind="Bad Request")
        ask = self.read(raw, engine.served)
        wanted = headers[HEADER].decode("latin-1") if HEADER in headers else None
        fault = choose(wanted, engine.driver.scheduler.model, engine.dice)
        if fault is Fault.CRASH:
            os._exit(1)
        if fault is Fault.ERROR:
            raise Refusal("Simulated fault.", status=500, kind="InternalServerError")
        return ask, fault

    def _envelope(self, headers: dict[bytes, bytes], ask: Ask) -> wire.Envelope:
        name = headers.get(b"x-request-id", b"").decode("latin-1") or os.urandom(16).hex()
        reply_id = self.dialect.prefix + name
        spoken = ask.adapter or self.engine.names.model
        return wire.Envelope(self.dialect, reply_id, int(time.time()), spoken)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request in service.

    Attributes:
        breaks: whether the connection is to be closed in the middle.
    """

    ask: Ask
    envelope: wire.Envelope
    tap: Tap
    breaks: bool


async def _whole(exchange: Exchange, send: Send) -> None:
    """Send the reply in one piece once its last token is there."""
    await exchange.tap.beyond(len(exchange.ask.reply.pieces) - 1)
    body = wire.whole(exchange.envelope, exchange.ask)
    if exchange.breaks:
        await _start(send, 200, JSON, (b"content-length", b"%d" % len(body)))
        await send(_part(body[: len(body) // 2], more=True))
    else:
        await _answer(send, 200, body)


async def _stream(exchange: Exchange, send: Send) -> None:
    """Send headers at once and then each token's frame; a break leaves the response unfinished.

    The server closes the connection of an unfinished response, which is how a client sees an
    engine die in the middle.
    """
    frames = wire.Frames(exchange.envelope, exchange.ask)
    last = len(exchange.ask.reply.pieces)
    stop = max(1, last // 2) if exchange.breaks else last
    await _start(send, 200, EVENTS)
    seen = 0
    while seen < stop:
        generated = min(await exchange.tap.beyond(seen), stop)
        await send(_part(frames.between(seen, generated), more=generated < last or exchange.breaks))
        seen = generated


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _hang_up(receive: Receive) -> None:
    """Return when the client has gone; the body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _answer(send: Send, status: int, body: bytes, *more: tuple[bytes, bytes]) -> None:
    await _start(send, status, JSON, (b"content-length", b"%d" % len(body)), *more)
    await send(_part(body, more=False))


async def _start(send: Send, status: int, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": int(status), "headers": [*headers]})


def _part(body: bytes, *, more: bool) -> dict[str, object]:
    return {"type": "http.response.body", "body": body, "more_body": more}
