"""A request to an engine, and its reply.

A client that reads slowly slows its engine down: little of a reply is kept here, then the engine's
socket is no longer read. A large body is handed to the engine's socket in pieces, as fast as that
takes them.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

from serve_app.errors import NoSuchRoute, UpstreamFailed, UpstreamTimeout
from serve_app.ingress.reading.call import Call
from serve_app.ingress.upstream.connection import BrokenOff, Connection
from serve_app.ingress.upstream.connections import Connections
from serve_app.queueing import Place, Seat

_PASSED_BACK = ("content-type", "content-length", "content-encoding", "metadata")
"""Of the engine's headers; the last describes embeddings that are sent as bytes."""

_UNROUTED = b'{"detail":"Not Found"}'
"""What an engine says of a path that it does not have for its kind of model."""

_BREAKS = re.compile(r"[\r\n\0]")


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
    _rest: Connection

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes.

        Raises:
            UpstreamFailed: the engine broke off, or was silent too long between two bytes.
        """
        chunk, more = self.first, self._rest.more
        try:
            while chunk:
                yield chunk
                chunk = await more()
        except TimeoutError as err:
            raise UpstreamFailed("The replica was silent too long.") from err
        except ConnectionError as err:
            raise UpstreamFailed("The replica broke off.", retry_after_s=1.0) from err


class Relay:
    """The connections to all engines.

    Args:
        first_byte_timeout_s: how long an engine may be silent before its first byte.
        between_bytes_timeout_s: and how long from then on.
    """

    def __init__(self, *, first_byte_timeout_s: float, between_bytes_timeout_s: float) -> None:
        self._first_byte_s = first_byte_timeout_s
        self._between_s = between_bytes_timeout_s
        self._connections = Connections()

    def close(self) -> None:
        """Close every connection; engines abort what still runs."""
        self._connections.close()

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
            NoSuchRoute: the model is of a kind that does not serve the path.
        """
        told = {**headers, **call.headers, "content-type": call.media_type}
        async with self.ask("POST", call.path, seat, told, call.body) as reply:
            if call.adapter and _lacks(call.adapter, reply):
                raise UpstreamFailed("The replica has not loaded the adapter.", retry_after_s=1.0)
            if reply.status == HTTPStatus.NOT_FOUND and reply.first == _UNROUTED:
                raise NoSuchRoute(f"The model '{call.model.name}' does not serve {call.path}.")
            yield reply

    @asynccontextmanager
    async def ask(
        self, method: str, path: str, at: Seat | Place, headers: dict[str, str], body: bytes = b""
    ) -> AsyncIterator[Upstream]:
        """Send one request to an engine and lend its reply, as :meth:`send` does."""
        head = _head(method, path, at, {**headers, "content-length": str(len(body))})
        try:
            connection = await self._connections.take(at.address.host, at.address.port)
        except OSError as err:
            raise UpstreamFailed("The replica cannot be reached.", retry_after_s=1.0) from err
        try:
            reply = await self._begun(connection, head, body)
            connection.limit_silence(self._between_s)
            yield reply
        finally:
            self._connections.give_back(connection)

    async def _begun(self, connection: Connection, head: bytes, body: bytes) -> Upstream:
        """Return the reply once its first bytes are here."""
        try:
            await connection.ask(head, body, self._first_byte_s)
            if connection.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                failed = f"The replica answered {connection.status}."
                raise UpstreamFailed(failed, retry_after_s=1.0)
            first = await connection.more()
        except TimeoutError as err:
            raise UpstreamTimeout(f"The replica was silent for {self._first_byte_s:g} s.") from err
        except ConnectionError as err:
            raise UpstreamFailed("The replica broke off.", retry_after_s=1.0) from err
        theirs = connection.headers
        told = {name: theirs[name] for name in _PASSED_BACK if name in theirs}
        return Upstream(connection.status, told, first, connection)


def unreached(err: UpstreamFailed) -> bool:
    """Return whether the engine could not be reached at all, so that it has not said no."""
    return isinstance(err.__cause__, OSError) and not isinstance(err.__cause__, BrokenOff)


def _head(method: str, path: str, at: Seat | Place, headers: Mapping[str, str]) -> bytes:
    """Return a request's first line and headers, among them what opens the engine's guard."""
    host = at.address.url.partition("//")[2]
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}", "accept: */*"]
    lines += [f"{name}: {value}" for name, value in {**headers, **at.address.headers}.items()]
    if any(map(_BREAKS.search, lines)):
        raise ValueError("a header that ends its line")
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def _lacks(adapter: str, reply: Upstream) -> bool:
    """Return whether an engine does not know ``adapter``, which the gate offers."""
    return reply.status == HTTPStatus.NOT_FOUND and f"`{adapter}`".encode() in reply.first
