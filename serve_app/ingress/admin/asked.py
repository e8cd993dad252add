"""What an admin request asks: its body as a model, its query as numbers; and how lists answer."""

from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from serve_app.auth import PAGE_MAX, Caller
from serve_app.errors import Forbidden, InvalidRequest, UnknownTenant
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.gate import Gate
from serve_app.mistakes import said
from serve_app.redaction import redacted

NO_STORE = {"cache-control": "no-store"}
PAGE = 100
MAX_ADMIN_BYTES = 65_536
NAME_CHARS = 64
"""So much of a name is repeated to whoever wrote it."""

Model = TypeVar("Model", bound=BaseModel)


async def body_as(kind: type[Model], exchange: Exchange, max_bytes: int = MAX_ADMIN_BYTES) -> Model:
    """Return the body as a ``kind``; the reply, whatever it will be, is not to be kept.

    Raises:
        InvalidRequest: it is none; the refusal names the first field at fault.
    """
    exchange.headers_out |= NO_STORE
    raw, fields = await exchange.json_body(max_bytes)
    try:
        return kind.model_validate_json(raw)
    except ValidationError as err:
        raise _mistake(kind, err, fields) from None


async def tenant_asked(gate: Gate, exchange: Exchange, caller: Caller) -> str:
    """Return the tenant that the query names, the caller's own by default.

    Raises:
        Forbidden: it is another's, and the caller is no operator.
        UnknownTenant: there is none.
    """
    tenant = exchange.query.get("tenant", caller.tenant)
    await must_be_tenant(gate, tenant, caller)
    return tenant


async def must_be_tenant(gate: Gate, tenant: str, caller: Caller) -> None:
    """Return if ``caller`` may act for ``tenant``, and there is one.

    Raises:
        Forbidden: it is another's, and the caller is no operator.
        UnknownTenant: there is none.
    """
    if tenant == caller.tenant:
        return
    if not caller.operator:
        raise Forbidden("This caller may only act for its own tenant.", param="tenant")
    if await gate.identity.tenants.found(tenant) is None:
        raise UnknownTenant(f"There is no tenant '{tenant[:64]}'.", param="tenant")


def page_asked(exchange: Exchange) -> tuple[str, int]:
    """Return the cursor and the size that a list is asked for: ``after``, ``limit`` (1 to 1000)."""
    size = number(exchange.query.get("limit", str(PAGE)), "limit", low=1, high=PAGE_MAX)
    return exchange.query.get("after", ""), size


async def reply_page(exchange: Exchange, shown: list[dict[str, Any]], following: str) -> None:
    """Answer with a page of a list."""
    more = bool(following)
    page = {"object": "list", "data": shown, "has_more": more, "after": following or None}
    await exchange.reply(200, page, NO_STORE)


def number(text: str, name: str, *, low: int, high: int) -> int:
    """Return a whole number of the query.

    Raises:
        InvalidRequest: it is none, or out of bounds.
    """
    digits = text.isascii() and text.isdigit() and len(text) <= len(str(high))
    if not (digits and low <= int(text) <= high):
        raise InvalidRequest(f"'{name}' must be a whole number from {low} to {high}.", param=name)
    return int(text)


def _written(loc: tuple[int | str, ...], fields: Any, *, missing: bool) -> Iterator[str]:
    """Yield the steps of ``loc`` that lead through the body; the rest are pydantic's own."""
    for place, step in enumerate(loc, 1):
        if isinstance(fields, dict):
            if step in fields:
                fields = fields[step]
            elif not (missing and place == len(loc)):
                continue
            yield str(step)[:NAME_CHARS]
        elif isinstance(fields, list) and isinstance(step, int):
            yield str(step)
            fields = fields[step] if step < len(fields) else None


def _mistake(kind: type[BaseModel], err: ValidationError, fields: dict[str, Any]) -> InvalidRequest:
    """Return the first mistake in a body, with the path of its field as the client wrote it.

    Of several ways in which a value may be written, the one that was nearly followed.
    """
    mistakes = err.errors(include_url=False, include_input=False)
    alike = [one for one in mistakes if one["loc"][:2] == mistakes[0]["loc"][:2]]
    first = max(alike, key=lambda one: len(one["loc"]))
    steps = _written(first["loc"], fields, missing=first["type"] == "missing")
    path = ".".join(steps) or "body"
    end = "." if (told := said(kind, first))[-1].isalnum() else ""
    message = f"'{path}': {told}{end}"
    if redacted(message) != message:  # what follows a secret's name is taken for the secret
        message = f"In '{path}' there is a mistake. {told[0].upper()}{told[1:]}{end}"
    return InvalidRequest(message, param=path)
