"""The usage ledger: who used how much of what, by caller, model, class and UTC hour.

    settle ────────────────→ hash per caller and hour ──→ read, in bounded pages
    refused ──→ counted here ── pay ──↗

What a request used is written by the step that settles it. A refusal is counted in memory and
written about four times a second; a store that is away gets it when it is back, and once. A gateway
that is killed takes its last quarter of a second of refusals along.
"""

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TypeVar

from serve_app.errors import InvalidRequest
from serve_app.limits.report import FINEST, HOUR_S, HOUR_US, WHATS, Row
from serve_app.store import Store, keys

KEPT_HOURS = 2_400
"""Hours that use is kept, a hundred days."""

READ_MAX = 50_000
"""Callers' hours that one call may read; as many hours of tenants may be looked through."""

PAGE = 100
"""Hashes in one round trip; few, for they are taken apart between requests."""

COUNTED_MAX = 20_000
"""Refusals counted apart, by caller, hour, model and class; more are lost, and the log says so."""

BATCH = 500
"""Calls, or sets, in one round trip."""

LISTED = 1_000
"""Ids that one round trip lists, about; a single hour of a tenant may have more."""

NO_MODEL = "-"
"""Stands for the model of a request that names none we know."""

_log = logging.getLogger("sluicegate.limits")
_PLACE = {what: place for place, what in enumerate(WHATS)}
_Item = TypeVar("_Item")
_Span = tuple[str, int]
_Hour = tuple[str, str, int]
_Call = tuple[list[str], list[str | int | float]]


class Ledger:
    """Counts refusals and reads use; what cannot be written now, because the store is away, waits.

    Args:
        store: where it lies.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._name = secrets.token_hex(8)
        self._number = 0
        self._counted: dict[_Hour, dict[tuple[str, str], list[int]]] = {}
        self._kinds = 0
        self._lost = 0
        self._sending: list[_Call] = []
        self._paying = asyncio.Lock()

    def refused(
        self,
        tenant: str,
        key_id: str,
        model: str,
        class_: str,
        now_us: int,
        *,
        shadow: bool = False,
    ) -> None:
        """Count one refusal, or one that a shadow limit would have made.

        Args:
            tenant: the caller's.
            key_id: the caller.
            model: which it asked for; :data:`NO_MODEL` if none that we know.
            class_: in which it would have waited.
            now_us: the store's time, as the caller's hold told it.
            shadow: whether it was let in all the same.
        """
        counts = self._counts((tenant, key_id, now_us // HOUR_US), (model, class_))
        counts[shadow] += 1

    def _counts(self, hour: _Hour, kind: tuple[str, str]) -> list[int]:
        """Return the counters, refused and shadow; some that nobody reads if there are too many."""
        known = self._counted.get(hour, {}).get(kind)
        if known is not None:
            return known
        if self._kinds >= COUNTED_MAX:
            self._lost += 1
            return [0, 0]
        self._kinds += 1
        return self._counted.setdefault(hour, {}).setdefault(kind, [0, 0])

    async def pay(self) -> None:
        """Write down what was counted; each refusal once, however often this must be tried.

        Refusals that are counted meanwhile, and begin another batch, wait for the next call.

        Raises:
            StoreUnavailable: what is not written is still known.
        """
        async with self._paying:
            if self._lost:
                _log.warning("%d refusals were too many to be counted", self._lost)
                self._lost = 0
            for _ in range(bool(self._sending) + -(-len(self._counted) // BATCH)):
                self._sending = self._sending or self._batch()
                await self._store.run_many("usage_note", self._sending)
                self._sending = []

    def _batch(self) -> list[_Call]:
        """Take up to :data:`BATCH` hours of callers out of what was counted, as calls."""
        self._number += 1
        calls: list[_Call] = []
        for hour in list(self._counted)[:BATCH]:
            kinds = self._counted.pop(hour)
            self._kinds -= len(kinds)
            notes = json.dumps([[*kind, *counts] for kind, counts in kinds.items()])
            names = [keys.usage(*hour), keys.used(hour[0], hour[2])]
            calls.append((names, [hour[1], notes, self._name, self._number]))
        return calls

    async def read(
        self,
        tenants: Sequence[str],
        key_ids: Sequence[str] | None,
        start_hour: int,
        end_hour: int,
    ) -> AsyncIterator[list[Row]]:
        """Yield the use of some tenants in pages, by :data:`~serve_app.limits.report.FINEST`.

        Args:
            tenants: whose callers.
            key_ids: which of them; None for all.
            start_hour: hours since the epoch; from this one on.
            end_hour: and before this one.

        Raises:
            InvalidRequest: that is more than :data:`READ_MAX`; no use was read.
            StoreUnavailable: the rest was not read.
        """
        hours = range(start_hour, end_hour)
        _must_be_readable(len(tenants) * len(hours) * (1 if key_ids is None else len(key_ids)))
        spans = [(tenant, hour) for hour in hours for tenant in tenants]
        pages = self._used(spans) if key_ids is None else _named(spans, key_ids)
        async for page in pages:
            found = await self._store.hashes([keys.usage(*hour) for hour in page])
            pairs = zip(page, found, strict=True)
            yield [row for hour, fields in pairs for row in rows_of(hour, fields)]

    async def _used(self, spans: Sequence[_Span]) -> AsyncIterator[Sequence[_Hour]]:
        """Yield in pages the callers that have use in these hours of their tenants.

        Their number is taken first, so that too many are refused before they are listed.
        """
        sizes: list[int] = []
        for some in _pages(spans, BATCH):
            sizes += await self._store.sizes([keys.used(*span) for span in some])
        _must_be_readable(sum(sizes))
        there = [span for span, size in zip(spans, sizes, strict=True) if size]
        at_once = LISTED * len(there) // max(1, sum(sizes))
        for some in _pages(there, min(max(at_once, 1), BATCH)):
            listed = await self._store.members([keys.used(*span) for span in some])
            for page in _pages(_hours(some, listed), PAGE):
                yield page


async def _named(spans: Sequence[_Span], key_ids: Sequence[str]) -> AsyncIterator[Sequence[_Hour]]:
    """Yield in pages these callers in each of these hours."""
    for page in _pages(_hours(spans, [key_ids] * len(spans)), PAGE):
        yield page


def _hours(spans: Sequence[_Span], ids: Sequence[Iterable[str]]) -> list[_Hour]:
    pairs = zip(spans, ids, strict=True)
    return [(tenant, key_id, hour) for (tenant, hour), some in pairs for key_id in some]


def rows_of(hour: _Hour, fields: Mapping[str, str]) -> list[Row]:
    """Return the rows of one caller's hour, one per model and class; pure.

    What is no counter of ours, such as the mark of a gateway's last batch, is passed over.
    """
    tenant, key_id, number = hour
    figures: dict[tuple[str, str], list[int]] = {}
    for name, value in fields.items():
        model, _, rest = name.partition("\t")
        class_, _, what = rest.partition("\t")
        if what in _PLACE:
            counts = figures.setdefault((model, class_), [0] * len(WHATS))
            counts[_PLACE[what]] = int(value)
    at = hour_text(number)
    return [
        Row(FINEST, (key_id, tenant, model, class_, at), tuple(counts))
        for (model, class_), counts in figures.items()
    ]


@lru_cache(maxsize=KEPT_HOURS)
def hour_text(hour: int) -> str:
    """Return an hour since the epoch as RFC 3339 writes its beginning, UTC."""
    return datetime.fromtimestamp(hour * HOUR_S, UTC).strftime("%Y-%m-%dT%H:00:00Z")


def _must_be_readable(count: int) -> None:
    """Return if one call may read so much.

    Raises:
        InvalidRequest: it may not; it says how to ask for less.
    """
    if count > READ_MAX:
        raise InvalidRequest(
            f"This would read {count} callers' hours, and {READ_MAX} are the most: narrow 'start' "
            "and 'end', or name a 'key' or a 'tenant'.",
            param="start",
        )


def _pages(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))
