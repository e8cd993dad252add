"""Tenants over HTTP: create, list, show, change, remove."""

from serve_app.auth import Caller, TenantChange, TenantRequest
from serve_app.ingress.admin.asked import NO_STORE, body_as, page_asked, reply_page
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.gate import Gate
from serve_app.telemetry import changed


async def create_tenant(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Make a tenant; operators only."""
    request = await body_as(TenantRequest, exchange)
    record = await gate.identity.tenants.create(request, by=caller)
    await gate.noted(
        exchange,
        caller,
        action="tenant.create",
        target=record.id,
        tenant=record.id,
        after=record.public(),
    )
    await exchange.reply(201, record.public(), NO_STORE)


async def list_tenants(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """List the tenants, oldest first: ``limit`` (1 to 1000), ``after``."""
    after, size = page_asked(exchange)
    found, following = await gate.identity.tenants.listed(by=caller, after=after, size=size)
    await reply_page(exchange, [record.public() for record in found], following)


async def get_tenant(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Show a tenant."""
    record = await gate.identity.tenants.get(_named(exchange), by=caller)
    await exchange.reply(200, record.public(), NO_STORE)


async def change_tenant(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Change a tenant for the next request of all its callers; operators only."""
    change = await body_as(TenantChange, exchange)
    was, record = await gate.identity.tenants.change(_named(exchange), change, by=caller)
    before, after = changed(was.public(), record.public())
    await gate.noted(
        exchange,
        caller,
        action="tenant.update",
        target=record.id,
        tenant=record.id,
        before=before,
        after=after,
    )
    await exchange.reply(200, record.public(), NO_STORE)


async def remove_tenant(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Remove a tenant that owns no keys and no users; operators only."""
    tenant = _named(exchange)
    await gate.identity.tenants.remove(tenant, by=caller)
    await gate.noted(exchange, caller, action="tenant.delete", target=tenant, tenant=tenant)
    await exchange.reply(204, headers=NO_STORE)


def _named(exchange: Exchange) -> str:
    return str(exchange.scope["path_params"]["tenant"])
