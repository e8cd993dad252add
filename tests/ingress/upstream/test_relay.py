"""The relay against engines that misbehave: real sockets, one ending for each (CONTRACT §5)."""

import asyncio
import contextlib
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from serve_app.errors import GateError, NoSuchRoute, UpstreamFailed, UpstreamTimeout
from serve_app.ingress.reading.call import Call
from serve_app.ingress.upstream import Relay
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
    made.close()


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


@pytest.mark.parametrize(("first_s", "between_s"), [(0.2, 30.0), (30.0, 0.2)])
async def test_each_silence_has_its_own_limit(first_s: float, between_s: float) -> None:
    """Before the first byte the one counts, from then on the other, also where it is shorter."""
    relay = Relay(first_byte_timeout_s=first_s, between_bytes_timeout_s=between_s)
    silent, error = (
        (nothing, UpstreamTimeout) if first_s < between_s else (one_chunk, UpstreamFailed)
    )

    async def ask(seat: Seat) -> None:
        async with relay.send(CALL, seat, {}) as reply:
            async for _ in reply.chunks():
                pass

    async with engine(silent) as seat:
        began_s = time.monotonic()
        with pytest.raises(error):
            await ask(seat)
    assert 0.15 < time.monotonic() - began_s < 10
    relay.close()


async def test_a_first_byte_within_its_time_is_not_late_for_the_other() -> None:
    """An engine that thinks for longer than it may be silent later is heard."""

    async def slow(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.6)  # longer than the silence between two bytes
        writer.write(HEAD + CHUNK + b"0\r\n\r\n")

    relay = Relay(first_byte_timeout_s=10, between_bytes_timeout_s=0.3)
    async with engine(slow) as seat, relay.send(CALL, seat, {}) as reply:
        assert [chunk async for chunk in reply.chunks()] == [b"hello"]
    relay.close()


@contextlib.asynccontextmanager
async def server(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[Seat]:
    """An engine that reads its requests itself."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await answer(reader, writer)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    yield Seat("r", Address("127.0.0.1", port, "k"), 1, 0.0, "standard")
    listening.close()


async def head_of(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    """The first line of a request, and its headers."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
    return first, {name.lower(): value for name, _, value in (one.partition(": ") for one in lines)}


FORM = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--x--\r\n'


@pytest.mark.parametrize("body", [b"", FORM, bytes(range(256)) * 40_960], ids=len)
async def test_a_body_passes_byte_for_byte(relay: Relay, body: bytes) -> None:
    """With its media type, its length and what this call alone has; no other header of ours."""
    got: list[Any] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, headers = await head_of(reader)
        got.extend((first, headers, await reader.readexactly(int(headers["content-length"]))))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    media = "multipart/form-data; boundary=x"
    call = replace(CALL, body=body, media_type=media, headers={"x-vllm-priority": "2"})
    async with server(answer) as seat, relay.send(call, seat, {"x-request-id": "r1"}):
        pass
    first, headers, received = got
    assert first == "POST /v1/chat/completions HTTP/1.1"
    assert received == body
    assert headers.pop("host").startswith("127.0.0.1:")
    assert headers.pop("accept") == "*/*"
    assert headers == {
        "x-request-id": "r1",
        "x-sluicegate-internal-key": "k",
        "x-vllm-priority": "2",
        "content-type": media,
        "content-length": str(len(body)),
    }


async def test_a_long_header_is_no_failure(relay: Relay) -> None:
    """The ``metadata`` of 2,000 embeddings as bytes: the engine has done its work."""
    metadata = b"x" * 200_000

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nmetadata: " + metadata + b"\r\ncontent-length: 0\r\n\r\n")

    async with server(answer) as seat, relay.send(CALL, seat, {}) as reply:
        assert reply.headers["metadata"] == metadata.decode()


async def test_a_path_that_a_model_does_not_have_is_named(relay: Relay) -> None:
    """Embeddings asked of a model that chats: the engine's own 404 has not our errors' shape."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        body = b'{"detail":"Not Found"}'
        writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    async with server(answer) as seat:
        with pytest.raises(NoSuchRoute, match="'m' does not serve /v1/chat/completions"):
            async with relay.send(CALL, seat, {}):
                pass


async def test_what_comes_back_of_the_headers(relay: Relay) -> None:
    """Media type, length and what describes the body; nothing of the connection, nothing else."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(
            b"HTTP/1.1 418 Teapot\r\ncontent-type: a/b; c=d\r\ncontent-length: 2\r\n"
            b"metadata: {}\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\n"
            b"keep-alive: timeout=5\r\nset-cookie: a=b\r\nserver: uvicorn\r\n"
            b"x-sluicegate-internal-key: k\r\n"
            b"content-encoding: x-own\r\n\r\nok"
        )

    async with server(answer) as seat, relay.send(CALL, seat, {}) as reply:
        assert (reply.status, b"".join([one async for one in reply.chunks()])) == (418, b"ok")
        assert reply.headers == {
            "content-type": "a/b; c=d",
            "content-length": "2",
            "content-encoding": "x-own",
            "metadata": "{}",
        }


MEGABYTE = 2**20


async def test_a_slow_reader_slows_the_engine(relay: Relay) -> None:
    """Of a reply that nobody reads, little is kept: the engine sends what buffers hold, no more."""
    sent = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (64 * MEGABYTE))
        for _ in range(64 * 16):
            writer.write(bytes(MEGABYTE // 16))
            await writer.drain()
            sent += MEGABYTE // 16

    async with server(answer) as seat:
        tracemalloc.start()
        async with relay.send(CALL, seat, {}) as reply:
            chunks = aiter(reply.chunks())
            await anext(chunks)
            await asyncio.sleep(0.2)  # the engine sends as much as it can
            kept, _ = tracemalloc.get_traced_memory()
            assert sent < 32 * MEGABYTE, "the kernel's buffers, on both sides"
            async for _ in chunks:
                pass
            _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert kept < 2 * MEGABYTE
    assert peak < 4 * MEGABYTE
    assert sent == 64 * MEGABYTE


async def test_leaving_a_reply_hangs_up(relay: Relay) -> None:
    """The engine sees its client leave at once, whether anything had come or not."""
    left = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        headers = (await head_of(reader))[1]
        await reader.readexactly(int(headers["content-length"]))
        writer.write(HEAD + CHUNK)
        assert await reader.read() == b""
        left.set()

    async with server(answer) as seat:
        async with relay.send(CALL, seat, {}) as reply:
            await anext(aiter(reply.chunks()))
        async with asyncio.timeout(1):
            await left.wait()
