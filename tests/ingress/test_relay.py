"""The relay against engines that misbehave: real sockets, one ending for each (CONTRACT §5)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from serve_app.errors import GateError, UpstreamFailed, UpstreamTimeout
from serve_app.ingress.call import Call
from serve_app.ingress.relay import Relay
from serve_app.model_settings import Model
from serve_app.ports import free_port
from serve_app.queueing import Seat
from serve_app.store import Address

CALL = Call(Model(name="m"), "/v1/chat/completions", b"{}", True, False, 1)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNK = b"5\r\nhello\r\n"
Says = Callable[[asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def engine(says: Says) -> AsyncIterator[Seat]:
    """An engine that reads a request and then does what the test wants."""
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await says(writer)
            await left.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield Seat("r", Address("127.0.0.1", port, "k"), 1, 0.0, "standard")
    left.set()
    server.close()


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    made = Relay(first_byte_timeout_s=0.3, between_bytes_timeout_s=0.3)
    yield made
    await made.close()


async def nothing(_writer: asyncio.StreamWriter) -> None:
    """Say nothing."""


async def headers_only(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD)


async def one_chunk(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + CHUNK)


async def one_chunk_and_gone(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + CHUNK)
    await writer.drain()
    writer.close()


async def gone(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def failing(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n")


@pytest.mark.parametrize(
    ("says", "before_any_byte", "error"),
    [
        pytest.param(nothing, True, UpstreamTimeout, id="silent"),
        pytest.param(headers_only, True, UpstreamTimeout, id="silent after its headers"),
        pytest.param(gone, True, UpstreamFailed, id="gone"),
        pytest.param(failing, True, UpstreamFailed, id="500"),
        pytest.param(one_chunk, False, UpstreamFailed, id="silent in the middle"),
        pytest.param(one_chunk_and_gone, False, UpstreamFailed, id="gone in the middle"),
    ],
)
async def test_every_misbehaviour_has_its_own_ending(
    relay: Relay, says: Says, before_any_byte: bool, error: type[GateError]
) -> None:
    """Silence before any byte is a timeout and not tried again; anything else is a failure."""
    got: list[bytes] = []

    async def ask(seat: Seat) -> None:
        async with relay.send(CALL, seat, {}) as reply:
            async for chunk in reply.chunks():
                got.append(chunk)

    async with engine(says) as seat:
        with pytest.raises(error):
            await ask(seat)
    assert got == ([] if before_any_byte else [b"hello"])


async def test_nobody_there_is_a_failure(relay: Relay) -> None:
    """A replica that has just gone may be replaced by another one."""
    seat = Seat("r", Address("127.0.0.1", free_port(), "k"), 1, 0.0, "standard")
    with pytest.raises(UpstreamFailed):
        async with relay.send(CALL, seat, {}):
            pass
