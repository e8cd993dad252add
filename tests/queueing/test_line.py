"""The line as a gateway uses it, on a real store."""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import redis

from serve_app.errors import NoCapacity, QueueCancelled, QueueFull, QueueTimeout, StoreUnavailable
from serve_app.queueing import Asks, Line
from serve_app.settings import QueueClass
from serve_app.store import Address, Store, keys, registry

AT = Address("127.0.0.1", 1, "k")
STANDARD = QueueClass(name="standard", max_wait_s=20, max_tickets=100)
CLASSES = [QueueClass(name="interactive", max_seats=2.0), STANDARD]
PATIENT = Asks(STANDARD)


@asynccontextmanager
async def opened(store: Store, *classes: QueueClass) -> AsyncIterator[Line]:
    """A line with classes of its own."""
    line = Line(store, ["m"], classes or CLASSES)
    await line.open()
    yield line
    await line.close()


@pytest.fixture
async def line(store: Store) -> AsyncIterator[Line]:
    opened = Line(store, ["m"], CLASSES)
    await opened.open()
    yield opened
    await opened.close()


async def hold_seat(line: Line, taken: asyncio.Event, go: asyncio.Event) -> None:
    async with line.seat("m", PATIENT):
        taken.set()
        await go.wait()


async def test_a_free_seat_is_lent_at_once_with_its_address(store: Store, line: Line) -> None:
    """Nobody waits beside a free seat, and the seat says where to go."""
    await registry.beat(store, "m", "r", 1, AT)
    async with line.seat("m", PATIENT) as seat:
        assert (seat.replica, seat.address, seat.waited_ms) == ("r", AT, 0.0)


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(None, id="reply finished"),
        pytest.param(RuntimeError, id="engine broke"),
        pytest.param(asyncio.CancelledError, id="client hung up"),
    ],
)
async def test_the_seat_is_given_back_however_it_ends(store: Store, line: Line, ending) -> None:
    """No ending leaves a seat lent."""
    await registry.beat(store, "m", "r", 1, AT)

    async def request() -> None:
        async with line.seat("m", PATIENT):
            if ending:
                raise ending

    if ending:
        with pytest.raises(ending):
            await request()
    else:
        await request()
    assert await registry.beat(store, "m", "r", 1, AT) == 0


async def test_a_waiter_is_woken_when_a_seat_comes_free(store: Store, line: Line) -> None:
    """The push reaches it; it does not wait for the look."""
    await registry.beat(store, "m", "r", 1, AT)
    taken, go = asyncio.Event(), asyncio.Event()
    first = asyncio.create_task(hold_seat(line, taken, go))
    await taken.wait()
    second_taken, second_go = asyncio.Event(), asyncio.Event()
    second = asyncio.create_task(hold_seat(line, second_taken, second_go))
    while line.loads["m"].waiting == 0:
        await asyncio.sleep(0.01)  # until the look has seen it wait
    go.set()
    await asyncio.wait_for(second_taken.wait(), 5)
    second_go.set()
    await asyncio.gather(first, second)
    assert await registry.beat(store, "m", "r", 1, AT) == 0


async def test_a_lost_message_is_caught_by_the_look(store: Store, line: Line) -> None:
    """A gateway that hears nothing still seats its waiters: the look finds them."""
    line._tasks[0].cancel()  # it hears nothing from here on
    waiting = asyncio.create_task(hold_seat(line, taken := asyncio.Event(), go := asyncio.Event()))
    while line.loads["m"].waiting == 0:
        await asyncio.sleep(0.01)  # until it waits
    await registry.beat(store, "m", "r", 1, AT)
    await asyncio.wait_for(taken.wait(), 5)
    go.set()
    await waiting


async def test_who_hangs_up_in_line_leaves_it(store: Store, line: Line) -> None:
    """A cancelled waiter costs nothing: no ticket, no seat."""
    waiting = asyncio.create_task(hold_seat(line, asyncio.Event(), asyncio.Event()))
    while line.loads["m"].waiting == 0:
        await asyncio.sleep(0.01)  # until it waits
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await registry.beat(store, "m", "r", 1, AT) == 0


@pytest.mark.parametrize("bound", [{"max_tickets": 0}, {"max_bytes": 9}])
async def test_a_full_line_refuses_at_the_door(store: Store, bound: dict[str, int]) -> None:
    """One more than may wait is told when to come again; nothing is reserved for it."""
    narrow = QueueClass(name="standard", **bound)
    async with opened(store, narrow) as line:
        with pytest.raises(QueueFull) as told:
            async with line.seat("m", Asks(narrow, body_bytes=10)):
                pass
    assert told.value.retry_after_s >= 1


@pytest.mark.parametrize(
    ("replicas", "refusal"),
    [pytest.param(0, NoCapacity, id="no replica"), pytest.param(1, QueueTimeout, id="all busy")],
)
async def test_patience_ends(store: Store, line: Line, replicas: int, refusal: type) -> None:
    """After max_wait_s the ticket is given back, and the refusal says why it was not seated."""
    if replicas:
        await registry.beat(store, "m", "r", 0, AT)
        while line.loads["m"].replicas == 0:
            await asyncio.sleep(0.01)  # until the look has seen it
    began = time.monotonic()
    with pytest.raises(refusal):
        async with line.seat("m", Asks(STANDARD.model_copy(update={"max_wait_s": 0.2}))):
            pass
    assert time.monotonic() - began < 5
    await registry.beat(store, "m", "r", 1, AT)
    async with line.seat("m", PATIENT) as seat:
        assert seat.waited_ms == 0.0


async def test_a_closed_gateway_leaves_nothing_behind(store: Store) -> None:
    """Its tickets and seats go with it; who waits for it is told to try again."""
    line = Line(store, ["m"], CLASSES)
    await line.open()
    await registry.beat(store, "m", "r", 1, AT)
    seated = asyncio.create_task(hold_seat(line, taken := asyncio.Event(), asyncio.Event()))
    await taken.wait()
    waiting = asyncio.create_task(hold_seat(line, asyncio.Event(), asyncio.Event()))
    while line.loads["m"].waiting == 0:
        await asyncio.sleep(0.01)  # until it waits
    await line.close()
    with pytest.raises(Exception, match="shutting down"):
        await waiting
    assert await registry.beat(store, "m", "r", 1, AT) == 0
    seated.cancel()
    await asyncio.gather(seated, return_exceptions=True)


async def test_first_come_first_seated_across_gateways(store: Store) -> None:
    """Two gateways share one order."""
    lines = [Line(store, ["m"], CLASSES), Line(store, ["m"], CLASSES)]
    for line in lines:
        await line.open()
    order: list[int] = []

    async def request(number: int) -> None:
        async with lines[number % 2].seat("m", PATIENT):
            order.append(number)

    requests = []
    for number in range(8):
        requests.append(asyncio.create_task(request(number)))
        while (await lines[0].look("m")).waiting <= number:
            await asyncio.sleep(0.005)  # until it is in line
    await registry.beat(store, "m", "r", 1, AT)
    await asyncio.wait_for(asyncio.gather(*requests), 20)
    assert order == list(range(8))
    for line in lines:
        await line.close()


async def test_a_seat_that_comes_free_wakes_its_waiter_in_milliseconds(store: Store) -> None:
    """Whichever gateway it waits at: ten milliseconds are generous, no look is that fast."""
    patient = QueueClass(name="standard", max_wait_s=60)
    woken_s: list[float] = []
    freed_s: list[float] = []

    async def request(line: Line) -> None:
        async with line.seat("m", Asks(patient)):
            woken_s.append(time.perf_counter())
            await registry.beat(store, "m", "r", 1, AT)  # the replica lives for as long as it takes
            freed_s.append(time.perf_counter())

    async with opened(store, patient) as one, opened(store, patient) as other:
        requests = [asyncio.create_task(request(line)) for line in [one, other] * 120]
        while (await one.look("m")).waiting < len(requests):
            await asyncio.sleep(0.01)  # until all are in line
        await registry.beat(store, "m", "r", 1, AT)
        await asyncio.wait_for(asyncio.gather(*requests), 20)
    took_ms = [(a - b) * 1_000 for a, b in zip(woken_s[1:], freed_s, strict=False)]
    p50, p99 = statistics.median(took_ms), statistics.quantiles(took_ms, n=100)[98]
    print(f"woken after {p50:.2f} ms (p50), {p99:.2f} ms (p99), {len(took_ms)} times")
    assert p50 <= 10


async def test_a_ticket_that_the_store_forgot_gets_its_old_place_back(
    store: Store, line: Line, store_url: str
) -> None:
    """Silent too long, a gateway is reaped; its waiters do not wait beside free seats for ever."""
    waiting = asyncio.create_task(hold_seat(line, taken := asyncio.Event(), go := asyncio.Event()))
    while line.loads["m"].waiting == 0:
        await asyncio.sleep(0.01)  # until it waits
    with redis.Redis.from_url(store_url) as client:
        client.flushall()
    await registry.beat(store, "m", "r", 1, AT)
    await asyncio.wait_for(taken.wait(), 5)
    go.set()
    await waiting


async def test_a_request_that_comes_again_is_not_turned_away(store: Store) -> None:
    """Its replica failed it; a full line is for newcomers."""
    await registry.beat(store, "m", "r", 0, AT)
    nobody = QueueClass(name="standard", max_tickets=0, max_wait_s=0.2)
    async with opened(store, nobody) as line:
        with pytest.raises((QueueTimeout, NoCapacity)):
            async with line.seat("m", Asks(nobody), arrived_us=1):
                pass


async def test_patience_is_one_however_often_a_request_enters(line: Line) -> None:
    """What it has waited before counts."""
    began = time.monotonic()
    with pytest.raises(NoCapacity):
        async with line.seat("m", Asks(STANDARD, waited_ms=19_900), arrived_us=1):
            pass
    assert time.monotonic() - began < 5


async def test_a_newcomer_does_not_hide_that_others_were_forgotten(
    store: Store, line: Line, store_url: str
) -> None:
    """The store came back empty and somebody enters before the gateway tends: all are put back."""
    taken, go = [asyncio.Event(), asyncio.Event()], asyncio.Event()
    waiting = [asyncio.create_task(hold_seat(line, taken[0], go))]
    while line.loads["m"].waiting == 0:
        await asyncio.sleep(0.01)  # until it waits
    with redis.Redis.from_url(store_url) as client:
        client.flushall()
    waiting.append(asyncio.create_task(hold_seat(line, taken[1], go)))
    async with asyncio.timeout(5):
        while (await line.look("m")).waiting < 2:
            await asyncio.sleep(0.01)  # until both wait
    await registry.beat(store, "m", "r", 2, AT)
    await asyncio.wait_for(asyncio.gather(*(one.wait() for one in taken)), 5)
    go.set()
    await asyncio.gather(*waiting)


async def test_a_lost_cancel_is_caught_by_the_look(line: Line) -> None:
    """A gateway that hears nothing still answers whom an operator sent away."""
    line._tasks[0].cancel()  # it hears nothing from here on
    waiting = asyncio.create_task(hold_seat(line, asyncio.Event(), asyncio.Event()))
    while line.loads["m"].waiting == 0:
        await asyncio.sleep(0.01)  # until it waits
    (one,) = await line.waiting("m")
    assert await line.cancel(one.ticket)
    with pytest.raises(QueueCancelled) as told:
        await asyncio.wait_for(waiting, 5)
    assert (told.value.waited_ms or 0) > 0


async def test_who_was_never_served_is_charged_nothing(store: Store, store_url: str) -> None:
    """A seat that came when its client was gone: its flow owes what it owed before."""
    dear = Asks(STANDARD, tenant="acme", caller="k", input_tokens=100)

    async def ask(line: Line) -> None:
        async with line.seat("m", dear):
            pass

    await registry.beat(store, "m", "r", 1, AT)
    async with opened(store) as line:
        async with line.seat("m", PATIENT):
            waiting = asyncio.create_task(ask(line))
            while line.loads["m"].waiting == 0:
                await asyncio.sleep(0.01)  # until it waits
            line._tasks[0].cancel()  # that it is its turn is not heard
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    with redis.Redis.from_url(store_url) as client:
        flow = client.hget(keys.line("m")[12], "01|acme")
    assert msgspec.msgpack.decode(flow)[0] == 0


class Late(Store):
    """A store that takes a ticket in after its client has left."""

    async def run(self, step: str, names: list[str], args: list[str | int | float]) -> Any:
        if step != "line_enter":
            return await super().run(step, names, args)
        entering = asyncio.create_task(self._later(names, args))
        return await asyncio.shield(entering)

    async def _later(self, names: list[str], args: list[str | int | float]) -> Any:
        await asyncio.sleep(0.1)  # on its way
        return await super().run("line_enter", names, args)


async def test_who_leaves_while_it_enters_keeps_no_seat(store: Store, store_url: str) -> None:
    """The store may hear of the leaving first: the seat it lends then is given back even so."""
    late = Late(store_url, timeout_ms=5_000)
    line = Line(late, ["m"], CLASSES)
    await registry.beat(store, "m", "r", 1, AT)
    await line.open()
    entering = asyncio.create_task(hold_seat(line, asyncio.Event(), asyncio.Event()))
    await asyncio.sleep(0.02)  # it is on its way
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    await asyncio.sleep(0.2)  # the store has taken it in
    async with asyncio.timeout(5):
        while await registry.beat(store, "m", "r", 1, AT):
            await asyncio.sleep(0.01)  # until the tender has sent it away again
    await line.close()
    await late.close()


class Parted(Store):
    """A store that is away for the models and steps the test names."""

    away = ""

    async def run(self, step: str, names: list[str], args: list[str | int | float]) -> Any:
        if self.away and self.away in names[0]:
            raise StoreUnavailable("away")
        return await super().run(step, names, args)

    async def run_many(self, step: str, calls: Sequence[Any]) -> list[Any]:
        if self.away and any(self.away in names[0] for names, _ in calls):
            raise StoreUnavailable("away")
        return await super().run_many(step, calls)


@pytest.fixture
async def parted(store_url: str) -> AsyncIterator[Parted]:
    with redis.Redis.from_url(store_url) as client:
        client.flushall()
    opened = Parted(store_url, timeout_ms=5_000)
    yield opened
    await opened.close()


async def test_a_lost_server_stops_the_tending_of_its_own_models_alone(parted: Parted) -> None:
    """The others' gateways live, their tickets leave and the chores go on; it is not hidden."""
    line, done = Line(parted, ["lost", "m"], CLASSES), Counter[str]()

    async def failing() -> None:
        if parted.away:
            raise StoreUnavailable("away")

    async def working() -> None:
        done["chore"] += 1

    line.tend_also(failing)
    line.tend_also(working)
    for model in ("lost", "m"):
        await registry.beat(parted, model, "r", 2, AT)
    await line.open()
    async with asyncio.timeout(10):
        while not line.tended:
            await asyncio.sleep(0.01)  # until all was looked at
        async with line.seat("m", PATIENT):
            parted.away = "{m:"
        parted.away = "{m:lost}"
        before = done["chore"]
        await registry.beat(parted, "m", "s", 2, AT)
        while line.loads["m"].replicas < 2 or line._owed or done["chore"] < before + 2:
            await asyncio.sleep(0.01)  # until it was looked at, paid, and the chore done again
        assert (line.tended, line.alive) == (False, True)
        parted.away = ""
        while not line.tended:
            await asyncio.sleep(0.01)  # until all is well
    await line.close()


async def test_no_chore_makes_a_sign_of_life_late(store: Store) -> None:
    """A chore that takes for ever keeps nobody from looking; it is not hidden that it lacks."""
    line, begun = Line(store, ["m"], CLASSES), asyncio.Event()

    async def endless() -> None:
        begun.set()
        await asyncio.Event().wait()

    line.tend_also(endless)
    await line.open()
    async with asyncio.timeout(10):
        await begun.wait()
        await registry.beat(store, "m", "r", 2, AT)
        while not line.loads["m"].replicas:
            await asyncio.sleep(0.01)  # until it was looked at
        assert not line.tended
    await line.close()


async def test_who_asks_for_a_replica_by_name_sits_there(store: Store, line: Line) -> None:
    """While there is room, though it has failed it: what it goes on from is nowhere else."""
    for replica in ("r1", "r2"):
        await registry.beat(store, "m", replica, 4, AT)
    for avoid in ("", "r1", "r2"):
        for name in ("r1", "r2"):
            asks = Asks(STANDARD, prefix="a conversation", prefer=name)
            async with line.seat("m", asks, avoid=avoid) as seat:
                assert seat.replica == name
