"""The audit over HTTP."""

import json
from datetime import datetime

from serve_app.auth import Caller
from serve_app.errors import InvalidRequest
from serve_app.ingress.admin.asked import NO_STORE, page_asked, reply_page, tenant_asked
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.gate import Gate

ASKED = (
    *("tenant", "limit", "after", "action", "result", "actor", "address", "target"),
    *("request_id", "start", "end", "format"),
)


async def list_audit(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """List who did what, oldest first; a caller of one tenant sees that tenant's.

    ``limit`` (1 to 1000), ``after``, and what an entry must have; ``format=jsonl`` for one a line.
    """
    after, size = page_asked(exchange)
    query = exchange.query
    for name in query:
        if name not in ASKED:
            raise InvalidRequest(
                f"'{name[:64]}' is not asked for here; known: {', '.join(ASKED)}.", param=name[:64]
            )
    whole = caller.operator and "tenant" not in query
    found, following = await gate.audit.page(
        tenant=None if whole else await tenant_asked(gate, exchange, caller),
        after=after or None,
        size=size,
        action=query.get("action"),
        result=query.get("result"),
        actor=query.get("actor"),
        address=query.get("address"),
        target=query.get("target"),
        request_id=query.get("request_id"),
        start_ms=_at_ms(query.get("start"), "start"),
        end_ms=_at_ms(query.get("end"), "end"),
    )
    if query.get("format", "json") not in ("json", "jsonl"):
        raise InvalidRequest("'format' must be json or jsonl.", param="format")
    if query.get("format") != "jsonl":
        await reply_page(exchange, found, following or "")
        return
    told = {"content-type": "application/jsonl", **NO_STORE}
    if following:
        told["x-next-after"] = following
    await exchange.start(200, told)
    lines = "".join(json.dumps(entry) + "\n" for entry in found)
    await exchange.write(lines.encode(), more=False)


def _at_ms(text: str | None, name: str) -> int | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise InvalidRequest(f"'{name}' must be a time like 2026-01-31T00:00:00Z.", param=name)
    return int(at.timestamp() * 1_000)
