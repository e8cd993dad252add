"""Seats without the store: a gateway lends its share of those it last heard of, and no more."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from serve_app.errors import NoCapacity, QueueTimeout, StoreUnavailable
from serve_app.queueing import Asks, Line
from serve_app.queueing.local import LocalSeats
from serve_app.settings import QueueClass
from serve_app.store import Address, Store, keys, registry
from tests.stores import Server

AT = Address("127.0.0.1", 1, "k")
PATIENT_CLASS = QueueClass(name="standard", max_wait_s=20, max_tickets=100)
HASTY_CLASS = QueueClass(name="hasty", max_wait_s=0.4, max_tickets=100)
CLASSES = [PATIENT_CLASS, HASTY_CLASS]
PATIENT, HASTY = Asks(PATIENT_CLASS), Asks(HASTY_CLASS)


def known(seats: dict[str, int], gateways: int = 1) -> LocalSeats:
    """Return the seats of one of so many gateways, that has heard of these."""
    local = LocalSeats(open_=True)
    info = {replica: f"at {replica}" for replica in seats}
    local.know("m", info, {name: str(one) for name, one in seats.items()}, gateways=gateways)
    return local


async def take(local: LocalSeats, ticket: str, avoid: str = "", patience_s: float = 0.0) -> str:
    """Return the replica of a seat, "" if there is none."""
    found = await local.take(ticket, "m", avoid=avoid, patience_s=patience_s)
    if found is None:
        return ""
    assert found[1] == f"at {found[0]}"
    return found[0]


@pytest.mark.parametrize(
    ("seats", "gateways", "lent"),
    [
        pytest.param({"a": 4}, 1, 4, id="all"),
        pytest.param({"a": 5}, 2, 2, id="rounded down"),
        pytest.param({"a": 5, "b": 4}, 2, 4, id="of each replica"),
        pytest.param({"a": 1, "b": 2}, 2, 1, id="too few to be divided"),
        pytest.param({"a": 0}, 1, 0, id="none offered"),
    ],
)
async def test_no_more_than_its_share_is_lent_at_once(seats, gateways: int, lent: int) -> None:
    """Of each replica's seats the part of one gateway, rounded down."""
    local = known(seats, gateways)
    told = [await take(local, f"t{number}") for number in range(12)]
    assert sum(map(bool, told)) == lent
    for replica, offered in seats.items():
        assert told.count(replica) == offered // gateways


async def test_what_the_store_lent_before_counts() -> None:
    """The engine that runs two of ours has two seats fewer for us, until they end."""
    local = known({"a": 6}, 2)
    local.lent("before 1", "a")
    local.lent("before 2", "a")
    assert [await take(local, "t1"), await take(local, "t2")] == ["a", ""]
    local.leave("before 1")
    local.leave("before 1")
    assert [await take(local, "t2"), await take(local, "t3")] == ["a", ""]


async def test_the_roomiest_replica_and_not_the_one_that_failed() -> None:
    """The one to avoid is lent only if there is no other."""
    local = known({"a": 3, "b": 2})
    assert [await take(local, f"t{number}") for number in range(3)] == ["a", "a", "b"]
    assert await take(local, "t4", avoid="a") == "b"
    assert await take(local, "t5", avoid="a") == "a"
    assert await take(local, "t6") == ""


async def test_who_finds_no_seat_waits_as_long_as_it_may() -> None:
    """A seat that comes free is lent to whoever waits; after its patience there is none."""
    local = known({"a": 1})
    assert await take(local, "t1") == "a"
    waiting = asyncio.create_task(take(local, "t2", patience_s=10))
    await asyncio.sleep(0)
    local.leave("t1")
    assert await asyncio.wait_for(waiting, 5) == "a"
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    assert await take(local, "t3", patience_s=0.2) == ""
    assert 0.2 <= loop.time() - began_s < 2


async def test_a_model_without_a_replica_is_told_at_once() -> None:
    """Nobody waits for a replica of which nobody could hear; nor where none is lent at all."""
    assert await LocalSeats(open_=True).take("t", "m", avoid="", patience_s=60) is None
    assert not known({}).has("m")
    shut = LocalSeats(open_=False)
    shut.lent("t", "a")
    assert not shut._lent
    assert await shut.take("t", "m", avoid="", patience_s=60) is None
    shut.know("m", {"a": "info"}, {"a": "4"}, gateways=1)  # known for where conversations go
    assert not shut.has("m")
    assert await shut.take("t", "m", avoid="", patience_s=0) is None


# The line of a gateway, on a real store that goes away.


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of this test's own, that keeps what it has written."""
    started = Server(tmp_path, "appendonly yes", "appendfsync always")
    yield started
    started.end()


@pytest.fixture
async def line(server: Server) -> AsyncIterator[Line]:
    """The line of a gateway that has heard of two seats, and has lost its store."""
    store = Store(server.url, timeout_ms=500)
    opened = Line(store, ["m", "asleep"], CLASSES, on_loss="local")
    await registry.beat(store, "m", "r", 2, AT)
    await opened.open()
    async with asyncio.timeout(10):
        while not opened._local.has("m"):
            await asyncio.sleep(0.01)  # until it has looked
    server.kill()
    yield opened
    await opened.close()
    await store.close()


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(None, id="reply finished"),
        pytest.param(RuntimeError, id="engine broke"),
        pytest.param(asyncio.CancelledError, id="client hung up"),
    ],
)
async def test_a_seat_is_given_back_however_it_ends(line: Line, ending) -> None:
    """No ending leaves a seat of our own lent."""

    async def request() -> None:
        async with line.seat("m", HASTY) as seat:
            assert (seat.replica, seat.address) == ("r", AT)
            if ending:
                raise ending

    for _ in range(4):
        with pytest.raises(ending) if ending else nullcontext():
            await request()
    assert not line._local._lent
    assert not line._local._running


async def test_no_seat_in_time_is_the_stores_refusal(line: Line) -> None:
    """After the patience of its class, and at once for a model without a replica."""
    async with line.seat("m", HASTY), line.seat("m", HASTY):
        loop = asyncio.get_running_loop()
        for model, least_s, most_s in (("m", 0.4, 3), ("asleep", 0.0, 0.3)):
            began_s = loop.time()
            with pytest.raises(StoreUnavailable) as told:
                async with line.seat(model, HASTY):
                    pass
            assert told.value.details == {"state": "unreachable"}
            assert least_s <= loop.time() - began_s < most_s


async def test_who_waits_here_stands_in_line_when_the_store_is_back(
    server: Server, line: Line
) -> None:
    """It gets the store's next seat, and none of our own; it is not asked to wait twice as long."""
    async with line.seat("m", PATIENT), line.seat("m", PATIENT):
        short = Asks(PATIENT_CLASS.model_copy(update={"max_wait_s": 6.0}))

        async def ask() -> str:
            async with line.seat("m", short) as seat:
                return seat.replica

        waiting = asyncio.create_task(ask())
        await asyncio.sleep(0.3)  # it has asked once and waits
        server.start()
        assert await asyncio.wait_for(waiting, 5) == "r"
        assert len(line._local._lent) == 2
    async with asyncio.timeout(5):
        while line._owed:
            await asyncio.sleep(0.01)  # until the tender has paid


async def test_patience_is_counted_from_the_beginning(server: Server, line: Line) -> None:
    """Time spent waiting without the store is time spent."""
    async with line.seat("m", PATIENT), line.seat("m", PATIENT):
        asked_s = asyncio.get_running_loop().time()
        waiting = asyncio.create_task(refused(line))
        await asyncio.sleep(1.0)  # a part of what it may
        await asyncio.to_thread(server.start)
        server.told("DEL", *keys.line("m")[:4])  # no replica there either
        with pytest.raises((NoCapacity, QueueTimeout)):
            await asyncio.wait_for(waiting, 10)
        assert 3.9 < asyncio.get_running_loop().time() - asked_s < 4.8


async def refused(line: Line) -> None:
    async with line.seat("m", Asks(PATIENT_CLASS.model_copy(update={"max_wait_s": 4.0}))):
        pass
