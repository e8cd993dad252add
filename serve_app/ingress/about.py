"""What the gate says of itself: health, figures and models."""

import asyncio
from typing import Any

from serve_app.auth import Caller, Credential, rfc3339
from serve_app.ingress.admin.asked import NO_STORE
from serve_app.ingress.admission import class_served
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.gate import Gate
from serve_app.ingress.reading.catalogue import may_ask
from serve_app.ingress.told import shown
from serve_app.limits import Hold, Said
from serve_app.model_settings import Model
from serve_app.telemetry import MEDIA

LOOKS_AT_ONCE = 16
"""Models whose limits are looked at at once for one caller."""


async def health(gate: Gate, exchange: Exchange) -> None:
    """Answer that this gateway lives, and whether it lets everyone in."""
    open_to_all = {"auth": "disabled"} if gate.identity.authenticator.disabled else {}
    await exchange.reply(200, {"status": "ok", **open_to_all})


async def ready(gate: Gate, exchange: Exchange) -> None:
    """Answer 200 if the store is well and the models have replicas or may sleep, else 503.

    One that cannot be started takes none of the others down: it is told, as ``degraded``.
    """
    states = {name: _state(gate, model) for name, model in gate.models.items()}
    store = gate.metrics.store_state
    if store == "ok" and not gate.line.tended:
        store = "unknown"
    alone = store != "ok" and gate.holds.may_judge_alone
    failing = [state == "failing" for state in states.values()]
    fine = (store == "ok" or alone) and "starting" not in states.values() and not all(failing)
    said = {
        "status": ("degraded" if any(failing) else "ready") if fine else "not ready",
        "store": store,
        "on_loss": gate.settings.store.on_loss,
        "models": states,
    }
    if gate.metrics.store_message is not None:
        said["store_message"] = gate.metrics.store_message
    later = {} if fine else {"retry-after": "1", "x-refused-by": "not_ready"}
    await exchange.reply(200 if fine else 503, said, later)


async def metrics(gate: Gate, exchange: Exchange, _caller: Caller) -> None:
    """Tell this gateway's figures in Prometheus's text format; others tell their own."""
    await exchange.start(200, {"content-type": MEDIA, **NO_STORE})
    await exchange.write(gate.metrics.text(), more=False)


def _state(gate: Gate, model: Model) -> str:
    load = gate.line.loads[model.name]
    if load.replicas:
        return "ready"
    if load.failing:
        return "failing"
    return "asleep" if model.autoscaling.min_replicas == 0 else "starting"


async def models(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """List the models that the caller may use, with their aliases and adapters."""
    usable = [_shown(gate, name) for name in gate.catalogue.usable(caller)]
    await exchange.reply(200, {"object": "list", "data": usable})


async def model(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Show one model.

    Raises:
        NoSuchModel: there is none of that name.
        ModelForbidden: the caller may not use it.
    """
    name = exchange.scope["path_params"]["model"]
    found = gate.catalogue.must_have(name)
    if not may_ask(caller, name, found):
        caller.must_use(name)
    await exchange.reply(200, _shown(gate, name))


async def whoami(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Tell the caller who it is, what it may do and what is left of every limit."""
    held, credential = exchange.held, exchange.credential
    assert held is not None
    assert credential is not None
    cidrs = caller.networks
    said = {
        "id": caller.key_id,
        "credential": credential.how,
        "tenant": caller.tenant,
        "all_tenants": caller.operator,
        "permissions": sorted(caller.permissions),
        "models": None if caller.models is None else sorted(caller.models),
        "endpoints": None if caller.endpoints is None else sorted(caller.endpoints),
        "allowed_addresses": None if cidrs is None else [str(cidr) for cidr in cidrs],
        "class": class_served(gate, caller, held, exchange.wish).name,
        "max_class": caller.max_class,
        "weight": caller.weight,
        "expires_at": rfc3339(credential.token_expires_s * 1_000 or caller.expires_ms),
        "over_limit": "wait" if caller.over_limit_waits else "refuse",
        "limits": [shown(one, said) for one, said in await _limits(gate, credential, held, caller)],
    }
    await exchange.reply(200, said, NO_STORE)


async def _limits(
    gate: Gate, credential: Credential, held: Hold, caller: Caller
) -> list[tuple[Hold, Said]]:
    """Return every limit that binds the caller, those on single models last."""
    usable = gate.catalogue.counting(caller)
    few = asyncio.Semaphore(LOOKS_AT_ONCE)

    async def look(name: str) -> Hold:
        async with few:
            return await gate.holds.hold(credential, model=name)

    looks = await asyncio.gather(*map(look, usable))
    told = [(held, said) for said in held.said]
    return told + [
        (look, said) for look in looks for said in look.said if said.scope.endswith("_model")
    ]


def _shown(gate: Gate, name: str) -> dict[str, Any]:
    return {**gate.catalogue.card(name), "state": _state(gate, gate.catalogue[name])}
