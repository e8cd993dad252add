"""The usage ledger over HTTP: refusals are counted here, and use is told."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from serve_app import auth
from serve_app.auth import Caller
from serve_app.errors import Forbidden, InvalidRequest
from serve_app.ingress.admin.asked import NO_STORE, must_be_tenant
from serve_app.ingress.admission import class_served
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.gate import Gate
from serve_app.limits import FINEST, HOUR_S, KEPT_HOURS, MEMBERS, NO_MODEL, Report

ASKED = ("tenant", "key", "model", "class", "start", "end", "group_by", "format")
ROWS_MAX = 20_000
"""Rows of one report; so many are sorted before anybody notices."""

PART = 200
_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_KEY = re.compile(r"[0-9A-Za-z_-]{1,128}")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_UNIX = re.compile(r"[0-9]{1,11}")


def note_refusal(gate: Gate, exchange: Exchange) -> None:
    """Count a refused inference request of a known caller; one that got a byte was no refusal."""
    held, credential = exchange.held, exchange.credential
    if not exchange.scope.get("engine_path") or held is None or credential is None:
        return
    if "first_byte_ms" not in exchange.notes:
        caller = auth.identified(credential, held.attributes)
        gate.ledger.refused(
            held.claim.tenant,
            held.claim.key_id,
            exchange.notes.get("model", NO_MODEL),
            class_served(gate, caller, held, exchange.wish).name,
            held.now_us,
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of the ledger is asked for.

    Attributes:
        start_hour: hours since the epoch; from this one on.
        end_hour: and before this one.
        by: the members to group by.
        only: members that must have a value.
        as_csv: whether it is wanted as CSV.
    """

    start_hour: int
    end_hour: int
    by: tuple[str, ...]
    only: Mapping[str, str]
    as_csv: bool

    @property
    def headers(self) -> dict[str, str]:
        """What the reply says of itself."""
        if self.as_csv:
            told = {"content-disposition": 'attachment; filename="usage.csv"'}
            return {"content-type": "text/csv; charset=utf-8", **told, **NO_STORE}
        return {"content-type": "application/json", **NO_STORE}


async def tell_use(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Tell who used how much, by key, tenant, model, class and hour; as JSON or CSV.

    A caller sees its own use; with ``manage_keys`` its tenant's, an operator everyone's.

    Raises:
        Forbidden: it asks for another's.
        UnknownTenant: an operator asks for a tenant that is not there and left no use.
    """
    assert exchange.held is not None
    wanted = read_query(exchange.query, now_s=exchange.held.now_us // 1_000_000)
    tenants, key_ids = await _whose(gate, exchange, caller)
    report = Report(wanted.by, wanted.only)
    hours = (wanted.start_hour, wanted.end_hour)
    async for rows in gate.ledger.read(tenants, key_ids, *hours):
        report.add(rows)
        if len(report) > ROWS_MAX:
            told = f"That is more than {ROWS_MAX} rows; group them, or narrow 'start' and 'end'."
            raise InvalidRequest(told, param="group_by")
    if not report and "tenant" in exchange.query:
        await must_be_tenant(gate, tenants[0], caller)
    await exchange.start(200, wanted.headers)
    for part in report.as_csv(PART) if wanted.as_csv else report.as_json(PART):
        await exchange.write(part.encode())
        await asyncio.sleep(0)  # others have their turn while a long report is written
    await exchange.write(b"", more=False)


async def _whose(
    gate: Gate, exchange: Exchange, caller: Caller
) -> tuple[list[str], list[str] | None]:
    """Return the tenants and the keys that are asked for, as far as the caller may see them.

    Raises:
        Forbidden: it may not.
        InvalidRequest: what is named can be no tenant, or no key.
    """
    tenant, key_id = exchange.query.get("tenant"), exchange.query.get("key")
    manages = "manage_keys" in caller.permissions
    if tenant not in (None, caller.tenant) and not (manages and caller.operator):
        raise Forbidden("This caller may only see the use of its own tenant.", param="tenant")
    if not manages:
        if key_id not in (None, caller.key_id):
            raise Forbidden("This caller may only see its own use.", param="key")
        if exchange.credential is None or exchange.credential.how is auth.How.NONE:
            raise Forbidden("Strangers are counted together; show a credential of your own.")
        return [caller.tenant], [caller.key_id]
    if tenant is not None and not _TENANT.fullmatch(tenant):
        raise InvalidRequest("'tenant' must be the id of a tenant.", param="tenant")
    if key_id is not None and not _KEY.fullmatch(key_id):
        raise InvalidRequest("'key' must be the public id of a key or a user.", param="key")
    key_ids = None if key_id is None else [key_id]
    if caller.operator and tenant is None:
        return await _every_tenant(gate, caller), key_ids
    return [tenant or caller.tenant], key_ids


async def _every_tenant(gate: Gate, caller: Caller) -> list[str]:
    found, after = await gate.identity.tenants.listed(by=caller, after="", size=auth.PAGE_MAX)
    while after:
        page, after = await gate.identity.tenants.listed(by=caller, after=after, size=auth.PAGE_MAX)
        found += page
    return [record.id for record in found]


def read_query(query: Mapping[str, str], *, now_s: int) -> Wanted:
    """Return what a query asks for; pure.

    The hours that begin from ``start`` on and before ``end``: ranges that touch share none. By
    default the present hour is the last one, and the first that of the last one's day.

    Raises:
        InvalidRequest: a field is unknown or makes no sense; ``param`` names it.
    """
    for name in query:
        if name not in ASKED:
            raise InvalidRequest(
                f"'{name[:64]}' is not asked for here; known: {', '.join(ASKED)}.", param=name[:64]
            )
    form = query.get("format", "json")
    if form not in ("json", "csv"):
        raise InvalidRequest("'format' must be json or csv.", param="format")
    end_hour = _hour(query["end"], "end") if "end" in query else now_s // HOUR_S + 1
    today = (end_hour - 1) // 24 * 24
    start_hour = _hour(query["start"], "start") if "start" in query else today
    if start_hour >= end_hour:
        at_fault = "end" if "end" in query else "start"
        raise InvalidRequest("No hour begins from 'start' on and before 'end'.", param=at_fault)
    if end_hour - start_hour > KEPT_HOURS:
        told = f"'start' and 'end' may be {KEPT_HOURS // 24} days apart at most."
        raise InvalidRequest(told, param="start")
    only = {name: query[name] for name in ("model", "class") if name in query}
    return Wanted(start_hour, end_hour, _by(query.get("group_by")), only, form == "csv")


def _by(text: str | None) -> tuple[str, ...]:
    """Return the members to group by, in the order in which they are named."""
    if text is None:
        return FINEST
    by = tuple(name.strip() for name in text.split(","))
    if not set(by) <= set(MEMBERS) or len(set(by)) < len(by):
        known = ", ".join(MEMBERS)
        raise InvalidRequest(f"'group_by' must be some of {known}, each once.", param="group_by")
    return by


def _hour(text: str, name: str) -> int:
    """Return the first hour that begins then or later, in hours since the epoch."""
    if _UNIX.fullmatch(text):
        return -(-int(text) // HOUR_S)
    try:
        at = datetime.fromisoformat(text.upper())
    except ValueError:
        at = None
    if at is not None and _DATE.fullmatch(text):
        at = at.replace(tzinfo=UTC)
    if at is None or at.tzinfo is None:
        raise InvalidRequest(
            f"'{name}' must be a date like 2026-01-31, a time like 2026-01-31T08:00:00Z or "
            "seconds since the epoch.",
            param=name,
        )
    return int(-(-at.timestamp() // HOUR_S))
