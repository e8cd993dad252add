"""The ledger's figures: sums are sums, decimals are exact, and spreadsheets run nothing."""

import csv
import io
import json
from decimal import Decimal
from itertools import chain, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.limits.ledger import hour_text
from serve_app.limits.report import (
    FIGURES,
    FINEST,
    MEMBERS,
    WHATS,
    Report,
    Row,
    as_json,
    shown,
)

HOURS = st.integers(490_000, 490_000 + 24 * 70).map(hour_text)
FIGURE_LISTS = st.tuples(*[st.integers(0, 10**24)] * len(WHATS))


def rows_with(texts: st.SearchStrategy[str]) -> st.SearchStrategy[list[Row]]:
    """Rows of the ledger, many of which are alike."""
    values = st.tuples(texts, texts, texts, texts, HOURS)
    return st.lists(st.builds(Row, by=st.just(FINEST), of=values, figures=FIGURE_LISTS), max_size=9)


ROWS = rows_with(st.sampled_from(["a", "b"]))
BYS = st.sampled_from(
    list(chain.from_iterable(permutations(MEMBERS, size) for size in range(len(MEMBERS) + 1)))
)


def reported(rows: list[Row], by: tuple[str, ...]) -> Report:
    report = Report(by)
    report.add(rows)
    return report


def grouped(rows: list[Row], by: tuple[str, ...]) -> list[Row]:
    """The rows summed into one per group."""
    return reported(rows, by).rows()


@given(ROWS, BYS)
def test_totals_are_the_sum_over_any_grouping(rows: list[Row], by: tuple[str, ...]) -> None:
    """However use is grouped, nothing of it is lost and nothing counts twice."""
    groups = grouped(rows, by)
    summed = tuple(sum(row.figures[place] for row in rows) for place in range(len(WHATS)))
    assert reported(rows, by).total.figures == summed
    assert reported(groups, by).total.figures == summed
    assert tuple(map(sum, zip(*(row.figures for row in groups), strict=True))) == summed or not rows
    assert len({row.of for row in groups}) == len(groups)
    assert [row.of for row in groups] == sorted(row.of for row in groups)


@given(ROWS, BYS, st.data())
def test_groups_of_groups_are_the_groups(rows: list[Row], wide: tuple[str, ...], data) -> None:
    """Grouping finely first changes nothing; a day or a month may come out of an hour."""
    tellable = set(wide)
    if "hour" in wide:
        tellable |= {"day", "month"}
    if "day" in wide:
        tellable |= {"month"}
    narrow = tuple(data.draw(st.permutations(sorted(tellable))))
    narrow = narrow[: data.draw(st.integers(0, len(narrow)))]
    assert grouped(grouped(rows, wide), narrow) == grouped(rows, narrow)


@given(ROWS, BYS, st.integers(0, 9), st.randoms())
def test_pages_come_in_any_order(rows: list[Row], by, cut: int, random) -> None:
    """A report is the same whichever page came first, and wherever one ended."""
    mixed = random.sample(rows, len(rows))
    report = Report(by)
    report.add(mixed[:cut])
    report.add(mixed[cut:])
    assert report.rows() == grouped(rows, by)
    assert len(report) == len(report.rows())


def test_only_what_is_asked_for() -> None:
    """Rows of another model are passed over, also where the model is not shown."""
    rows = [Row(FINEST, ("k", "t", model, "c", hour_text(0)), (1,) * 9) for model in "aab"]
    report = Report(("day",), {"model": "a"})
    report.add(rows)
    assert report.rows() == [Row(("day",), ("1970-01-01",), (2,) * 9)]


def test_a_row_does_not_tell_what_it_was_not_grouped_by() -> None:
    """Of a sum over all keys nobody can say what one key used."""
    with pytest.raises(KeyError):
        grouped([Row(("model",), ("m",), (0,) * 9)], ("key",))


@pytest.mark.parametrize(
    ("nanos", "ms", "cost", "seconds"),
    [
        (0, 0, "0", "0"),
        (1, 1, "0.000000001", "0.001"),
        (1_500_000_000, 1_500, "1.5", "1.5"),
        (10_000_000_000, 10_000, "10", "10"),
        (100, 10, "0.0000001", "0.01"),
        (300_000_000, 300, "0.3", "0.3"),
        (10**24 + 1, 10**24 + 1, "1000000000000000.000000001", "1000000000000000000000.001"),
    ],
)
def test_money_and_seconds_as_they_are_written(nanos: int, ms: int, cost: str, seconds: str):
    """A plain decimal, to the last digit: no exponent, no dust, no zeros at the end."""
    row = Row((), (), (0, 0, 0, 0, 0, 0, nanos, ms, ms))
    told = as_json(shown(row))
    assert told.endswith(
        f'"cost": {cost}, "queue_seconds": {seconds}, "engine_seconds": {seconds}}}'
    )


@given(ROWS, BYS, st.integers(1, 4))
def test_json_is_exact(rows: list[Row], by: tuple[str, ...], size: int) -> None:
    """Whoever reads decimals as decimals gets what the ledger holds, in parts of any size."""
    report = reported(rows, by)
    said = json.loads("".join(report.as_json(size)), parse_float=Decimal)
    assert set(said) == {"data", "totals"}
    shown_ = [*said["data"], said["totals"]]
    for told, row in zip(shown_, [*report.rows(), report.total], strict=True):
        assert list(told) == [*row.by, *FIGURES]
        assert [told[name] for name in row.by] == list(row.of)
        assert _figures(told) == row.figures


@given(rows_with(st.text() | st.sampled_from(["=1+1", "'", "-", "@x", "\r", "a,b", '"'])), BYS)
def test_csv_comes_back(rows: list[Row], by: tuple[str, ...]) -> None:
    """What was written is read again, whatever names hold; the mark in front is taken off."""
    report = reported(rows, by)
    text = io.StringIO("".join(report.as_csv(2)), newline="")
    heading, *lines = csv.reader(text)
    assert heading == [*by, *FIGURES]
    for line, row in zip(lines, report.rows(), strict=True):
        assert tuple(cell.removeprefix("'") for cell in line[: len(by)]) == row.of
        assert _figures(dict(zip(heading, line, strict=True))) == row.figures


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "'"])
def test_csv_holds_no_formula(start: str) -> None:
    """No name begins a cell with what makes a spreadsheet run it; a lone dash is none."""
    row = Row(FINEST, ("k", "t", f"{start}cmd|' /C calc'!A0", "-", hour_text(0)), (1,) * 9)
    _, line = csv.reader(io.StringIO("".join(reported([row], FINEST).as_csv(9)), newline=""))
    assert line[2].startswith(f"'{start}")
    assert line[3] == "-"


def _figures(told: dict[str, object]) -> tuple[int, ...]:
    """The counts behind what is shown."""
    scale = {"cost": 10**9, "queue_seconds": 1_000, "engine_seconds": 1_000}
    exact = [Decimal(str(told[name])).as_integer_ratio() for name in FIGURES]
    scaled = [
        (top * scale.get(name, 1), bottom)
        for name, (top, bottom) in zip(FIGURES, exact, strict=True)
    ]
    assert all(top % bottom == 0 for top, bottom in scaled)
    return tuple(top // bottom for top, bottom in scaled)


def test_the_order_of_members_is_the_order_of_rows() -> None:
    """Rows are sorted by the members from left to right, in the order of their naming."""
    rows = [Row(FINEST, (k, "t", m, "c", hour_text(0)), (1,) * 9) for k, m in ("ay", "bx")]
    for by, told in ((("key", "model"), ["ay", "bx"]), (("model", "key"), ["xb", "ya"])):
        assert ["".join(row.of) for row in grouped(rows, by)] == told
