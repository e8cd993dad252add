"""One request and its reply, as the handlers see them."""

import asyncio
import json
import math
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from serve_app.auth import Credential
from serve_app.errors import BodyTooLarge, GateError, InvalidRequest, WrongMediaType
from serve_app.ingress.reading.body import json_object
from serve_app.ingress.reading.dialects import dialect_of
from serve_app.ingress.reading.form import FORM, form_fields
from serve_app.ingress.wish import Wish
from serve_app.limits import Hold
from serve_app.model_settings import Model
from serve_app.redaction import redacted

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
BODY_S = 60.0
"""Seconds a body may take to arrive."""

SIZE_DIGITS = 18
"""Digits of a declared size; whoever writes more sends more than anybody reads."""

IN_LOOP_BYTES = 65_536
"""Bytes up to which a body is parsed at once; more is parsed beside the event loop."""


class Exchange:
    """The wire of one request; what it notes down ends up in the access log.

    Attributes:
        settle_id: our own name for this exchange; a client cannot choose it.
        request_id: the client's ``x-request-id`` if it is safe and no secret, else a new one.
        notes: fields for the access log.
        credential: what the request shows, once it was found.
        code: the refusal's, if it was one.
        held: what the store said of the caller, once it was asked.
        address: where it comes from, once that was told.
        wish: what the client wishes of the line, once that was read.
        body: the body's bytes and the object in them, once they were read.
        raw: the body as it came, also a form, or one that holds no object.
        captured: is told the line of the access log, if its key is watched.
        headers_out: headers that every reply of this exchange carries.
        started: whether the reply has begun.
        streaming: whether the reply is an event stream.
        seated_s: when it last took a seat, by ``perf_counter``; 0 if it never did.
        events_out: events of a stream that have gone on to the client.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.began_s = time.perf_counter()
        self.started = False
        self.streaming = False
        self.seated_s = 0.0
        self.events_out = 0
        self.status = 0
        self.code: str | None = None
        self.bytes_out = 0
        self.notes: dict[str, Any] = {}
        self.credential: Credential | None = None
        self.held: Hold | None = None
        self.address: str | None = None
        self.wish = Wish()
        self._mistake: GateError | None = None
        self.body: tuple[bytes, dict[str, Any]] | None = None
        self.raw = b""
        self.captured: Callable[[dict[str, Any]], None] | None = None
        given = self.header("x-request-id") or ""
        self.settle_id = secrets.token_hex(12)
        safe = _SAFE_ID.fullmatch(given) and redacted(given) == given
        self.request_id = given if safe else f"req-{self.settle_id}"
        self.headers_out: dict[str, str] = {"x-content-type-options": "nosniff"}
        if (
            given != self.request_id
        ):  # Serve sends back the id it was given; ours only if it differs
            self.headers_out["x-request-id"] = self.request_id
        dialect = dialect_of(self.path)
        if dialect is not None and dialect.errors == "anthropic":
            self.headers_out["request-id"] = self.request_id  # where Anthropic's clients look

    @property
    def method(self) -> str:
        """The HTTP method."""
        return str(self.scope["method"])

    @property
    def path(self) -> str:
        """The path, without the query."""
        return str(self.scope["path"])

    @property
    def media_type(self) -> str:
        """What the body is declared as, with its parameters; empty if it is not."""
        return self.header("content-type") or ""

    @property
    def query(self) -> Mapping[str, str]:
        """The query's fields; of one given twice, the last."""
        return dict(parse_qsl(self.scope["query_string"].decode("latin-1"), keep_blank_values=True))

    def header(self, name: str) -> str | None:
        """Return the first header called ``name`` (lower case)."""
        values = self.header_lines(name)
        return values[0] if values else None

    def header_lines(self, name: str) -> list[str]:
        """Return every header called ``name``, in order."""
        wanted = name.encode()
        return [value.decode("latin-1") for key, value in self.scope["headers"] if key == wanted]

    async def json_body(self, max_bytes: int) -> tuple[bytes, dict[str, Any]]:
        """Read the body and return its bytes and the JSON object in them.

        Raises:
            WrongMediaType: it is not declared as JSON.
            BodyTooLarge: more than ``max_bytes``; the rest was not read.
            InvalidRequest: it is not one JSON object, or nested deeper than 64.
        """
        if self._mistake is not None:
            raise self._mistake
        if self.body is None:
            try:
                self.body = await self._json_body(max_bytes)
            except GateError as mistake:
                self._mistake = mistake
                raise
        return self.body

    async def form_body(self, max_bytes: int) -> tuple[bytes, dict[str, Any]]:
        """Read the body and return its bytes and the text fields of the form in them.

        Raises:
            WrongMediaType: it is not declared as a form.
            BodyTooLarge: more than ``max_bytes``; the rest was not read.
            InvalidRequest: it is no form, or one that can be read in two ways.
        """
        raw = await self._body_of(FORM, max_bytes)
        return raw, form_fields(raw, self.media_type)

    async def _json_body(self, max_bytes: int) -> tuple[bytes, dict[str, Any]]:
        raw = await self._body_of("application/json", max_bytes)
        if len(raw) <= IN_LOOP_BYTES:
            return raw, json_object(raw)
        return raw, await asyncio.to_thread(json_object, raw)

    async def _body_of(self, wanted: str, max_bytes: int) -> bytes:
        """Return the body's bytes, if they are declared as what is wanted; they stay in ``raw``."""
        media = self.media_type.partition(";")[0].strip().lower()
        if media != wanted:
            raise WrongMediaType(f"Send 'Content-Type: {wanted}', not '{media[:60]}'.")
        try:
            async with asyncio.timeout(BODY_S):
                self.raw = await self._body(max_bytes)
                return self.raw
        except TimeoutError:
            raise InvalidRequest(f"The body did not arrive within {BODY_S:g} s.") from None

    def declared_bytes(self) -> float:
        """Return the size of the body as the client declares it; infinite if it does not."""
        declared = self.header("content-length")
        if declared is None:
            return math.inf if self.header("transfer-encoding") else 0
        sane = declared.isdecimal() and len(declared) <= SIZE_DIGITS
        return int(declared) if sane else math.inf

    async def _body(self, max_bytes: int) -> bytes:
        too_large = BodyTooLarge(f"The body is larger than {max_bytes} bytes.")
        if self.header("content-length") is not None and self.declared_bytes() > max_bytes:
            raise too_large
        parts, size = [], 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError("the client left while sending")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > max_bytes:
                raise too_large
            if not message.get("more_body", False):
                return b"".join(parts)

    def passed_on(self, model: Model) -> dict[str, str]:
        """Return the headers that the engine of ``model`` gets."""
        faults = model.engine == "simulated"
        told = {"x-request-id": self.request_id}
        for key, value in self.scope["headers"]:
            name = key.decode("latin-1")
            if name in ("traceparent", "tracestate") or (
                faults and name.startswith("x-simulated-")
            ):
                told[name] = value.decode("latin-1")
        return told

    def note_seat(self, served_class: str, waited_ms: float) -> None:
        """Note class and time in line for headers and log; first its own class, then the served."""
        self.seated_s = time.perf_counter()
        self.headers_out["x-served-class"] = served_class
        if self.notes.setdefault("class", served_class) != served_class:
            self.notes["served_class"] = served_class  # waiting has lifted it
        self.note_wait(waited_ms)

    def note_wait(self, waited_ms: float) -> None:
        """Note time in line, also of a wait for nothing."""
        self.headers_out["x-queue-time-ms"] = f"{waited_ms:.1f}"
        self.notes["queue_ms"] = round(waited_ms, 3)

    def note_first_byte(self) -> None:
        """Note for the log that the engine's first byte is here."""
        self.notes["first_byte_ms"] = round((time.perf_counter() - self.began_s) * 1_000, 3)

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Begin the reply."""
        self.started, self.status = True, status
        self.streaming = headers.get("content-type", "").startswith("text/event-stream")
        lines = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in {**self.headers_out, **headers}.items()
        ]
        await self.send({"type": "http.response.start", "status": status, "headers": lines})

    async def send_theirs(self, message: MutableMapping[str, Any]) -> None:
        """Send on what somebody else answers, with the headers that every reply carries."""
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            ours = [(name.encode(), value.encode()) for name, value in self.headers_out.items()]
            message["headers"] = [*message["headers"], *ours]
        await self.send(message)

    async def write(self, chunk: bytes, *, more: bool = True) -> None:
        """Send a piece of the body; ``more=False`` ends the reply."""
        self.bytes_out += len(chunk)
        await self.send({"type": "http.response.body", "body": chunk, "more_body": more})

    async def reply(
        self, status: int, body: object = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a whole reply, ``body`` as JSON; None sends none."""
        raw = b"" if body is None else json.dumps(body).encode()
        kind = {"content-type": "application/json", "content-length": str(len(raw))}
        await self.start(status, {**({} if body is None else kind), **(headers or {})})
        await self.write(raw, more=False)
