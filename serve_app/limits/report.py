"""The ledger's figures, summed and written down as JSON or CSV. Pure.

A row says whose use it is by members of :data:`MEMBERS`, and how much by figures of :data:`WHATS`.
Rows are summed as whole numbers, whatever they are grouped by, so that sums of sums are the sums;
money and seconds become decimals only when they are shown, and exact ones: no float on the way.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

WHATS = (
    "requests",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "refused",
    "shadow_refused",
    "cost_nanos",
    "queue_ms",
    "engine_ms",
)
"""What is counted, as it is called in the store; the order of a row's figures."""

FINEST = ("key", "tenant", "model", "class", "hour")
"""By which the ledger counts; ``hour`` is RFC 3339, UTC."""

MEMBERS = (*FINEST, "day", "month")
"""By which rows may be grouped; a day and a month are the first letters of an hour."""

FIGURES = (*WHATS[:6], "cost", "queue_seconds", "engine_seconds")
"""What is counted, as it is shown."""

HOUR_S, HOUR_US = 3_600, 3_600_000_000
PLACES = {"cost": 9, "queue_seconds": 3, "engine_seconds": 3}
_LETTERS = {"day": 10, "month": 7}
_RISKY = ("=", "+", "-", "@", "\t", "\r", "\n", "'")


@dataclass(frozen=True, slots=True)
class Row:
    """Some use.

    Attributes:
        by: the members that say whose it is.
        of: their values.
        figures: how much of each of :data:`WHATS`.
    """

    by: tuple[str, ...]
    of: tuple[str, ...]
    figures: tuple[int, ...]

    def member(self, name: str) -> str:
        """Return one member, a day or month also out of an hour.

        Raises:
            KeyError: the row does not tell it.
        """
        told = dict(zip(self.by, self.of, strict=True))
        if name in _LETTERS and name not in told:
            return (told.get("hour") or told["day"])[: _LETTERS[name]]
        return told[name]


class Report:
    """Rows, grouped while they come in; it holds no more than it shows.

    Args:
        by: the members to group by, in the order in which they are shown and sorted.
        only: members whose value must be the one told here; other rows are passed over.
    """

    def __init__(self, by: Sequence[str] = FINEST, only: Mapping[str, str] | None = None) -> None:
        self.by, self._only = tuple(by), dict(only or {})
        self._total = (0,) * len(WHATS)
        self._sums: dict[tuple[str, ...], tuple[int, ...]] = {}

    def __len__(self) -> int:
        return len(self._sums)

    def add(self, rows: Iterable[Row]) -> None:
        """Add ``rows``; each must tell the members that this report groups by."""
        for row in rows:
            if any(row.member(name) != value for name, value in self._only.items()):
                continue
            same = row.by == self.by
            of = row.of if same else tuple(row.member(name) for name in self.by)
            known = self._sums.get(of)
            self._sums[of] = row.figures if known is None else _sum(known, row.figures)
            self._total = _sum(self._total, row.figures)

    @property
    def total(self) -> Row:
        """The sum of all rows, of nobody in particular."""
        return Row((), (), self._total)

    def rows(self) -> list[Row]:
        """Return the groups, sorted by their members from left to right."""
        return [row for some in self._parts(1_000) for row in some]

    def _parts(self, size: int) -> Iterator[list[Row]]:
        order = sorted(self._sums, key="\0".join)  # text sorts faster than tuples of it
        for start in range(0, len(order), size):
            yield [Row(self.by, of, self._sums[of]) for of in order[start : start + size]]

    def as_json(self, size: int) -> Iterator[str]:
        """Yield ``{data, totals}``, with up to ``size`` rows in a part."""
        yield '{"data": ['
        for place, rows in enumerate(self._parts(size)):
            yield (", " if place else "") + ", ".join(as_json(shown(row)) for row in rows)
        yield f'], "totals": {as_json(shown(self.total))}}}'

    def as_csv(self, size: int) -> Iterator[str]:
        """Yield headings and one line per row (RFC 4180), with up to ``size`` rows in a part."""
        yield _csv([[*self.by, *FIGURES]])
        for rows in self._parts(size):
            yield _csv([_cell(value) for value in shown(row).values()] for row in rows)


def _sum(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(int.__add__, one, other))


def shown(row: Row) -> dict[str, str | int | Decimal]:
    """Return a row as the API shows it; money in what the prices are in, times in seconds."""
    figures = zip(FIGURES, row.figures, strict=True)
    return {
        **dict(zip(row.by, row.of, strict=True)),
        **{name: _scaled(count, PLACES[name]) if name in PLACES else count
           for name, count in figures},
    }  # fmt: skip


def _scaled(count: int, places: int) -> Decimal:
    """Return ``count`` with the point moved ``places`` to the left, without zeros at its end."""
    sign, digits, exponent = Decimal(count).as_tuple()
    while places and digits[-1] == 0:
        digits, places = digits[:-1] or (0,), places - 1
    assert isinstance(exponent, int)
    return Decimal((sign, digits, exponent - places))


def as_json(members: Mapping[str, str | int | Decimal]) -> str:
    """Return an object as JSON in which a decimal stands as it is, to the last digit."""
    told = (f"{json.dumps(name)}: {_json_value(value)}" for name, value in members.items())
    return f"{{{', '.join(told)}}}"


def _json_value(value: str | int | Decimal) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else json.dumps(value)


def _csv(lines: Iterable[Sequence[str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(lines)
    return text.getvalue()


def _cell(value: str | int | Decimal) -> str:
    """Return a cell that no spreadsheet takes for a formula: such a text gets a ``'`` in front."""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_RISKY) and value != "-" else value
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
