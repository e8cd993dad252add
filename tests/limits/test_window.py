"""Days and months in UTC: when they begin and end, what is left in them, in both twins."""

import calendar
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.limits import window
from serve_app.limits.window import Window, charged, current, window_at
from serve_app.store.scripts import whole

PROBE = whole((Path(__file__).parents[1] / "store" / "window_probe.lua").read_text())
DAY_US = 86_400_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MONTHS = [(year, month) for year in range(1970, 2201) for month in range(1, 13)]


BEGINS = [calendar.timegm((*month, 1, 0, 0, 0)) * 1_000_000 for month in MONTHS]
"""The first microsecond of every month from 1970 to 2200."""


def test_every_month_ends_where_the_next_begins() -> None:
    """1970 to 2200, leap years and all: the first and the last microsecond of each month."""
    numbers = []
    for (year, month), begins_us in zip(MONTHS, BEGINS, strict=True):
        days = calendar.monthrange(year, month)[1]
        first = window_at("month", begins_us)
        assert first.ends_us == begins_us + days * DAY_US
        assert window_at("month", first.ends_us - 1) == first
        assert window_at("month", first.ends_us).number == first.number + 1
        numbers.append(first.number)
    assert numbers == [*range(numbers[0], numbers[0] + len(MONTHS))]


@given(now_us=st.integers(0, BEGINS[-1]))
def test_a_window_holds_the_moment_it_is_asked_for(now_us: int) -> None:
    """Of a day and a month, wherever in it the moment lies."""
    when = EPOCH + timedelta(microseconds=now_us)
    day, month = window_at("day", now_us), window_at("month", now_us)
    assert day.number == now_us // DAY_US
    assert day.ends_us - DAY_US <= now_us < day.ends_us <= month.ends_us
    following = (when.year + when.month // 12, when.month % 12 + 1, 1, 0, 0, 0)
    assert month.ends_us == calendar.timegm(following) * 1_000_000


def test_the_store_knows_every_month_and_day(store_url: str) -> None:
    """The first and last microsecond of every month to 2200, and a moment of every tenth day."""
    moments = sorted({at for begins in BEGINS for at in (begins, max(begins - 1, 0))})
    moments += [day * DAY_US + day * 7_919_000_000 % DAY_US for day in range(0, 84_000, 10)]
    told: list[str] = []
    with redis.Redis.from_url(store_url, decode_responses=True) as client:
        probe = client.register_script(PROBE)
        for period in range(2):
            for at in range(0, len(moments), 2_000):
                some = moments[at : at + 2_000]
                said = probe([], some)
                told += said[period * len(some) : (period + 1) * len(some)]
    windows = [window_at(period, at) for period in ("day", "month") for at in moments]
    assert told == [f"{one.number} {one.ends_us}" for one in windows]


@pytest.mark.parametrize(
    ("used", "units", "left", "waits", "why"),
    [
        (0, 3, 7, False, "it fits"),
        (7, 3, 0, False, "it fits exactly"),
        (8, 3, 2, True, "it does not fit: nothing of it is taken"),
        (10, 1, 0, True, "all is used"),
        (10, 0, 0, False, "a look"),
        (13, 0, 0, False, "a look at more than all"),
        (13, 1, 0, True, "more than all is used"),
    ],
)
def test_story(used: int, units: int, left: int, waits: bool, why: str) -> None:
    """A limit of ten; whoever must wait waits for the end of the window, as does the reset."""
    here = Window(number=3, ends_us=1_000, used=used)
    said = window.ask(here, 10, units, 400)
    assert (said.left, said.wait_us, said.reset_us) == (left, 600 if waits else 0, 600), why


@settings(max_examples=200)
@given(now_us=st.integers(0, BEGINS[-1]), used=st.integers(1, 99), limit=st.integers(1, 99))
@pytest.mark.parametrize("period", ["day", "month"])
def test_waiting_as_told_is_enough_and_needed(period: str, now_us, used, limit) -> None:
    """Whoever waits is let in by the next window, and a microsecond earlier is not."""
    here = charged(window_at(period, now_us), window_at(period, now_us).number, used)
    said = window.ask(here, limit, limit, now_us)
    assert not said.allowed
    for early, allowed in ((0, True), (1, False)):
        then_us = now_us + said.wait_us - early
        assert window.ask(current(here, period, then_us), limit, limit, then_us).allowed == allowed


def test_what_was_taken_in_another_window_is_not_charged_to_this_one() -> None:
    """Nor given back: it went with its own; and nothing falls below nothing."""
    here = Window(number=3, ends_us=1_000, used=5)
    assert charged(here, 2, 4) == charged(here, 2, -4) == here
    assert charged(here, 3, 4).used == 9
    assert charged(here, 3, -9).used == 0
