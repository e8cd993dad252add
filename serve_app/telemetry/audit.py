"""The audit: who did what, from where, to what, and what came of it; it only ever grows.

    write ──→ stream in the store ──→ page, oldest first
      └─ the store is away: owed ── pay ──↗

An entry stands in the stream once, however often it had to be sent, and says when it happened,
even if it was written later.
"""

import asyncio
import json
import logging
import re
import secrets
import time
from collections import deque
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Self, TypedDict, Unpack

from serve_app.errors import InvalidRequest, StoreUnavailable
from serve_app.redaction import redacted, redacted_tree
from serve_app.store import Store, keys

DAY_MS = 86_400_000
LATE_MAX_MS = DAY_MS
"""How much later than it happened an entry is still found by its time."""

ENTRIES_MAX = 1_000_000
OWED_MAX = 10_000
TEXT_MAX = 1_000
CHANGE_MAX_BYTES = 32_768
SCAN_MAX = 10_000
"""Entries that one page looks at; with rare matches it ends early, and the next one goes on."""

STEP = 500
PAGE_MAX = 1_000
ID_PART_MAX = 2**63
_ID = re.compile(r"(\d{1,20})-(\d{1,20})")
_log = logging.getLogger("sluicegate.audit")


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that was done, or tried.

    Attributes:
        action: what, e.g. ``key.create``, ``login``, ``address.block``.
        result: ``ok``, or why not.
        tenant: whose business it is; empty if nobody's.
        actor: the caller's public id; empty if unknown.
        address: where from.
        target: to what: a key's id, a user's name, an address.
        before: what it was, as far as it changed; None if it was not there.
        after: what it is now, as far as it changed; None if it is no more.
        request_id: of the request that did it.
    """

    action: str
    result: str = "ok"
    tenant: str = ""
    actor: str = ""
    address: str = ""
    target: str = ""
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    request_id: str = ""


class Wanted(TypedDict, total=False):
    """Which entries; each member that is there and not None must fit."""

    action: str | None
    result: str | None
    actor: str | None
    address: str | None
    target: str | None
    request_id: str | None
    start_ms: int | None
    end_ms: int | None


@dataclass(frozen=True, slots=True)
class _Owed:
    """An entry on its way: its JSON, its mark, and when it happened by our monotonic clock."""

    text: str
    mark: str
    at_s: float


class Audit:
    """Writes and reads the audit; what cannot be written now, because the store is away, is owed.

    Args:
        store: where it lies.
        keep_days: days that an entry is kept.
    """

    def __init__(self, store: Store, *, keep_days: int) -> None:
        self._store = store
        self._keep_ms = keep_days * DAY_MS
        self._owed: deque[_Owed] = deque(maxlen=OWED_MAX)
        self._paying = asyncio.Lock()

    async def write(self, entry: Entry) -> None:
        """Write ``entry`` once, after all that is owed; no secret in it is kept.

        Never raises for the store's sake: what fails is owed, and in the log. Cancelled, it is
        owed, too.
        """
        owed = _Owed(to_json(entry), secrets.token_hex(8), time.monotonic())
        written = False
        try:
            if not self._owed:
                await self._send(owed)
                written = True
        except StoreUnavailable as err:
            _log.warning("the audit cannot be written: %s", err)
        finally:
            if not written:
                self._owed.append(owed)
                _log.warning("an audit entry is owed: %s", owed.text)

    async def pay(self) -> None:
        """Write what is owed, in order.

        Raises:
            StoreUnavailable: the rest is still owed.
        """
        async with self._paying:
            while self._owed:
                first = self._owed[0]
                await self._send(first)
                if self._owed[0] is first:  # unless it had to make room meanwhile
                    self._owed.popleft()

    async def _send(self, owed: _Owed) -> None:
        late_ms = int((time.monotonic() - owed.at_s) * 1_000)
        args: list[str | int | float] = [owed.text, owed.mark, late_ms, self._keep_ms, ENTRIES_MAX]
        await self._store.run("audit_add", [keys.AUDIT], args)

    async def page(
        self, *, tenant: str | None, after: str | None, size: int, **wanted: Unpack[Wanted]
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Return a page of entries, oldest first, and the cursor of the next; None on the last.

        A page may be short, or empty, and not the last.

        Args:
            tenant: whose entries; None for everyone's.
            after: cursor, or the id of the last entry seen; None begins at the oldest.
            size: entries at most (1 to 1000).
            wanted: what else must fit.

        Raises:
            InvalidRequest: ``after`` is no cursor.
            StoreUnavailable: nothing was read.
        """
        search = _Search.of(tenant, wanted)
        step = size + 1 if search.takes_all else STEP
        found: list[dict[str, Any]] = []
        seen, last = 0, after
        while True:
            args: list[str | int | float] = [search.begin(last), search.end, step, self._keep_ms]
            rows = await self._store.run("audit_page", [keys.AUDIT], args)
            for place, (last, fields) in enumerate(rows, 1):
                entry = search.shown(last, dict(zip(fields[::2], fields[1::2], strict=False)))
                if entry is not None:
                    found.append(entry)
                if len(found) == size:
                    more = place < len(rows) or len(rows) == step
                    return found, last if more else None
            seen += len(rows)
            if len(rows) < step or seen >= SCAN_MAX:
                return found, last if len(rows) == step else None


@dataclass(frozen=True, slots=True)
class _Search:
    """What a page looks for: members that must fit, and when it happened."""

    members: dict[str, str]
    start_ms: int
    end_ms: int | None

    @classmethod
    def of(cls, tenant: str | None, wanted: Wanted) -> Self:
        """Return the search for what is ``wanted`` of ``tenant``."""
        exact: dict[str, Any] = {"tenant": tenant, **wanted}
        start_ms, end_ms = exact.pop("start_ms", None), exact.pop("end_ms", None)
        members = {name: value for name, value in exact.items() if value is not None}
        return cls(members, max(start_ms or 0, 0), end_ms)

    @property
    def takes_all(self) -> bool:
        """Whether every entry fits."""
        return not self.members and not self.start_ms and self.end_ms is None

    @property
    def end(self) -> str:
        """The last id that may fit: an entry stands where it was written, perhaps late."""
        return "+" if self.end_ms is None else str(max(self.end_ms, 0) + LATE_MAX_MS)

    def begin(self, after: str | None) -> str:
        """Return the first id to look at, as XRANGE takes it.

        Raises:
            InvalidRequest: ``after`` is no id.
        """
        if after is None:
            return str(self.start_ms)
        at = _ID.fullmatch(after)
        if at is None or max(int(at[1]), int(at[2])) >= ID_PART_MAX:
            raise InvalidRequest(
                "'after' must be the cursor of an earlier page, or an entry's id.", param="after"
            )
        return str(self.start_ms) if int(at[1]) < self.start_ms else f"({after}"

    def shown(self, entry_id: str, fields: dict[str, str]) -> dict[str, Any] | None:
        """Return an entry as it is shown, None if it does not fit."""
        if "entry" not in fields:
            return None  # nothing that we wrote
        at_ms, entry = int(fields["at"]), json.loads(fields["entry"])
        in_time = self.start_ms <= at_ms and (self.end_ms is None or at_ms < self.end_ms)
        if not in_time or any(entry.get(name) != value for name, value in self.members.items()):
            return None
        return {"id": entry_id, "at": _rfc3339(at_ms), **entry}


def to_json(entry: Entry) -> str:
    """Return ``entry`` as it is kept: no secret in it, and nothing too long."""
    told = {
        name: value[:TEXT_MAX] if isinstance(value, str) else value
        for name, value in asdict(entry).items()
    }
    told = redacted_tree(told)
    for name in ("before", "after"):
        size = len(_dumped(told[name]))
        if size > CHANGE_MAX_BYTES:
            told[name] = {"too_large_bytes": size}
    return _dumped(told)


def changed(
    before: dict[str, Any] | None, after: dict[str, Any] | None
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return both without the members that are the same in both; None stays None."""
    if before is None or after is None:
        return before, after
    was, now = dict(before), dict(after)
    for name in before.keys() & after.keys():
        if before[name] == after[name]:
            del was[name], now[name]
        elif isinstance(before[name], dict) and isinstance(after[name], dict):
            was[name], now[name] = changed(before[name], after[name])
    return was, now


def _dumped(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    """Return what JSON lacks as text; a set as a sorted list."""
    if isinstance(value, set | frozenset):
        return sorted(redacted(str(one)) for one in value)
    return redacted(str(value))


def _rfc3339(at_ms: int) -> str:
    at = datetime.fromtimestamp(at_ms / 1_000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at_ms % 1_000:03d}Z"
