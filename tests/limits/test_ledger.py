"""The ledger against a real store: what is counted is there once, and is read in bounds."""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.errors import InvalidRequest, StoreUnavailable
from serve_app.limits import FINEST, Ledger, Report, ledger
from serve_app.limits.ledger import BATCH, PAGE, hour_text, rows_of
from serve_app.limits.report import HOUR_US, WHATS, Row
from serve_app.store import Store, keys

DAYS_100_S = 100 * 86_400
HOUR = 490_000
NOW_US = HOUR * HOUR_US + 5
USAGE, USED = keys.usage("t", "k", HOUR), keys.used("t", HOUR)


@pytest.fixture
def client(store_url: str) -> "Iterator[redis.Redis[str]]":
    with redis.Redis.from_url(store_url, decode_responses=True) as opened:
        yield opened


def note(*notes: tuple[str, str, int, int], gateway: str = "g", number: int = 1) -> Any:
    """The keys and arguments of one call of the step."""
    return [USAGE, USED], ["k", json.dumps(notes), gateway, number]


def wrote(client: "redis.Redis[str]", hour: int = HOUR, key_id: str = "k", **fields: int) -> None:
    """Write use down as settling does."""
    told = {f"m\tstandard\t{what}": count for what, count in fields.items()}
    client.hset(keys.usage("t", key_id, hour), mapping=told)
    client.sadd(keys.used("t", hour), key_id)


async def read(of: Ledger, *asked: Any) -> list[Row]:
    """Everything that is read, sorted."""
    report = Report()
    async for rows in of.read(*asked):
        report.add(rows)
    return report.rows()


def row(refused: int = 0, shadow: int = 0, model: str = "m", class_: str = "standard") -> Row:
    figures = (0, 0, 0, 0, refused, shadow, 0, 0, 0)
    return Row(FINEST, ("k", "t", model, class_, hour_text(HOUR)), figures)


async def test_what_is_written_down(store: Store, client) -> None:
    """Counts are added under model, class and what; a zero writes nothing; all of it goes."""
    await store.run("usage_note", *note(("m", "batch", 2, 0), ("-", "standard", 0, 3)))
    await store.run("usage_note", *note(("m", "batch", 1, 1), number=2))
    assert client.hgetall(USAGE) == {
        "m\tbatch\trefused": "3",
        "m\tbatch\tshadow_refused": "1",
        "-\tstandard\tshadow_refused": "3",
        "noted\tg": "2",
    }
    assert client.smembers(USED) == {"k"}
    for name in (USAGE, USED):
        assert DAYS_100_S - 60 < client.ttl(name) <= DAYS_100_S


async def test_a_batch_counts_once(store: Store, client) -> None:
    """A gateway that sends its batch again is told so; another gateway's is another batch."""
    told = [
        await store.run("usage_note", *note(("m", "c", 1, 0), gateway=gateway, number=number))
        for gateway, number in (("g", 1), ("g", 1), ("h", 1), ("g", 2), ("g", 1), ("g", 10))
    ]
    assert told == [1, 0, 1, 1, 0, 1]
    assert client.hget(USAGE, "m\tc\trefused") == "4"


async def test_nothing_counted_is_nothing_written(store: Store, client) -> None:
    """A hash without an end is never made."""
    await store.run("usage_note", *note(("m", "c", 0, 0)))
    await store.run("usage_note", *note(number=2))
    assert client.keys("*") == []


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from("mn"), st.sampled_from("ab"), *[st.integers(0, 2**40)] * 2),
            max_size=5,
        ),
        max_size=5,
    )
)
def test_the_step_adds_what_it_is_told(store_url: str, batches) -> None:
    """Whatever is noted, the hash holds the sums, as whole numbers."""

    async def both() -> None:
        store, sums = Store(store_url, timeout_ms=10_000), Counter[str]()
        with redis.Redis.from_url(store_url, decode_responses=True) as client:
            client.flushall()
            for number, notes in enumerate(batches, 1):
                await store.run("usage_note", *note(*notes, number=number))
                for model, class_, refused, shadow in notes:
                    sums[f"{model}\t{class_}\trefused"] += refused
                    sums[f"{model}\t{class_}\tshadow_refused"] += shadow
            found = {name: int(value) for name, value in client.hgetall(USAGE).items()}
            found.pop("noted\tg", None)
            assert found == +sums
        await store.close()

    asyncio.run(both())


def test_a_hash_is_taken_apart() -> None:
    """One row per model and class; what is no counter of ours is passed over."""
    fields = {
        "a/b\tstandard\trequests": "2",
        "a/b\tstandard\tcost_nanos": "7",
        "a/b\tbatch\tengine_ms": "9",
        "-\tbatch\trefused": "1",
        "a/b:requests": "5",
        "a/b\tstandard\tcolour": "5",
        "noted\tg": "5",
    }
    assert {row.of[2:4]: row.figures for row in rows_of(("t", "k", HOUR), fields)} == {
        ("a/b", "standard"): (2, 0, 0, 0, 0, 0, 7, 0, 0),
        ("a/b", "batch"): (0, 0, 0, 0, 0, 0, 0, 0, 9),
        ("-", "batch"): (0, 0, 0, 0, 1, 0, 0, 0, 0),
    }
    assert rows_of(("t", "k", HOUR), {}) == []


async def test_refusals_are_counted_and_read(store: Store) -> None:
    """Each counts once in its hour, under its model and class, shadow ones apart."""
    counting = Ledger(store)
    for _ in range(3):
        counting.refused("t", "k", "m", "standard", NOW_US)
    counting.refused("t", "k", "m", "standard", NOW_US, shadow=True)
    counting.refused("t", "k", "-", "batch", NOW_US)
    counting.refused("t", "k", "m", "standard", NOW_US + HOUR_US)
    assert await read(counting, ["t"], None, HOUR, HOUR + 1) == []
    await counting.pay()
    await counting.pay()
    assert await read(counting, ["t"], None, HOUR, HOUR + 1) == [
        row(1, model="-", class_="batch"),
        row(3, 1),
    ]


async def test_a_store_that_is_away_loses_no_refusal(store: Store) -> None:
    """What was counted before and meanwhile is there when the store is back, once."""
    counting = Ledger(Store("redis://127.0.0.1:1", timeout_ms=50))
    counting.refused("t", "k", "m", "standard", NOW_US)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await counting.pay()
        counting.refused("t", "k", "m", "standard", NOW_US)
    counting._store = store  # it is back
    await counting.pay()
    assert await read(counting, ["t"], ["k"], HOUR, HOUR + 1) == [row(3)]


FATES = ("fine", "lost call", "lost answer")


class Wobbly(Store):
    """A store whose answers, and whose calls, get lost as the test has it."""

    fate = "fine"

    async def run_many(self, step: str, calls: Sequence[Any]) -> list[Any]:
        fate, self.fate = self.fate, "fine"
        if fate == "lost call":
            raise StoreUnavailable("lost")
        told = await super().run_many(step, calls)
        if fate == "lost answer":
            raise StoreUnavailable("lost")
        return told


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(["m", "n", "shadow", "next hour", *FATES]),
        max_size=40,
    )
)
def test_each_refusal_counts_once_whatever_gets_lost(store_url: str, story: list[str]) -> None:
    """A batch whose answer was lost is sent again, and not counted again."""

    async def told() -> None:
        store = Wobbly(store_url, timeout_ms=10_000)
        counting, counted = Ledger(store), Counter[str]()
        with redis.Redis.from_url(store_url) as client:
            client.flushall()
        for event in story:
            if event in FATES:
                store.fate = event
                try:
                    await counting.pay()
                except StoreUnavailable:
                    continue
            else:
                counted[event] += 1
                model = "n" if event == "n" else "m"
                at_us = NOW_US + HOUR_US * (event == "next hour")
                counting.refused("t", "k", model, "standard", at_us, shadow=event == "shadow")
        store.fate = "fine"
        await counting.pay()
        found = Counter[str]()
        for one in await read(counting, ["t"], None, HOUR, HOUR + 2):
            later = one.member("hour") == hour_text(HOUR + 1)
            found["next hour" if later else one.member("model")] += one.figures[4]
            found["shadow"] += one.figures[5]
        assert +found == +counted
        await store.close()

    asyncio.run(told())


async def test_counting_is_bounded(store: Store, monkeypatch, caplog) -> None:
    """Beyond a bound new kinds of refusals are not counted, known ones are, and the log says so."""
    monkeypatch.setattr(ledger, "COUNTED_MAX", 2)
    counting = Ledger(store)
    for model in "mnopmn":
        counting.refused("t", "k", model, "standard", NOW_US)
    await counting.pay()
    assert await read(counting, ["t"], None, HOUR, HOUR + 1) == [row(2), row(2, model="n")]
    assert "2 refusals were too many" in caplog.text
    counting.refused("t", "k", "o", "standard", NOW_US)
    await counting.pay()
    assert row(1, model="o") in await read(counting, ["t"], None, HOUR, HOUR + 1)


async def test_many_callers_are_written_in_batches(store: Store, client) -> None:
    """More callers than one batch holds are all written by one pay."""
    counting = Ledger(store)
    for number in range(BATCH + 1):
        counting.refused("t", f"k{number}", "m", "standard", NOW_US)
    await counting.pay()
    assert client.scard(USED) == BATCH + 1


class Endless(Store):
    """A store under which somebody is refused with every call."""

    counting: Ledger
    calls = 0

    async def run_many(self, step: str, calls: Sequence[Any]) -> list[Any]:
        self.calls += 1
        self.counting.refused("t", f"k{self.calls}", "m", "standard", NOW_US)
        return await super().run_many(step, calls)


async def test_a_pay_ends_however_many_are_refused_meanwhile(store_url: str, client) -> None:
    """It writes what was counted when it began; the next one goes on."""
    client.flushall()
    store = Endless(store_url, timeout_ms=10_000)
    counting = store.counting = Ledger(store)
    async with asyncio.timeout(10):
        for number in range(BATCH + 1):
            counting.refused("t", f"first{number}", "m", "standard", NOW_US)
        await counting.pay()
        assert store.calls == 2
        assert client.scard(USED) == BATCH + 2  # one of those refused meanwhile went along
        await counting.pay()
    assert store.calls == 3
    assert client.scard(USED) == BATCH + 3
    await store.close()


async def test_whose_and_which_hours(store: Store, client) -> None:
    """From the first hour on, before the last one; these keys, these tenants and no other."""
    for hour, key_id in itertools.product(range(HOUR, HOUR + 4), ("k", "l", "other")):
        wrote(client, hour, key_id, requests=1, input_tokens=hour - HOUR)
    reading = Ledger(store)
    found = await read(reading, ["t"], ["k", "l"], HOUR + 1, HOUR + 3)
    assert [(one.member("key"), one.member("hour"), one.figures[1]) for one in found] == [
        (key_id, hour_text(HOUR + later), later) for key_id in ("k", "l") for later in (1, 2)
    ]
    assert len(await read(reading, ["t", "nobody"], None, HOUR, HOUR + 2)) == 6
    assert await read(reading, ["nobody"], None, HOUR, HOUR + 9) == []
    assert await read(reading, ["t"], ["nobody"], HOUR, HOUR + 9) == []
    assert await read(reading, [], None, HOUR, HOUR + 9) == []


async def test_a_tenant_with_two_thousand_keys(store: Store, client) -> None:
    """All of them are read, in pages; the sum is right."""
    with client.pipeline(transaction=False) as pipe:
        for number in range(2_000):
            usage = keys.usage("t", f"k{number}", HOUR)
            pipe.hset(usage, mapping={f"m\tstandard\t{what}": number for what in WHATS})
        pipe.sadd(USED, *[f"k{number}" for number in range(2_000)])
        pipe.execute()
    report, pages = Report(("tenant",)), 0
    async for rows in Ledger(store).read(["t"], None, HOUR - 23, HOUR + 1):
        pages += 1
        assert len(rows) <= PAGE
        report.add(rows)
    assert pages == 2_000 // PAGE
    assert [one.figures for one in report.rows()] == [(sum(range(2_000)),) * len(WHATS)]


@pytest.mark.parametrize(
    ("asked", "hours"),
    [((["t"], None), 3), ((["t", "u", "v"], None), 3), ((["t"], ["k0", "k1"]), 5)],
    ids=["its hours", "all looked through", "of two keys"],
)
async def test_too_much_is_refused_before_it_is_read(
    store: Store, client, monkeypatch, asked, hours: int
) -> None:
    """One more than may be is refused, says what to narrow, and no hash or list was read for it."""
    monkeypatch.setattr(ledger, "READ_MAX", 10)
    for hour, number in itertools.product(range(4), range(3)):
        wrote(client, HOUR + hour, f"k{number}", requests=1)
    reading = Ledger(store)
    assert await read(reading, *asked, HOUR, HOUR + hours)
    client.config_resetstat()
    with pytest.raises(InvalidRequest, match="narrow 'start' and 'end'") as told:
        await read(reading, *asked, HOUR, HOUR + hours + 1)
    assert told.value.param == "start"
    assert not {"cmdstat_hgetall", "cmdstat_smembers"} & client.info("commandstats").keys()
