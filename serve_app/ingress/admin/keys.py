"""Keys over HTTP: create, list, show, change, rotate, capture, revoke."""

from serve_app.auth import (
    Caller,
    CaptureRequest,
    KeyChange,
    KeyRecord,
    KeyRequest,
    Rotation,
    rfc3339,
)
from serve_app.errors import InvalidRequest
from serve_app.ingress.admin.asked import NO_STORE, body_as, page_asked, reply_page, tenant_asked
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.gate import Gate
from serve_app.telemetry import changed


async def create_key(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Make a key and show it this once."""
    request = await body_as(KeyRequest, exchange)
    made, record = await gate.identity.keys.create(request, by=caller)
    exchange.notes["made_key_id"] = record.id
    await gate.noted(exchange, caller, action="key.create", **_about(record), after=record.public())
    await exchange.reply(201, {**record.public(), "key": made.text}, NO_STORE)


async def list_keys(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """List a tenant's keys, oldest first: ``tenant``, ``limit`` (1 to 1000), ``after``."""
    after, size = page_asked(exchange)
    tenant = await tenant_asked(gate, exchange, caller)
    found, following = await gate.identity.keys.listed(tenant, by=caller, after=after, size=size)
    await reply_page(exchange, [record.public(used_ms) for record, used_ms in found], following)


async def get_key(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Show a key; never its secret."""
    record, used_ms = await gate.identity.keys.get(*await _named(gate, exchange, caller), by=caller)
    await exchange.reply(200, record.public(used_ms), NO_STORE)


async def change_key(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Change a key; its next request meets the change."""
    change = await body_as(KeyChange, exchange)
    was, record = await gate.identity.keys.change(
        *await _named(gate, exchange, caller), change, by=caller
    )
    before, after = changed(was.public(), record.public())
    await gate.noted(
        exchange, caller, action="key.update", **_about(record), before=before, after=after
    )
    await exchange.reply(200, record.public(), NO_STORE)


async def rotate_key(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Give a key a new secret, shown this once; the old one stays good for ``overlap_s``."""
    rotation = await body_as(Rotation, exchange) if exchange.declared_bytes() else Rotation()
    made, record, until_ms = await gate.identity.keys.rotate(
        *await _named(gate, exchange, caller), rotation, by=caller
    )
    told = {"old_valid_until": rfc3339(until_ms)}
    await gate.noted(exchange, caller, action="key.rotate", **_about(record), after=told)
    await exchange.reply(200, {**record.public(), "key": made.text, **told}, NO_STORE)


async def start_capture(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Write down, for ``minutes``, what a key sends and gets; operators only."""
    minutes, most = (await body_as(CaptureRequest, exchange)).minutes, gate.captures.max_minutes
    if minutes > most:
        raise InvalidRequest(f"'minutes': at most {most} here, by capture.max_minutes.")
    record = await _captured(gate, exchange, caller, "capture.start", minutes)
    await exchange.reply(200, record.public(), NO_STORE)


async def stop_capture(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Write down no more of what a key sends and gets; operators only. What was written stays."""
    await _captured(gate, exchange, caller, "capture.stop", 0)
    await exchange.reply(204, headers=NO_STORE)


async def _captured(
    gate: Gate, exchange: Exchange, caller: Caller, action: str, minutes: int
) -> KeyRecord:
    named = await _named(gate, exchange, caller)
    was, record = await gate.identity.keys.capture(*named, minutes, by=caller)
    before, after = changed(was.public(), record.public())
    await gate.noted(exchange, caller, action=action, **_about(record), before=before, after=after)
    return record


async def revoke_key(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Revoke a key; its next request is refused."""
    record = await gate.identity.keys.revoke(*await _named(gate, exchange, caller), by=caller)
    await gate.noted(
        exchange, caller, action="key.revoke", **_about(record), before=record.public()
    )
    await exchange.reply(204, headers=NO_STORE)


async def _named(gate: Gate, exchange: Exchange, caller: Caller) -> tuple[str, str]:
    """Return the tenant and id of the key that the request is about."""
    return await tenant_asked(gate, exchange, caller), exchange.scope["path_params"]["key_id"]


def _about(record: KeyRecord) -> dict[str, str]:
    """Return what the audit says of a key."""
    return {"target": record.id, "tenant": record.tenant}
