"""The audit: who did what, once, in order, without a secret (CONTRACT §6)."""

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from serve_app.auth import make
from serve_app.errors import InvalidRequest
from serve_app.store import Store, keys
from serve_app.telemetry import Audit, Entry, changed
from serve_app.telemetry import audit as room

KEY = make("acme").text
SECRET = KEY[-40:]
DAY_MS = 86_400_000
LOGIN = Entry("login", "ok", "acme", "bob", "10.0.0.1", "bob", request_id="req-1")


@pytest.fixture
def audit(store: Store) -> Audit:
    return Audit(store, keep_days=90)


@pytest.fixture
async def away() -> AsyncIterator[Store]:
    """A store that nobody reaches."""
    opened = Store("redis://127.0.0.1:1/0", timeout_ms=50)
    yield opened
    await opened.close()


async def everything(audit: Audit, size: int = 100, **wanted: Any) -> list[dict[str, Any]]:
    """Walk through all pages."""
    found: list[dict[str, Any]] = []
    after = None
    while True:
        page, after = await audit.page(tenant=None, after=after, size=size, **wanted)
        assert len(page) <= size
        found += page
        if after is None:
            return found


def targets(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["target"] for entry in entries]


def plant(store_url: str, at_ms: int, target: str, late_ms: int = 0) -> None:
    """Put an entry where it was written ``late_ms`` after it happened."""
    text = json.dumps({"action": "login", "tenant": "acme", "target": target})
    fields = {"at": at_ms, "mark": target, "entry": text}
    with redis.Redis.from_url(store_url) as client:
        client.xadd(keys.AUDIT, fields, id=f"{at_ms + late_ms}-*")


def length(store_url: str) -> int:
    with redis.Redis.from_url(store_url) as client:
        return int(client.xlen(keys.AUDIT))


async def test_an_entry_is_shown_as_it_was_written(audit: Audit) -> None:
    """With an id, the time in UTC, and every member, also the empty ones."""
    before_ms = time.time_ns() // 10**6
    await audit.write(LOGIN)
    (shown,) = await everything(audit)
    at_ms = int(shown["id"].partition("-")[0])
    assert before_ms - 5 <= at_ms <= time.time_ns() // 10**6 + 5
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", shown["at"])
    assert f".{at_ms % 1000:03d}Z" in shown["at"]
    assert list(shown.items())[2:] == [
        ("action", "login"),
        ("result", "ok"),
        ("tenant", "acme"),
        ("actor", "bob"),
        ("address", "10.0.0.1"),
        ("target", "bob"),
        ("before", None),
        ("after", None),
        ("request_id", "req-1"),
    ]


async def test_entries_stand_in_the_order_in_which_they_were_written(audit: Audit) -> None:
    """Oldest first, each once, also through pages of one."""
    for number in range(20):
        await audit.write(Entry("login", target=str(number)))
    expected = [str(number) for number in range(20)]
    assert targets(await everything(audit)) == expected
    assert targets(await everything(audit, size=1)) == expected
    assert targets(await everything(audit, size=20)) == expected
    assert len({entry["id"] for entry in await everything(audit)}) == 20


async def test_an_entry_sent_twice_is_written_once(audit: Audit, store: Store) -> None:
    """A reply that was lost makes no second entry, even if others wrote in between."""
    args: list[str | int | float] = ["{}", "mark", 0, DAY_MS, 1_000]
    assert await store.run("audit_add", [keys.AUDIT], args) == 1
    assert await store.run("audit_add", [keys.AUDIT], args) == 0
    for _ in range(100):
        await audit.write(LOGIN)
    args[2] = 2_000  # it is sent again after an outage
    assert await store.run("audit_add", [keys.AUDIT], args) == 0
    assert len(await everything(audit)) == 101


async def test_the_last_page_says_so(audit: Audit) -> None:
    """No cursor follows the last entry, and none an empty audit."""
    assert await audit.page(tenant=None, after=None, size=5) == ([], None)
    for number in range(5):
        await audit.write(Entry("login", target=str(number), tenant="acme"))
    for tenant in (None, "acme"):
        whole, after = await audit.page(tenant=tenant, after=None, size=5)
        assert (targets(whole), after) == (["0", "1", "2", "3", "4"], None)
        part, after = await audit.page(tenant=tenant, after=None, size=4)
        assert (len(part), after) == (4, part[-1]["id"])
        rest, after = await audit.page(tenant=tenant, after=after, size=4)
        assert (targets(rest), after) == (["4"], None)
    assert await audit.page(tenant=None, after=whole[-1]["id"], size=5) == ([], None)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, ["a", "b", "c", "d"]),
        ({"action": "login"}, ["a", "b"]),
        ({"action": "log"}, []),
        ({"result": "refused"}, ["b", "d"]),
        ({"actor": "eve"}, ["b"]),
        ({"actor": ""}, ["d"]),
        ({"address": "10.0.0.1"}, ["a", "c"]),
        ({"target": "c"}, ["c"]),
        ({"request_id": "req-d"}, ["d"]),
        ({"action": "login", "result": "refused"}, ["b"]),
        ({"action": None, "result": None, "start_ms": None, "end_ms": None}, ["a", "b", "c", "d"]),
    ],
)
async def test_what_is_wanted_is_found(
    audit: Audit, wanted: dict[str, Any], found: list[str]
) -> None:
    """Every member that is asked for must be equal; one that is None is not asked for."""
    for entry in (
        Entry("login", "ok", "acme", "bob", "10.0.0.1", "a"),
        Entry("login", "refused", "acme", "eve", "10.0.0.2", "b"),
        Entry("key.create", "ok", "zoo", "bob", "10.0.0.1", "c"),
        Entry("address.block", "refused", "", "", "10.0.0.2", "d", request_id="req-d"),
    ):
        await audit.write(entry)
    assert targets(await everything(audit, **wanted)) == found


async def test_a_tenant_sees_its_own_entries(audit: Audit) -> None:
    """Whoever asks for a tenant gets nothing of another's, nor of nobody's."""
    for tenant in ("acme", "acme-2", "", "acme"):
        await audit.write(Entry("login", tenant=tenant))
    for tenant, count in (("acme", 2), ("acme-2", 1), ("nobody", 0), (None, 4)):
        page, _ = await audit.page(tenant=tenant, after=None, size=10)
        assert len(page) == count
        assert {entry["tenant"] for entry in page} <= {tenant} or tenant is None


async def test_a_time_is_when_it_happened(audit: Audit, store_url: str) -> None:
    """From the start on, before the end, by the time shown; one written late is found, too."""
    now_ms = time.time_ns() // 10**6
    for ago_s, late_s in ((500, 0), (400, 0), (300, 0), (350, 100), (200, 0)):
        plant(store_url, now_ms - ago_s * 1000, str(ago_s), late_s * 1000)
    for start_s, end_s, found in (
        (400, 300, ["400", "350"]),
        (350, 300, ["350"]),
        (399, 301, ["350"]),
        (350, None, ["300", "350", "200"]),
        (None, 350, ["500", "400"]),
        (None, 0, ["500", "400", "300", "350", "200"]),
        (100, 0, []),
        (300, 400, []),
    ):
        start_ms = None if start_s is None else now_ms - start_s * 1000
        end_ms = None if end_s is None else now_ms - end_s * 1000
        assert sorted(targets(await everything(audit, start_ms=start_ms, end_ms=end_ms))) == sorted(
            found
        ), (start_s, end_s)
    assert await everything(audit, start_ms=-5, end_ms=-1) == []
    assert len(await everything(audit, start_ms=0, end_ms=2**60)) == 5


async def test_a_walk_sees_each_entry_once_while_new_ones_come(audit: Audit) -> None:
    """Nothing is left out and nothing comes twice, however the writing falls between the pages."""
    done = asyncio.Event()
    written: list[str] = []

    async def grow(name: str) -> None:
        for number in range(100):
            written.append(f"{name}{number}")
            await audit.write(Entry("login", target=written[-1], tenant="acme"))

    async def walk() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        after = None
        while True:
            was_done = done.is_set()
            page, more = await audit.page(tenant="acme", after=after, size=7)
            found += page
            after = page[-1]["id"] if page else after
            if was_done and more is None:
                return found

    walks = [asyncio.create_task(walk()) for _ in range(3)]
    await asyncio.gather(grow("a"), grow("b"), grow("c"))
    done.set()
    for found in await asyncio.gather(*walks):
        assert sorted(targets(found)) == sorted(written)
        assert [entry["id"] for entry in found] == sorted(
            (entry["id"] for entry in found), key=lambda at: [int(part) for part in at.split("-")]
        )


async def test_a_page_looks_at_so_many_entries(
    audit: Audit, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rare match costs several short pages, none of which holds up the others."""
    monkeypatch.setattr(room, "STEP", 10)
    monkeypatch.setattr(room, "SCAN_MAX", 30)
    now_ms = time.time_ns() // 10**6
    for number in range(95):
        plant(store_url, now_ms - 1_000 + number, "x" if number % 60 else f"wanted {number}")
    page, after = await audit.page(tenant=None, after=None, size=5, target="wanted 60")
    assert (page, after is not None) == ([], True)
    assert targets(await everything(audit, target="wanted 60")) == ["wanted 60"]
    assert len(await everything(audit, size=7)) == 95


async def test_what_is_too_old_goes(store: Store, store_url: str) -> None:
    """After its days an entry is no longer shown; the next write lets go of it."""
    now_ms = time.time_ns() // 10**6
    for number in range(1_000):
        plant(store_url, now_ms - 3 * DAY_MS + number, f"old {number}")
    plant(store_url, now_ms - 2 * DAY_MS + 60_000, "young")
    audit = Audit(store, keep_days=2)
    assert targets(await everything(audit)) == ["young"]
    page, _ = await audit.page(tenant=None, after=f"{now_ms - 3 * DAY_MS}-0", size=5)
    assert targets(page) == ["young"]
    assert length(store_url) == 1_001
    await audit.write(Entry("login", target="new"))
    assert length(store_url) <= 102  # whole blocks of a hundred go
    assert targets(await everything(audit)) == ["young", "new"]


async def test_there_are_never_too_many(
    audit: Audit, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever floods the audit pushes out its oldest entries, not the store."""
    monkeypatch.setattr(room, "ENTRIES_MAX", 200)
    for number in range(1_000):
        await audit.write(Entry("login", target=str(number)))
    assert length(store_url) <= 300
    found = targets(await everything(audit))
    assert found == [str(number) for number in range(1_000 - len(found), 1_000)]


async def test_what_cannot_be_written_is_owed_and_paid_in_order(
    store: Store, away: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that is away loses no entry, nor when it happened; the log has it meanwhile."""
    audit = Audit(away, keep_days=90)
    with caplog.at_level(logging.WARNING, "sluicegate.audit"):
        for number in range(3):
            await audit.write(Entry("login", target=f"owed {number}"))
    assert [f'"target":"owed {n}"' in caplog.text for n in range(3)] == [True] * 3
    await asyncio.sleep(0.2)  # so that it is late
    audit._store = store  # it is back
    await audit.write(Entry("login", target="new"))
    assert await everything(audit) == []  # those before come first
    await audit.pay()
    await audit.pay()
    await audit.write(Entry("login", target="newer"))
    found = await everything(audit)
    assert targets(found) == ["owed 0", "owed 1", "owed 2", "new", "newer"]
    assert found[0]["at"] < found[3]["at"] <= found[4]["at"]


async def test_two_tenders_pay_each_debt_once(store: Store, away: Store) -> None:
    """Whoever else pays at the same time waits."""
    audit = Audit(away, keep_days=90)
    for number in range(20):
        await audit.write(Entry("login", target=str(number)))
    audit._store = store
    await asyncio.gather(audit.pay(), audit.pay(), audit.pay())
    assert targets(await everything(audit)) == [str(number) for number in range(20)]


async def test_debts_are_bounded(
    store: Store, away: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long outage lets go of the oldest debts, which the log has."""
    monkeypatch.setattr(room, "OWED_MAX", 3)
    audit = Audit(away, keep_days=90)
    for number in range(5):
        await audit.write(Entry("login", target=str(number)))
    audit._store = store
    await audit.pay()
    assert targets(await everything(audit)) == ["2", "3", "4"]


async def test_who_is_cancelled_while_writing_owes_the_entry(store: Store) -> None:
    """A client that leaves takes nothing out of the audit."""
    audit = Audit(store, keep_days=90)
    task = asyncio.create_task(audit.write(LOGIN))
    await asyncio.sleep(0)  # it has begun
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await audit.pay()
    assert len(await everything(audit)) == 1


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(Entry("login", target=KEY), id="a key as user name"),
        pytest.param(Entry("login", f"refused: {KEY}"), id="in the result"),
        pytest.param(Entry("login", address=KEY, actor=KEY, tenant=KEY), id="where a name belongs"),
        pytest.param(
            Entry("x", before={"password": SECRET}, after={"password": SECRET}), id="name"
        ),
        pytest.param(Entry("x", after={"a": [{"b": f"redis://:{SECRET}@h"}]}), id="deep"),
        pytest.param(Entry("x", after={KEY: 1}), id="as a name"),
        pytest.param(Entry("x", after={"keys": {KEY}}), id="in a set"),
        pytest.param(Entry("x", after={"error": ValueError(KEY)}), id="in what JSON lacks"),
        pytest.param(Entry("x", request_id=f"eyJhbGciOiJIUzI1NiJ9.e30.{SECRET}"), id="a JWT"),
    ],
)
async def test_no_secret_gets_into_the_audit(audit: Audit, store_url: str, entry: Entry) -> None:
    """Neither into the store nor onto a page."""
    await audit.write(entry)
    with redis.Redis.from_url(store_url, decode_responses=True) as client:
        kept = str(client.xrange(keys.AUDIT))
    assert SECRET not in kept
    assert "[redacted]" in kept
    assert SECRET not in str(await everything(audit))


async def test_an_entry_is_never_too_long(audit: Audit) -> None:
    """A user name of a megabyte is cut, a change of a megabyte is told by its size."""
    many = {str(number): "x" * 100 for number in range(10_000)}
    await audit.write(Entry("login", target="x" * 10**6, after=many, before={"name": "y"}))
    (shown,) = await everything(audit)
    assert shown["target"] == "x" * 1_000
    assert shown["before"] == {"name": "y"}
    assert shown["after"]["too_large_bytes"] > 10**6


@pytest.mark.parametrize(
    "after", ["", "x", "1", "1-", "-1", "1-1-1", "(1-1", "+", "1-1 ", "9" * 20 + "-0", "²-1"]
)
async def test_a_cursor_is_one_of_ours(audit: Audit, after: str) -> None:
    """Anything else is the client's mistake, not the store's."""
    with pytest.raises(InvalidRequest, match="cursor") as told:
        await audit.page(tenant=None, after=after, size=5)
    assert told.value.param == "after"


async def test_what_others_put_there_is_passed_over(audit: Audit, store_url: str) -> None:
    """An entry that is not ours breaks no page."""
    with redis.Redis.from_url(store_url) as client:
        client.xadd(keys.AUDIT, {"hello": "world"})
    await audit.write(LOGIN)
    assert targets(await everything(audit, size=1)) == ["bob"]


@pytest.mark.parametrize(
    ("before", "after", "was", "now"),
    [
        (None, {"a": 1}, None, {"a": 1}),
        ({"a": 1}, None, {"a": 1}, None),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, {"b": 2}, {"b": 3}),
        ({"a": 1}, {"b": 2}, {"a": 1}, {"b": 2}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"x": 1, "y": 3}}, {"a": {"y": 2}}, {"a": {"y": 3}}),
        ({"a": {"x": 1}}, {"a": None}, {"a": {"x": 1}}, {"a": None}),
        ({"a": [1, 2]}, {"a": [1, 3]}, {"a": [1, 2]}, {"a": [1, 3]}),
        ({"a": 1}, {"a": 1}, {}, {}),
    ],
)
def test_only_what_changed_is_told(before: Any, after: Any, was: Any, now: Any) -> None:
    """Members that are the same in both stand in neither, down through the objects in them."""
    assert changed(before, after) == (was, now)


TREES = st.dictionaries(
    st.sampled_from("abc"),
    st.recursive(
        st.none() | st.integers(0, 3),
        lambda inner: st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
        max_leaves=5,
    ),
    max_size=3,
)


def applied(tree: dict[str, Any], was: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Return ``tree`` with a change made to it."""
    kept = {name: value for name, value in tree.items() if name not in was or name in now}
    for name, value in now.items():
        both = isinstance(was.get(name), dict) and isinstance(value, dict)
        kept[name] = applied(kept[name], was[name], value) if both else value
    return kept


@given(TREES, TREES)
def test_a_change_leads_from_before_to_after(before: dict[str, Any], after: dict[str, Any]) -> None:
    """What is told is all that happened, and neither side is touched."""
    copies = json.dumps([before, after])
    was, now = changed(before, after)
    assert was is not None
    assert now is not None
    assert applied(before, was, now) == after
    assert json.dumps([before, after]) == copies
