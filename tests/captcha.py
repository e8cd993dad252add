"""A captcha service on a real socket that does what a test wants."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable

Says = Callable[[asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def service(says: Says) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A captcha service that reads a request, keeps it, and does what the test wants."""
    heard: list[bytes] = []
    left = asyncio.Event()
    serving: list[asyncio.Task[object] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        head = await reader.readuntil(b"\r\n\r\n")
        (length,) = [
            int(line[15:]) for line in head.split(b"\r\n") if line[:15] == b"Content-Length:"
        ]
        heard.append(head + await reader.readexactly(length))
        with contextlib.suppress(ConnectionError):
            await says(writer)
            await left.wait()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/siteverify", heard
    finally:
        left.set()
        server.close()
        await asyncio.gather(*filter(None, serving))


def answers(body: object, status: str = "200 OK", *more: str) -> Says:
    """Answer ``body``, as JSON unless it is bytes."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def say(writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status}", f"content-length: {len(raw)}", *more]
        writer.write("\r\n".join([*lines, "", ""]).encode() + raw)

    return say
