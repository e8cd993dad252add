"""The steps that count wrong credentials and their pure twin stay equal."""

import asyncio
import json
from collections.abc import Iterable

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.auth.blocking import (
    CLEAN,
    SECOND_US,
    Entry,
    Note,
    Record,
    Table,
    Verdict,
)
from serve_app.auth_settings import BruteForce
from serve_app.store import Store, keys

NAMES = [keys.ATTEMPTS, keys.SUSPECTS, keys.BLOCKED]
RULES = BruteForce(max_failed_attempts=3, ttl_seconds=900)
MOST = 4
DAY_S = 86_400

SUBJECTS = st.sampled_from([f"s{number}" for number in range(8)])
AGES_S = st.one_of(
    st.integers(-5, 10), st.integers(0, 2_000), st.integers(0, 8_000), st.integers(0, 2 * DAY_S)
)
NOTES = st.builds(
    Note,
    subject=SUBJECTS,
    cleared=st.booleans(),
    ages_us=st.lists(AGES_S.map(lambda s: s * SECOND_US), max_size=5).map(
        lambda ages: tuple(sorted(ages, reverse=True))
    ),
)
BATCHES = st.lists(NOTES, min_size=1, max_size=6, unique_by=lambda note: note.subject)
PAUSES = st.one_of(st.integers(1, 70), st.integers(1, 8_000), st.integers(1, 2 * DAY_S))


def arguments(notes: Iterable[Note], most: int = MOST) -> list[str | int | float]:
    told = [[note.subject, int(note.cleared), *note.ages_us] for note in notes]
    ttl_us = RULES.ttl_seconds * SECOND_US
    return [json.dumps(told), RULES.max_failed_attempts, ttl_us, most]


def earlier(entry: Entry, by_us: int) -> Entry:
    """Return the entry as if it had all happened that much earlier."""
    record = entry.record
    until_us = record.until_us - by_us if record.rounds else 0
    failures_us = tuple(at_us - by_us for at_us in record.failures_us)
    return Entry(entry.changed_us - by_us, Record(record.rounds, until_us, failures_us))


def write(client: redis.Redis, table: Table) -> None:
    """Make the store hold exactly ``table``."""
    client.delete(*NAMES)
    for name, part in ((keys.SUSPECTS, table.suspects), (keys.BLOCKED, table.blocked)):
        for subject, entry in part.items():
            client.zadd(name, {subject: entry.changed_us})
            client.hset(keys.ATTEMPTS, subject, entry.to_text())


def held(client: redis.Redis) -> Table:
    """Return what the store holds; its three keys must agree."""
    texts = client.hgetall(keys.ATTEMPTS)
    table, seen = Table(), 0
    for name in (keys.SUSPECTS, keys.BLOCKED):
        for subject, changed_us in client.zrange(name, 0, -1, withscores=True):
            entry = Entry.from_text(texts[subject])
            assert entry.changed_us == changed_us
            assert (entry.record.rounds > 0) == (name == keys.BLOCKED)
            table.put(subject, entry)
            seen += 1
    assert seen == len(texts)
    return table


def shift(client: redis.Redis, table: Table, by_s: int) -> Table:
    """Let time pass: everything in the store and in the twin happened so much earlier."""
    passed = Table()
    for part in (table.suspects, table.blocked):
        for subject, entry in part.items():
            passed.put(subject, earlier(entry, by_s * SECOND_US))
    write(client, passed)
    return passed


@settings(max_examples=200, deadline=None)
@given(story=st.lists(st.one_of(BATCHES, PAUSES), min_size=1, max_size=12))
def test_notes_do_what_their_twin_does(store_url, story) -> None:
    """The step tells the time it used; at that time the twin answers and leaves the same."""

    async def both() -> None:
        store, twin = Store(store_url, timeout_ms=10_000), Table()
        with redis.Redis.from_url(store_url, decode_responses=True) as client:
            client.delete(*NAMES)
            for event in story:
                if isinstance(event, int):
                    twin = shift(client, twin, event)
                    continue
                now_us, *told = await store.run("attempt_note", NAMES, arguments(event))
                said = [
                    (Verdict(Entry.from_text(state).record, left_us, block_us), state)
                    for left_us, block_us, state in told
                ]
                expected = [
                    (verdict, entry.to_text())
                    for verdict, entry in twin.note(event, now_us, RULES, MOST)
                ]
                assert said == expected
                assert held(client) == twin
                assert list(held(client).suspects) == list(twin.suspects)
                assert list(held(client).blocked) == list(twin.blocked)
                assert max(len(twin.suspects), len(twin.blocked)) <= MOST
        await store.close()

    asyncio.run(both())


@pytest.mark.parametrize(
    ("ages_us", "block_s"),
    [
        ((900 * SECOND_US - 1, 1, 0), 30),
        ((900 * SECOND_US, 1, 0), 0),  # exactly as old as the window: it counts no more
        (((DAY_S + 30) * SECOND_US - 1,) * 3 + (0,) * 3, 60),
        (((DAY_S + 30) * SECOND_US,) * 3 + (0,) * 3, 30),  # the block's end was a day ago
        ((31 * SECOND_US, 30 * SECOND_US, 30 * SECOND_US, 1, 1, 0), 30),
        ((31 * SECOND_US, 30 * SECOND_US, 30 * SECOND_US, 0, 0, 0), 60),  # just over
    ],
)
async def test_edges_are_sharp_in_the_store(store: Store, ages_us, block_s: int) -> None:
    """To the microsecond, in the step as in the twin."""
    note = Note("one", ages_us=ages_us)
    now_us, (_, block_us, state) = await store.run("attempt_note", NAMES, arguments([note]))
    ((verdict, entry),) = Table().note([note], now_us, RULES, MOST)
    assert (block_us, state) == (verdict.block_us, entry.to_text())
    assert block_us == block_s * SECOND_US


RECORDS = st.one_of(
    st.just(CLEAN),
    st.builds(
        lambda ages: Record(failures_us=tuple(-age for age in sorted(ages, reverse=True))),
        st.lists(st.integers(-10, 1_000), min_size=1, max_size=4),
    ),
    st.builds(
        lambda rounds, left, ages: Record(
            rounds, left, tuple(-age for age in sorted(ages, reverse=True))
        ),
        st.integers(1, 12),
        st.integers(-2 * DAY_S, 4_000),
        st.lists(st.integers(-10, 1_000), max_size=4),
    ),
)


@settings(max_examples=200, deadline=None)
@given(
    records=st.dictionaries(SUBJECTS, st.tuples(st.integers(-20, 2 * DAY_S), RECORDS), max_size=8),
    notes=BATCHES,
)
def test_notes_and_looks_on_any_past_do_what_their_twin_does(store_url, records, notes) -> None:
    """Prepared with any past, even one of a clock that went back: same answers, same rest."""

    async def both() -> None:
        store, twin = Store(store_url, timeout_ms=10_000), Table()
        with redis.Redis.from_url(store_url, decode_responses=True) as client:
            seconds, us = client.time()
            base_us = seconds * 10**6 + us
            oldest_first = sorted(records.items(), key=lambda item: -item[1][0])
            for number, (subject, (age_s, record)) in enumerate(oldest_first):
                at = Record(
                    record.rounds,
                    base_us + record.until_us * SECOND_US if record.rounds else 0,
                    tuple(base_us + one * SECOND_US for one in record.failures_us),
                )
                twin.put(subject, Entry(base_us - age_s * SECOND_US + number, at))
            write(client, twin)
            now_us, *told = await store.run("attempt_note", NAMES, arguments(notes))
            expected = twin.note(notes, now_us, RULES, MOST)
            assert told == [
                [verdict.left_us, verdict.block_us, entry.to_text()] for verdict, entry in expected
            ]
            assert held(client) == twin
            ttl_us = RULES.ttl_seconds * SECOND_US
            args: list[str | int | float] = [0, 0, 100, ttl_us, 2]
            now_us, suspects, blocked = await store.run("attempt_look", NAMES, args)
            for told_part, part in ((suspects, twin.suspects), (blocked, twin.blocked)):
                shown = [text for name, entry in part.items() for text in (name, entry.to_text())]
                assert told_part == shown
            twin.forget(2, 64, now_us=now_us, ttl_us=ttl_us)
            assert held(client) == twin
        await store.close()

    asyncio.run(both())


async def test_pages_of_changes_miss_nothing(store: Store) -> None:
    """However small the page: every change is read once, oldest first, also of one batch."""
    notes = [Note(f"s{number}", ages_us=(0,) * (1 + number % 3)) for number in range(30)]
    await store.run("attempt_note", NAMES, arguments(notes, most=100))
    seen, read = [0, 0], []
    for _ in range(10):
        args: list[str | int | float] = [*seen, 4, 900 * SECOND_US, 100]
        _, *parts = await store.run("attempt_look", NAMES, args)
        for at, part in enumerate(parts):
            assert len(part) <= 8
            read += part[::2]
            seen[at] = Entry.from_text(part[-1]).changed_us if part else seen[at]
    assert sorted(read) == sorted(note.subject for note in notes)


async def test_a_subject_without_its_record_is_clean(store: Store, store_url: str) -> None:
    """A store that evicted the records and kept the order harms nobody."""
    await store.run("attempt_note", NAMES, arguments([Note("one", ages_us=(0, 0, 0))]))
    with redis.Redis.from_url(store_url) as client:
        client.delete(keys.ATTEMPTS)
        changed_us = int(client.zscore(keys.BLOCKED, "one"))
    _, suspects, blocked = await store.run("attempt_look", NAMES, [0, 0, 9, SECOND_US, 9])
    assert (suspects, blocked[0]) == ([], "one")
    assert Entry.from_text(blocked[1]) == Entry(changed_us, CLEAN)


async def test_the_steps_work_in_bounds(store: Store, store_url: str) -> None:
    """A table that was left far too long shrinks by a bounded number a step, to what it may be."""
    with redis.Redis.from_url(store_url, decode_responses=True) as client:
        seconds, _ = client.time()
        past = Table()
        for number in range(300):
            failures_us = (seconds * 10**6 + number,)
            past.put(f"s{number}", Entry(failures_us[0], Record(failures_us=failures_us)))
        write(client, past)
        again = [Note("s299", ages_us=(0,))]
        for _ in range(20):
            size = client.hlen(keys.ATTEMPTS)
            now_us, *_ = await store.run("attempt_note", NAMES, arguments(again))
            past.note(again, now_us, RULES, MOST)
            assert size - client.hlen(keys.ATTEMPTS) <= 17
            assert held(client) == past
        assert client.zcard(keys.SUSPECTS) <= MOST
