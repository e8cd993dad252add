"""Bytes from the client to the engine and back, over HTTP, as they come.

A client that reads slowly slows its engine down: no more than ``BUFFER_BYTES`` twice of a reply are
kept here, then the engine's socket is no longer read. A large body is handed to the engine's socket
in pieces, as fast as that takes them.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp

from serve_app.errors import UpstreamFailed, UpstreamTimeout
from serve_app.ingress.call import Call
from serve_app.queueing import Place, Seat

CONNECT_S = 3.0
BUFFER_BYTES = 2**16
PIECE_BYTES = 2**18
HEADER_BYTES = 2**20
"""Of an engine's header: ``metadata`` has some hundred bytes for each embedding."""

_PASSED_BACK = ("content-type", "content-length", "content-encoding", "metadata")
"""Of the engine's headers; the last describes embeddings that are sent as bytes."""


@dataclass(slots=True)
class Upstream:
    """An engine's reply that has begun: its first bytes are here.

    Attributes:
        status: the engine's status.
        headers: those of its headers that go on to the client.
    """

    status: int
    headers: dict[str, str]
    first: bytes
    _reply: aiohttp.ClientResponse

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes.

        Raises:
            UpstreamFailed: the engine broke off, or was silent too long between two bytes.
        """
        chunk = self.first
        while chunk:
            yield chunk
            try:
                chunk = await _next(self._reply)
            except UpstreamTimeout as err:
                raise UpstreamFailed(str(err)) from err


class Relay:
    """The connections to all engines; make it inside a running event loop.

    Args:
        first_byte_timeout_s: how long an engine may be silent before its first byte.
        between_bytes_timeout_s: and how long from then on.
    """

    def __init__(self, *, first_byte_timeout_s: float, between_bytes_timeout_s: float) -> None:
        self._first_byte_s = first_byte_timeout_s
        self._between_s = between_bytes_timeout_s
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
            read_bufsize=BUFFER_BYTES,
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
        )

    async def close(self) -> None:
        """Close every connection; engines abort what still runs."""
        await self._session.close()

    @asynccontextmanager
    async def send(
        self, call: Call, seat: Seat, headers: dict[str, str]
    ) -> AsyncIterator[Upstream]:
        """Send ``call`` to the engine of ``seat`` and lend its reply once that has begun.

        Leaving the block closes the reply: an engine that still works for it aborts.

        Raises:
            UpstreamFailed: unreachable, 5xx, broken before the first byte, or without the adapter
                that is asked for; another may do it.
            UpstreamTimeout: silent too long.
        """
        told = {**headers, **call.headers, "content-type": call.media_type}
        async with self.ask("POST", call.path, seat, told, call.body) as reply:
            if call.adapter and _lacks(call.adapter, reply):
                raise UpstreamFailed("The replica has not loaded the adapter.", retry_after_s=1.0)
            yield reply

    @asynccontextmanager
    async def ask(
        self, method: str, path: str, at: Seat | Place, headers: dict[str, str], body: bytes = b""
    ) -> AsyncIterator[Upstream]:
        """Send one request to an engine and lend its reply, as :meth:`send` does."""
        wanted = {**headers, **at.address.headers, "content-length": str(len(body))}
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_S, sock_read=self._first_byte_s
        )
        try:
            reply = await self._session.request(
                method, at.address.url + path, data=_sent(body), headers=wanted, timeout=timeout
            )
        except aiohttp.ConnectionTimeoutError as err:
            raise UpstreamFailed("The replica cannot be reached.", retry_after_s=1.0) from err
        except TimeoutError as err:
            raise UpstreamTimeout(f"The replica was silent for {self._first_byte_s:g} s.") from err
        except aiohttp.ClientError as err:
            raise UpstreamFailed("The replica cannot be reached.", retry_after_s=1.0) from err
        try:
            begun = await _begun(reply)
            _limit_silence(reply, self._between_s)
            yield begun
        finally:
            reply.close()


def unreached(err: UpstreamFailed) -> bool:
    """Return whether the engine could not be reached at all, so that it has not said no."""
    return isinstance(err.__cause__, aiohttp.ClientConnectionError)


def _sent(body: bytes) -> bytes | AsyncIterator[memoryview]:
    """Return a body as it is sent: a large one in pieces, so that none is copied whole."""
    return body if len(body) <= PIECE_BYTES else _pieces(body)


async def _pieces(body: bytes) -> AsyncIterator[memoryview]:
    view = memoryview(body)
    for at in range(0, len(body), PIECE_BYTES):
        yield view[at : at + PIECE_BYTES]


def _limit_silence(reply: aiohttp.ClientResponse, most_s: float) -> None:
    """From now on, let the engine be silent for ``most_s``; of a reply that is all here, nothing.

    The connection has one timer, which a timeout around each read would double.
    """
    if reply.connection is not None and (protocol := reply.connection.protocol) is not None:
        protocol.read_timeout = most_s
        protocol.start_timeout()


async def _begun(reply: aiohttp.ClientResponse) -> Upstream:
    """Return the reply once its first bytes are here."""
    if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise UpstreamFailed(f"The replica answered {reply.status}.", retry_after_s=1.0)
    first = await _next(reply)
    told = {name: reply.headers[name] for name in _PASSED_BACK if name in reply.headers}
    return Upstream(reply.status, told, first, reply)


def _lacks(adapter: str, reply: Upstream) -> bool:
    """Return whether an engine does not know ``adapter``, which the gate offers."""
    return reply.status == HTTPStatus.NOT_FOUND and f"`{adapter}`".encode() in reply.first


async def _next(reply: aiohttp.ClientResponse) -> bytes:
    try:
        return await reply.content.readany()
    except TimeoutError as err:
        raise UpstreamTimeout("The replica was silent too long.") from err
    except (aiohttp.ClientError, ConnectionError) as err:
        raise UpstreamFailed("The replica broke off.", retry_after_s=1.0) from err
