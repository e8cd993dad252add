"""Connections to engines: when one is used again, and what a reply may look like."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest

from serve_app.errors import UpstreamFailed, UpstreamTimeout
from serve_app.ingress.reading.call import Call
from serve_app.ingress.upstream import Relay, connection, connections, unreached
from serve_app.model_settings import Model
from serve_app.queueing import Seat
from serve_app.store import Address

CALL = Call(Model(name="m"), "/v1/chat/completions", b"{}", False, False, 1)
LARGE = replace(CALL, body=bytes(16 * 2**20))
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


@dataclass
class Engine:
    """Says ``replies``, one to each request, whoever asks; notes over which connection.

    An empty reply is one that does not come, whatever else is sent.
    """

    replies: list[bytes]
    reads_bodies: bool = True
    asked: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        number = len(self.writers)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.asked.append(number)
                if self.reads_bodies:
                    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                    await reader.readexactly(int(length))
                reply = self.replies.pop(0)
                writer.write(reply)
                if not reply or not self.reads_bodies:
                    await self.over.wait()
                if b"-length" not in reply and b"chunked" not in reply:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.append(number)
        writer.close()


@dataclass
class House:
    """A relay, and an engine that can be told what to say."""

    relay: Relay
    engine: Engine
    seat: Seat

    async def ask(self, call: Call = CALL) -> bytes:
        async with self.relay.send(call, self.seat, {}) as reply:
            return b"".join([chunk async for chunk in reply.chunks()])


@pytest.fixture
async def house() -> AsyncIterator[House]:
    engine = Engine([])
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0)
    relay = Relay(first_byte_timeout_s=0.5, between_bytes_timeout_s=0.5)
    port = server.sockets[0].getsockname()[1]
    yield House(relay, engine, Seat("r", Address("127.0.0.1", port, "k"), 1, 0.0, "standard"))
    relay.close()
    engine.over.set()
    server.close()
    for writer in engine.writers:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("reply", "over"),
    [
        pytest.param(OK, [1, 1], id="length"),
        pytest.param(CHUNKED, [1, 1], id="chunks"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + OK, [1, 1], id="not yet the reply"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nok", [1, 2], id="until it hangs up"),
        pytest.param(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", [1, 2], id="HTTP/1.0"),
        pytest.param(OK.replace(b"OK\r", b"OK\r\nConnection: close\r"), [1, 2], id="it says so"),
        pytest.param(OK + b"H", [1, 2], id="something more"),
        pytest.param(OK + OK, [1, 2], id="two replies"),
    ],
)
async def test_a_connection_is_used_again_if_that_is_safe(
    house: House, reply: bytes, over: list[int]
) -> None:
    """After a whole reply and nothing behind it; what nobody asked for answers nobody."""
    house.engine.replies = [reply, OK.replace(b"ok", b"2d")]
    assert await house.ask() == b"ok"
    assert await house.ask() == b"2d"
    assert house.engine.asked == over


async def test_replies_at_once_have_a_connection_each(house: House) -> None:
    """And the next takes one of them."""
    house.engine.replies = [OK] * 4
    await asyncio.gather(*(house.ask() for _ in range(3)))
    await house.ask()
    assert sorted(house.engine.asked[:3]) == [1, 2, 3]
    assert len(house.engine.writers) == 3


async def test_a_reply_to_nothing_is_heard_by_nobody(house: House) -> None:
    """A free connection over which something comes is closed."""
    house.engine.replies = [OK, OK]
    await house.ask()
    house.engine.writers[0].write(OK.replace(b"ok", b"no"))
    while not house.engine.left:
        await asyncio.sleep(0.01)  # the engine sees that we hang up
    assert await house.ask() == b"ok"
    assert house.engine.asked == [1, 2]


async def test_a_connection_that_the_engine_closed_is_not_used(house: House) -> None:
    """Engines hang up on who has nothing to say; nothing is kept of the connection, nor of them."""
    house.engine.replies = [OK, OK]
    await house.ask()
    house.engine.writers[0].close()
    while house.relay._connections._free:
        await asyncio.sleep(0.01)  # the loop tells us that it was closed
    assert await house.ask() == b"ok"
    assert house.engine.asked == [1, 2]


async def test_an_old_connection_is_not_used(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine may be hanging up at this very moment."""
    monkeypatch.setattr(connections, "FREE_S", 0.0)
    house.engine.replies = [OK, OK]
    assert [await house.ask(), await house.ask()] == [b"ok", b"ok"]
    assert house.engine.asked == [1, 2]


async def test_a_reply_that_is_left_takes_its_connection_along(house: House) -> None:
    """What would still come of it answers nobody else."""
    house.engine.replies = [HEAD + b"o", OK]
    async with house.relay.send(CALL, house.seat, {}):
        pass
    assert await house.ask() == b"ok"
    assert house.engine.asked == [1, 2]


async def test_an_early_answer_is_heard(house: House) -> None:
    """An engine that refuses a body it has not read; the connection is not used again."""
    house.engine.reads_bodies = False
    house.engine.replies = [OK, OK]
    assert await house.ask(LARGE) == b"ok"
    assert await house.ask() == b"ok"
    assert house.engine.asked == [1, 2]


async def test_an_engine_that_reads_no_further_is_silent(house: House) -> None:
    """A body that it does not take ends as a reply that does not come."""
    house.engine.reads_bodies = False
    house.engine.replies = [b""]
    with pytest.raises(UpstreamTimeout):
        await house.ask(LARGE)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(b"hello\r\n\r\n", id="no HTTP"),
        pytest.param(HEAD.replace(b"2\r", b"two\r") + b"ok", id="a length that is none"),
        pytest.param(CHUNKED.replace(b"1\r\no", b"x\r\no"), id="a chunk that is none"),
        pytest.param(HEAD.replace(b"con", b"transfer-encoding: chunked\r\ncon"), id="both lengths"),
        pytest.param(b"HTTP/1.1 101 No\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", id="upgrade"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: " + b"x" * (2**20 + 1), id="an endless header"),
    ],
)
async def test_what_is_no_reply_is_a_failure(house: House, reply: bytes) -> None:
    """Another replica may do it."""
    house.engine.replies = [reply]
    with pytest.raises(UpstreamFailed):
        await house.ask()


async def test_a_reader_may_take_its_time(house: House) -> None:
    """An engine is not silent while nobody listens to it."""
    size = 4 * connection.BUFFER_BYTES
    house.engine.replies = [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + bytes(size)]
    got = 0
    async with house.relay.send(CALL, house.seat, {}) as reply:
        async for chunk in reply.chunks():
            got += len(chunk)
            await asyncio.sleep(0.6)  # longer than the engine may be silent
    assert got == size


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\nx: y", "a\0"])
async def test_no_header_ends_its_line(house: House, value: str) -> None:
    """Whatever the gate was given, an engine gets no header that nobody meant."""
    with pytest.raises(ValueError, match="header"):
        async with house.relay.send(CALL, house.seat, {"traceparent": value}):
            pass
    assert house.engine.asked == []


async def test_silence_is_noticed_after_a_stall(house: House) -> None:
    """A piece that came while the loop stood still, at the alarm's own moment, ended all alarms."""
    house.engine.replies = [HEAD + b"o"]
    async with asyncio.timeout(5), house.relay.send(CALL, house.seat, {}) as reply:
        chunks = aiter(reply.chunks())
        await anext(chunks)
        rest = asyncio.ensure_future(anext(chunks))
        await asyncio.sleep(0.1)  # it waits
        (lent,) = house.relay._connections._lent
        lent.used_s -= 9
        lent._wake()
        lent._look()  # in the same turn
        with pytest.raises(UpstreamFailed):
            await rest


async def test_who_broke_off_was_reached(house: House) -> None:
    """A keeper that answers badly still keeps what it keeps."""
    house.engine.replies = [b"hello\r\n\r\n"]
    with pytest.raises(UpstreamFailed) as told:
        await house.ask()
    assert not unreached(told.value)
