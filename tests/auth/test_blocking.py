"""When an address that shows wrong credentials is blocked, and for how long."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.auth.blocking import (
    CLEAN,
    LEAST_KEPT_US,
    ROUNDS_KEPT_S,
    SECOND_US,
    Entry,
    Note,
    Record,
    Table,
    block_us,
    fail,
    fail_all,
    subject,
)
from serve_app.auth_settings import BruteForce

RULES = BruteForce(max_failed_attempts=5, ttl_seconds=900)
NOON_US = 1_700_000_000 * SECOND_US
DAY_S = 86_400
LENGTHS_S = [30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600, 3_600]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:c000:207", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:0DB8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("unknown", "unknown"),
        ("", "unknown"),
        ("192.0.2.7, 192.0.2.8", "unknown"),
        ("gate.example", "unknown"),
        ("192.0.2.07", "unknown"),
        ("192.0.2", "unknown"),
        ("2001:db8::1::2", "unknown"),
        ("2001:db8::\0", "unknown"),
        ("2001:db8::\u0661", "unknown"),
    ],
)
def test_who_answers_for_an_address(address: str, expected: str) -> None:
    """An IPv4 address itself in every spelling, of IPv6 the /64, and else one for them all."""
    assert subject(address) == expected


@given(st.ip_addresses())
def test_subjects_agree_with_the_library_of_addresses(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """Whatever the address: itself, or its /64 in the one spelling it has."""
    if isinstance(address, ipaddress.IPv4Address):
        assert subject(str(address)) == str(address)
    else:
        expected = address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False)
        assert subject(str(address)) == subject(address.exploded) == str(expected)


def fail_at(record: Record, at_s: float, rules: BruteForce = RULES) -> tuple[float, float, Record]:
    said = fail(record, NOON_US + int(at_s * SECOND_US), rules)
    return said.left_us / SECOND_US, said.block_us / SECOND_US, said.record


def test_story() -> None:
    """One address: five failures, a block that nothing prolongs, a round, a longer block."""
    record = CLEAN
    for at_s, left_s, block_s in [
        (0, 0, 0),
        (1, 0, 0),
        (2, 0, 0),
        (3, 0, 0),
        (4, 0, 30),  # the fifth begins the block, and is itself still answered 401
        (4, 30, 0),
        (5, 29, 0),
        (33.9, 0.1, 0),  # as long as it was, whatever came meanwhile
        (34, 0, 0),  # over; a new round of five
        (35, 0, 0),
        (36, 0, 0),
        (37, 0, 0),
        (38, 0, 60),
        (97, 1, 0),
        (98, 0, 0),
    ]:
        left, block, record = fail_at(record, at_s)
        assert (round(left, 6), block) == (left_s, block_s), at_s


@pytest.mark.parametrize(
    ("ages_s", "begins"),
    [
        ([899.999999, 3, 2, 1], True),
        ([900, 3, 2, 1], False),  # exactly as old as the window: it counts no more
        ([1_000, 900, 899, 2, 1], False),
        ([1_000, 899, 3, 2, 1], True),
        ([899, 898, 897], False),
    ],
)
def test_the_window_slides_exactly(ages_s: list[float], begins: bool) -> None:
    """One more failure begins a block if five lie within 900 s, to the microsecond."""
    record = Record(failures_us=tuple(NOON_US - round(age * SECOND_US) for age in ages_s))
    _, block_s, _ = fail_at(record, 0)
    assert (block_s > 0) == begins


def test_blocks_double_through_a_whole_day_and_do_not_start_over() -> None:
    """Who tries every second meets 30 s, 60 s … 3600 s, 3600 s: 30 blocks, 150 answers."""
    record, blocks_s, counted = CLEAN, [], 0
    for at_s in range(DAY_S):
        left_s, block_s, record = fail_at(record, at_s)
        counted += left_s == 0
        blocks_s += [block_s] if block_s else []
    assert blocks_s[:10] == LENGTHS_S
    assert set(blocks_s[7:]) == {3_600}
    assert (len(blocks_s), counted) == (30, 150)


@pytest.mark.parametrize(("round_", "length_s"), [*enumerate(LENGTHS_S, start=1)])
def test_the_table_of_blocks(round_: int, length_s: int) -> None:
    """Each round's block is twice the one before, to an hour."""
    assert block_us(round_) == length_s * SECOND_US


@pytest.mark.parametrize(
    ("pause_s", "block_s"),
    [(0, 240), (3_600, 240), (ROUNDS_KEPT_S - 4.000001, 240), (ROUNDS_KEPT_S - 4, 30)],
)
def test_rounds_outlive_the_block_by_a_day(pause_s: float, block_s: int) -> None:
    """After three rounds the fourth block is 240 s; when the third ended a day ago, 30 s again."""
    record = Record(rounds=3, until_us=NOON_US)
    for second in range(5):
        _, block, record = fail_at(record, pause_s + second)
    assert block == block_s


@given(
    gaps_s=st.lists(st.integers(0, 1_000), max_size=60),
    most=st.integers(1, 6),
    ttl_s=st.integers(1, 900),
)
def test_no_window_sees_more_than_its_failures(gaps_s: list[int], most: int, ttl_s: int) -> None:
    """Whatever the order: within ``ttl_seconds`` at most so many 401, unless a block lay between.

    And whoever is refused passes exactly when told, not a microsecond sooner.
    """
    rules = BruteForce(max_failed_attempts=most, ttl_seconds=ttl_s)
    record, at_us, begun = CLEAN, NOON_US, 0
    answered: list[tuple[int, int]] = []
    for gap_s in gaps_s:
        at_us += gap_s * SECOND_US
        said = fail(record, at_us, rules)
        if said.left_us:
            assert said.record == record
            assert fail(record, at_us + said.left_us - 1, rules).left_us == 1
            assert fail(record, at_us + said.left_us, rules).left_us == 0
        else:
            answered.append((begun, at_us))
            same_round = [at for of, at in answered if of == begun and at > at_us - ttl_s * 10**6]
            assert len(same_round) <= most
            assert (len(same_round) == most) == (said.block_us > 0)
            begun += said.block_us > 0
        record = said.record
        assert len(record.failures_us) < most


def test_a_failure_told_late_counts_as_the_last_that_was_told() -> None:
    """Another gateway's news from before a block's end does not count, nor turn the order round."""
    blocked = Record(1, NOON_US + 30 * SECOND_US)
    failing = Record(failures_us=(NOON_US,))
    assert fail(blocked, NOON_US - 60 * SECOND_US, RULES).record == blocked
    assert fail(failing, NOON_US - 60 * SECOND_US, RULES).record.failures_us == (NOON_US, NOON_US)


def test_several_failures_tell_the_block_they_began() -> None:
    """The last one is refused, and the block that the fifth began is told all the same."""
    said = fail_all(CLEAN, [NOON_US + number for number in range(7)], RULES)
    assert said.block_us == 30 * SECOND_US
    assert said.left_us == 30 * SECOND_US - 2


@given(
    changed_us=st.integers(0, 2**52),
    rounds=st.integers(0, 99),
    until_us=st.integers(0, 2**52),
    failures_us=st.lists(st.integers(0, 2**52), max_size=9),
)
def test_an_entry_is_read_as_it_was_written(changed_us, rounds, until_us, failures_us) -> None:
    """Text and back: the same entry."""
    entry = Entry(changed_us, Record(rounds, until_us, tuple(failures_us)))
    assert Entry.from_text(entry.to_text()) == entry


def test_strangers_push_out_strangers_and_no_block() -> None:
    """A thousand addresses that fail once each: the oldest of them go, the one block stays."""
    table, most = Table(), 10
    table.note([Note("blocked", ages_us=(0,) * 5)], NOON_US, RULES, most)
    for number in range(1_000):
        table.note([Note(f"s{number}", ages_us=(0,))], NOON_US + number, RULES, most)
    assert list(table.blocked) == ["blocked"]
    assert list(table.suspects) == [f"s{number}" for number in range(990, 1_000)]


def test_remembered_blocks_keep_no_newcomer_from_being_counted() -> None:
    """With as many blocks as the table holds, a new address still comes to its own."""
    table, most = Table(), 10
    for number in range(50):
        table.note([Note(f"b{number}", ages_us=(0,) * 5)], NOON_US, RULES, most)
    for second in range(5):
        at_us = NOON_US + second * SECOND_US
        ((said, _),) = table.note([Note("new", ages_us=(0,))], at_us, RULES, most)
    assert said.block_us == 30 * SECOND_US
    assert list(table.blocked) == [f"b{number}" for number in range(41, 50)] + ["new"]


@pytest.mark.parametrize(
    ("failures", "kept_s"), [(1, 900), (5, DAY_S + 3_600)], ids=["failing", "blocked"]
)
def test_what_no_longer_matters_is_forgotten(failures: int, kept_s: int) -> None:
    """A failure after ``ttl_seconds``, a block a day after the longest could have ended."""
    table = Table()
    table.note([Note("one", ages_us=(0,) * failures)], NOON_US, RULES, 10)
    table.forget(10, 1, now_us=NOON_US + kept_s * SECOND_US - 1, ttl_us=900 * SECOND_US)
    assert table.get("one").changed_us == NOON_US
    table.forget(10, 1, now_us=NOON_US + kept_s * SECOND_US, ttl_us=900 * SECOND_US)
    assert table == Table()


def test_a_success_is_kept_for_others_to_hear_however_short_the_window() -> None:
    """With ``ttl_seconds`` 1 a cleared address is still told of for a minute."""
    table = Table()
    table.note([Note("one", cleared=True)], NOON_US, RULES, 10)
    table.forget(10, 1, now_us=NOON_US + LEAST_KEPT_US - 1, ttl_us=SECOND_US)
    assert table.get("one") == Entry(NOON_US, CLEAN)
