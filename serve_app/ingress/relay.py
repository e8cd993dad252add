"""Bytes from the client to the engine and back, over HTTP, as they come."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp

from serve_app.errors import UpstreamFailed, UpstreamTimeout
from serve_app.ingress.call import Call
from serve_app.queueing import Seat

CONNECT_S = 3.0
_PASSED_BACK = ("content-type", "content-length")


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
    """

    def __init__(self, *, first_byte_timeout_s: float) -> None:
        self._first_byte_s = first_byte_timeout_s
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
            read_bufsize=2**18,
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
            UpstreamFailed: unreachable, 5xx, or broken before the first byte; another may do it.
            UpstreamTimeout: silent too long.
        """
        wanted = {**headers, **seat.address.headers, "content-type": "application/json"}
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_S, sock_read=self._first_byte_s
        )
        try:
            reply = await self._session.post(
                seat.address.url + call.path, data=call.body, headers=wanted, timeout=timeout
            )
        except aiohttp.ConnectionTimeoutError as err:
            raise UpstreamFailed("The replica cannot be reached.", retry_after_s=1.0) from err
        except TimeoutError as err:
            raise UpstreamTimeout(f"The replica was silent for {self._first_byte_s:g} s.") from err
        except aiohttp.ClientError as err:
            raise UpstreamFailed("The replica cannot be reached.", retry_after_s=1.0) from err
        try:
            yield await _begun(reply)
        finally:
            reply.close()


async def _begun(reply: aiohttp.ClientResponse) -> Upstream:
    """Return the reply once its first bytes are here."""
    if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise UpstreamFailed(f"The replica answered {reply.status}.", retry_after_s=1.0)
    first = await _next(reply)
    told = {name: reply.headers[name] for name in _PASSED_BACK if name in reply.headers}
    return Upstream(reply.status, told, first, reply)


async def _next(reply: aiohttp.ClientResponse) -> bytes:
    try:
        return await reply.content.readany()
    except TimeoutError as err:
        raise UpstreamTimeout("The replica was silent too long.") from err
    except (aiohttp.ClientError, ConnectionError) as err:
        raise UpstreamFailed("The replica broke off.", retry_after_s=1.0) from err
