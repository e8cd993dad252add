"""What is settled, owed and renewed while the store is away, in part or as a whole."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import redis

from serve_app.assembly import write_the_last
from serve_app.errors import StoreUnavailable
from serve_app.limits import Charge, Demand, Hold, Holds, Ledger, Usage, owed
from serve_app.limits.holds import settling
from serve_app.limits.owed import AT_ONCE, PAID_MAX, TRIES, Owed
from serve_app.limits.report import HOUR_US
from serve_app.store import Store, keys
from serve_app.store.states import refusal
from tests.holding import Claim, limits, scopes_of

ONE = Demand(100, 0, 1, 10)
USE = Charge(Usage(3, 5))
SLOW_S = 0.05


class Parted(Store):
    """A store on two servers by tenant, as far as callers see: one is away as the test has it.

    Attributes:
        away: the tenants whose server is away.
        lost: whether answers get lost.
        sent: the tenants of each batch.
        slow_s: seconds that a single step takes.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url, timeout_ms=10_000)
        self.away: set[str] = set()
        self.sent: list[list[str]] = []
        self.lost, self.slow_s = False, 0.0

    def server_of(self, key: str) -> str:
        return tenant_of(key)

    async def run(self, step: str, names: list[str], args: list[str | int | float]) -> Any:
        await asyncio.sleep(self.slow_s)
        self._must_be_there([(names, args)])
        return await super().run(step, names, args)

    async def run_each(self, step: str, calls: Sequence[Any]) -> list[Any]:
        self.sent.append([tenant_of(names[0]) for names, _ in calls])
        self._must_be_there(calls)
        told = await super().run_each(step, calls)
        if self.lost:
            raise refusal("timeout")
        return told

    def _must_be_there(self, calls: Sequence[Any]) -> None:
        if self.away & {tenant_of(names[0]) for names, _ in calls}:
            raise refusal("unreachable")


def tenant_of(key: str) -> str:
    """The tenant in a key's tag."""
    return key.partition("{t:")[2].partition("}")[0]


@pytest.fixture
async def store(store_url: str) -> Any:
    with redis.Redis.from_url(store_url) as client:
        client.flushall()
    opened = Parted(store_url)
    yield opened
    await opened.close()


@pytest.fixture
def client(store_url: str) -> Any:
    with redis.Redis.from_url(store_url, decode_responses=True) as opened:
        yield opened


def of(tenant: str) -> Claim:
    return Claim(tenant=tenant, limits=limits(requests_per_day=1_000, concurrency=99))


async def held_by(holds: Holds, *tenants: str) -> list[Hold]:
    """One hold for each, named by its place."""
    return [
        await holds.hold(of(tenant), ONE, model="m", request=f"r{number}")
        for number, tenant in enumerate(tenants)
    ]


def charged(client: "redis.Redis[str]", held: Hold) -> int:
    """How many requests the ledger has of the caller of ``held``."""
    name = keys.usage(held.claim.tenant, "k", held.now_us // HOUR_US)
    return int(client.hget(name, "m\t\trequests") or 0)


async def test_a_server_that_is_away_holds_back_its_own_debts_alone(store: Parted, client) -> None:
    """What others owe is paid, once; what it is owed is paid when it is back."""
    holds = Holds(store)
    held = await held_by(holds, "a", "b", "a", "c")
    store.away = {"a", "b", "c"}
    for one in held:
        await holds.settle(one, USE)
    store.away = {"a"}
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await holds.pay()
        assert holds.owed() == 2
    assert [charged(client, one) for one in held] == [0, 1, 0, 1]
    assert sorted(store.sent) == [["a", "a"], ["a", "a"], ["b"], ["c"]]  # once, those answered
    store.away = set()
    await holds.pay()
    assert holds.owed() == 0
    assert [charged(client, one) for one in held] == [2, 1, 2, 1]


async def test_a_lost_answer_is_charged_once_within_a_day(store: Parted, client) -> None:
    """The mark of a settled request outlives any outage that somebody mends within a day."""
    holds = Holds(store)
    (held,) = await held_by(holds, "a")
    store.away = {"a"}
    await holds.settle(held, USE)
    store.away, store.lost = set(), True
    with pytest.raises(StoreUnavailable):
        await holds.pay()  # it was charged, and nobody heard
    assert 3_600 - 60 < client.ttl(keys.settled("a", "r0")) <= 3_600
    store.lost = False
    await holds.pay()
    assert (holds.owed(), charged(client, held)) == (0, 1)


async def test_a_step_that_is_always_refused_blocks_nobody(store: Parted, client, caplog) -> None:
    """Those behind it are paid at once; it is given up after some tries, and the log names it."""
    holds = Holds(store)
    bad, good = await held_by(holds, "a", "a")
    client.set(keys.usage("a", "k", bad.now_us // HOUR_US), "no hash")
    other = settling(good, USE)
    other[0][1] = keys.usage("a", "other", 1)
    holds._owed.append(settling(bad, USE))
    holds._owed.append(other)
    for left in [1] * (TRIES - 1) + [0]:
        await holds.pay()
        assert holds.owed() == left
    assert client.hget(keys.usage("a", "other", 1), "m\t\trequests") == "1"
    assert holds.lost() == 1
    assert "sg:{t:a}:settled:r0 cannot be settled" in caplog.text


async def test_a_full_store_is_no_reason_to_give_up(store: Parted, client) -> None:
    """What is refused for want of memory is owed for as long as that lasts."""
    holds = Holds(store)
    (held,) = await held_by(holds, "a")
    store.away = {"a"}
    await holds.settle(held, USE)
    store.away = set()
    client.config_set("maxmemory", 1)
    try:
        for _ in range(TRIES + 1):
            with pytest.raises(StoreUnavailable):
                await holds.pay()
    finally:
        client.config_set("maxmemory", 0)
    async with asyncio.timeout(10):
        while holds.owed():
            await holds.pay()
    assert (charged(client, held), holds.lost()) == (1, 0)


async def test_a_payment_is_bounded(store: Parted) -> None:
    """One sends so many and returns; the next goes on, and who cannot be paid went behind."""
    owing = Owed()
    (held,) = await held_by(Holds(store), "a")
    store.away = {"b"}
    for _ in range(PAID_MAX + 10):
        names, args = settling(held, None)
        owing.append(([name.replace("{t:a}", "{t:b}") for name in names], args))
    owing.append(settling(held, None))
    with pytest.raises(StoreUnavailable):
        await owing.pay(store)
    assert len(store.sent) == 1  # the server that is away was asked once
    assert len(store.sent[0]) == AT_ONCE
    with pytest.raises(StoreUnavailable):
        await owing.pay(store)
    assert len(owing) == PAID_MAX + 10


async def test_more_than_can_be_owed_is_counted_and_told(monkeypatch, store, caplog) -> None:
    """What is lost is lost openly: the log says how many, once a minute."""
    monkeypatch.setattr(owed, "OWED_MAX", 2)
    clock = [0.0]
    owing = Owed(lambda: clock[0])
    (held,) = await held_by(Holds(store), "a")
    store.away = {"a"}
    for told in (3, 3, 5):
        for _ in range(5 if told == 3 and not owing.lost else 2):
            owing.append(settling(held, None))
        with pytest.raises(StoreUnavailable):
            await owing.pay(store)
        clock[0] += 40
    assert (len(owing), owing.lost) == (2, 7)
    assert [record.args for record in caplog.records if "not charged" in record.msg] == [(3,), (4,)]


async def test_a_server_that_is_away_stops_no_renewal_of_others(store: Parted, client) -> None:
    """The others are renewed once; those of the lost one are tried with every look."""
    clock = [0.0]
    holds = Holds(store, ttl_s=30, clock=lambda: clock[0])
    await held_by(holds, "a", "b")
    await asyncio.sleep(0.02)  # the store's own clock runs
    ends = {tenant: ends_ms(client, tenant) for tenant in "ab"}
    store.away, clock[0] = {"a"}, 10.0
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await holds.renew()
    assert store.sent.count(["b"]) == 1
    assert ends_ms(client, "b") > ends["b"]
    store.away = set()
    await holds.renew()
    assert ends_ms(client, "a") > ends["a"]
    await holds.renew()
    assert (store.sent.count(["a"]), store.sent.count(["b"])) == (3, 1)


def ends_ms(client: "redis.Redis[str]", tenant: str) -> float:
    """When the one lease of a tenant's caller ends."""
    ((_, until_ms),) = client.zrange(scopes_of(tenant, "k", "m")[0][1], 0, -1, withscores=True)
    return float(until_ms)


async def test_whoever_ends_settles_first(store: Parted, client) -> None:
    """What is being settled, owed or counted is in the store before a gateway lets go of it."""
    holds, ledger = Holds(store), Ledger(store)
    held = await held_by(holds, "a", "b", "c")
    store.away = {"a"}
    await holds.settle(held[0], USE)
    store.away, store.slow_s = set(), SLOW_S
    running = asyncio.create_task(holds.settle(held[1], USE))
    await asyncio.sleep(0)  # it has begun
    late = {asyncio.create_task(holds.settle(held[2], USE))}
    ledger.refused("a", "k", "m", "", held[0].now_us)
    await write_the_last(late, holds, ledger)
    assert running.done()
    assert [charged(client, one) for one in held] == [1, 1, 1]
    used = keys.usage("a", "k", held[0].now_us // HOUR_US)
    assert client.hget(used, "m\t\trefused") == "1"


@pytest.mark.parametrize("how", ["refuses", "hangs"])
async def test_a_store_that_is_away_holds_up_no_end(store: Parted, monkeypatch, how: str) -> None:
    """A gateway that ends waits for its store for a bounded time, and raises nothing."""
    monkeypatch.setattr("serve_app.assembly.LAST_S", 0.1)
    holds = Holds(store)
    held = await held_by(holds, "a")
    store.away, store.slow_s = {"a"}, 60.0 if how == "hangs" else 0.0
    task = asyncio.create_task(holds.settle(held[0], USE))
    async with asyncio.timeout(5):
        await write_the_last({task}, holds, Ledger(store))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
