"""Keys over HTTP: create, list, revoke."""

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from serve_app.auth import PAGE_MAX, Caller, KeyRequest
from serve_app.errors import Forbidden, InvalidRequest
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.gate import Gate

NO_STORE = {"cache-control": "no-store"}
PAGE = 100


async def create_key(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Make a key and show it this once."""
    raw, fields = await exchange.json_body(gate.settings.limits.max_body_bytes)
    try:
        request = KeyRequest.model_validate_json(raw)
    except ValidationError as err:
        raise _mistake(err, fields) from None
    made, record = await gate.keys.create(request, by=caller)
    exchange.notes["made_key_id"] = record.id
    await exchange.reply(201, {**record.public(), "key": made.text}, NO_STORE)


async def list_keys(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """List a tenant's keys, oldest first: ``tenant``, ``limit`` (1 to 1000), ``after``."""
    size = _number(exchange.query.get("limit", str(PAGE)), "limit", low=1, high=PAGE_MAX)
    after = _number(exchange.query.get("after", "0"), "after", low=0, high=2**62)
    tenant = _tenant(exchange, caller)
    records, following = await gate.keys.listed(tenant, by=caller, after_us=after, size=size)
    said = {
        "object": "list",
        "data": [record.public() for record in records],
        "has_more": following > 0,
        "after": str(following) if following else None,
    }
    await exchange.reply(200, said, NO_STORE)


async def revoke_key(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Revoke a key; its next request is refused."""
    key_id = exchange.scope["path_params"]["key_id"]
    await gate.keys.revoke(_tenant(exchange, caller), key_id, by=caller)
    await exchange.reply(204, headers=NO_STORE)


def _tenant(exchange: Exchange, caller: Caller) -> str:
    """Return the tenant asked for, the caller's own by default."""
    tenant = exchange.query.get("tenant", caller.tenant)
    if tenant != caller.tenant and not caller.operator:
        raise Forbidden("This key may only act for its own tenant.", param="tenant")
    return tenant


def _written(loc: tuple[int | str, ...], fields: Any) -> Iterator[str]:
    """Yield the steps of ``loc`` that lead through the body; the rest are pydantic's own."""
    for step in loc:
        if isinstance(fields, dict):
            yield str(step)
            fields = fields.get(step)
        elif isinstance(fields, list) and isinstance(step, int):
            yield str(step)
            fields = fields[step] if step < len(fields) else None


def _number(text: str, name: str, *, low: int, high: int) -> int:
    digits = text.isascii() and text.isdigit() and len(text) <= len(str(high))
    if not (digits and low <= int(text) <= high):
        raise InvalidRequest(f"'{name}' must be a whole number from {low} to {high}.", param=name)
    return int(text)


def _mistake(err: ValidationError, fields: dict[str, Any]) -> InvalidRequest:
    """Return the first mistake in a body, with the path of its field as the client wrote it."""
    first = err.errors(include_url=False, include_input=False)[0]
    path = ".".join(_written(first["loc"], fields)) or "body"
    said = first["msg"].removeprefix("Value error, ")
    return InvalidRequest(f"'{path}': {said}.", param=path)
