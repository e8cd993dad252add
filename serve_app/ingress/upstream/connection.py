"""One connection to an engine: HTTP/1.1, one request at a time, its reply in the pieces that come.

free → asked → replying → ended → free;  lost from each, and not used again

A piece costs one wake-up. Whoever reads slowly stops the engine: what is held beyond
``BUFFER_BYTES`` is left in the socket. An engine that answers before it has read a whole body is
heard at once, and the rest is not sent.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import cast

import httptools

BUFFER_BYTES = 2**16
PIECE_BYTES = 2**18
HEADER_BYTES = 2**20
"""Of an engine's header: ``metadata`` has some hundred bytes for each embedding."""

_FAILED = HTTPStatus.INTERNAL_SERVER_ERROR
_BODILESS = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


class BrokenOff(ConnectionError):
    """An engine was reached, and does not say any more."""


class Connection(asyncio.Protocol):
    """A connection; the loop makes it.

    Args:
        on_lost: is told when it is not to be used any more.

    Attributes:
        status: the reply's; 0 until its header is here.
        headers: the reply's, names in lower case.
        lost: why nothing comes any more; None while it is open.
        used_s: when it was last used, in the loop's time.
    """

    def __init__(self, on_lost: Callable[["Connection"], None]) -> None:
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._limit_s = 0.0
        self._full = self._paused = False
        self.lost: Exception | None = None
        self.used_s = self._loop.time()
        self._clear()

    def _clear(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._header_bytes = self._held_bytes = 0
        self._asked = self._sent = self._ended = False
        self._interim = self._keeps = self._to_the_end = False

    async def ask(self, head: bytes, body: bytes, limit_s: float) -> None:
        """Send a request and wait until the first bytes of its reply's body are here, or its end.

        Of a reply that says that the engine failed, no body is waited for.

        Raises:
            TimeoutError: the engine neither read nor wrote for ``limit_s``.
            BrokenOff: it hung up, or what came is no HTTP.
        """
        self._asked = True
        self.limit_silence(limit_s)
        if len(body) <= PIECE_BYTES:
            self._transport.write(head + body)
            self._sent = True
        else:
            self._transport.write(head)
            await self._send(memoryview(body))
        while not (self._parts or self._ended or self.status >= _FAILED):
            await self._event()

    async def _send(self, body: memoryview) -> None:
        """Hand a body over as fast as the socket takes it, until there is an answer."""
        for at in range(0, len(body), PIECE_BYTES):
            self._transport.write(body[at : at + PIECE_BYTES])
            while self._full and not self.status:
                await self._event()
            if self.status:
                return
        self._sent = True

    async def more(self) -> bytes:
        """Return what has come of the body since, or what comes next; nothing at its end.

        Raises:
            TimeoutError: the engine was silent for too long while this waited.
            BrokenOff: it hung up, or what came is no HTTP.
        """
        while not self._parts:
            if self._ended:
                return b""
            await self._event()
        parts = self._parts
        held = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._held_bytes = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return held

    def limit_silence(self, limit_s: float) -> None:
        """From now on, let the engine be silent for ``limit_s`` while somebody waits for it."""
        self._stop_alarm()
        self._limit_s = limit_s
        self._alarm = self._loop.call_later(limit_s, self._look)

    def freed(self) -> bool:
        """End the request; return whether the connection may be used for another.

        A reply that has not come to its end is left by hanging up: the engine stops its work.
        """
        self._stop_alarm()
        self.used_s = self._loop.time()
        if self._sent and self._ended and self._keeps and self.lost is None:
            self._parts.clear()
            self._clear()
            if self._paused:
                self._paused = False
                self._transport.resume_reading()
            return True
        self.close()
        return False

    def close(self) -> None:
        """Hang up."""
        self._transport.abort()

    async def _event(self) -> None:
        """Wait until something has come, could be sent, or went wrong."""
        if self.lost is not None:
            raise BrokenOff from self.lost
        self.used_s = self._loop.time()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _look(self) -> None:
        """End the wait if it has lasted too long; one alarm serves all waits of a request."""
        now_s, waiter = self._loop.time(), self._waiter
        if waiter is None or waiter.done():  # what it waited for has come, perhaps this moment
            due_s = now_s + self._limit_s
        elif (due_s := self.used_s + self._limit_s) <= now_s:
            waiter.set_exception(TimeoutError())
            return
        self._alarm = self._loop.call_at(due_s, self._look)

    def _stop_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _lose(self, why: Exception) -> None:
        if self.lost is None:
            self.lost = why
            self._on_lost(self)
            self._transport.abort()
        self._wake()

    # What the loop says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop_alarm()
        self._lose(exc or ConnectionResetError("the engine hung up"))

    def eof_received(self) -> None:
        """End; a reply without a length ends well when its engine hangs up."""
        if self.status and self._to_the_end:
            self._ended = True

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        if not self.status:
            self._header_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as err:
            self._lose(err)
            return
        if not self.status and self._header_bytes > HEADER_BYTES:
            self._lose(ValueError("the header is too large"))
        elif self._held_bytes > BUFFER_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def pause_writing(self) -> None:
        """Note that the socket takes no more."""
        self._full = True

    def resume_writing(self) -> None:
        """Note that the socket takes more."""
        self._full = False
        self._wake()

    # What the parser says.

    def on_message_begin(self) -> None:
        """Refuse what nobody has asked for."""
        if not self._asked or self._ended:
            raise ValueError("a reply to nothing")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header; of one that comes twice, the first."""
        self.headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        """Note the reply's status; one that is not yet the reply is skipped."""
        status = self._parser.get_status_code()
        self._interim = status < HTTPStatus.OK
        if self._interim:
            self.headers.clear()
            return
        self.status, self._keeps = status, self._parser.should_keep_alive()
        told = "content-length" in self.headers or "transfer-encoding" in self.headers
        self._to_the_end = not told and status not in _BODILESS

    def on_body(self, body: bytes) -> None:
        """Keep a piece until it is asked for."""
        self._parts.append(body)
        self._held_bytes += len(body)

    def on_message_complete(self) -> None:
        """Note that the reply is whole."""
        self._ended = not self._interim
