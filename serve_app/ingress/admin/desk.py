"""The operators' desk: who waits for which model, who is sent away, and which line stands still.

All tenants share a model's line. Whoever has the permission sees how long it is; only operators see
and touch what is another tenant's, and only they pause, resume or drain it.
"""

import asyncio
from typing import Any

from serve_app.auth import Caller
from serve_app.errors import Forbidden, NoSuchModel, NoSuchTicket
from serve_app.ingress.admin.asked import NO_STORE
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.gate import Gate
from serve_app.queueing import ClassLoad, Load, Waiting

SHOWN_MAX = 100
SOUGHT_MAX = 1_000
"""Tickets, class by class, among which the oldest that a caller may see are sought."""

LOOKS_AT_ONCE = 16


async def show_lines(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Show each model's line as the store has it now: its mode, seats and who waits, by class."""
    usable = [name for name in gate.models if caller.may_use(name)]
    few = asyncio.Semaphore(LOOKS_AT_ONCE)

    async def look(model: str) -> dict[str, Any]:
        async with few:
            return figures(model, await gate.line.look(model))

    await exchange.reply(200, {"models": await asyncio.gather(*map(look, usable))}, NO_STORE)


async def show_line(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Show one model's line, and the oldest hundred that wait; of other tenants to operators only.

    Raises:
        NoSuchModel: there is none of that name.
        ModelForbidden: the caller may not use it.
    """
    assert exchange.held is not None
    model, now_us = _named(gate, exchange, caller, "model_or_ticket"), exchange.held.now_us
    looking = gate.line.look(model), gate.line.waiting(model, SOUGHT_MAX)
    load, waiting = await asyncio.gather(*looking)
    seen = [one for one in waiting if _is_theirs(one, caller)]
    oldest = sorted(seen, key=lambda one: one.arrived_us)[:SHOWN_MAX]
    tickets = [shown(one, now_us) for one in oldest]
    await exchange.reply(200, {**figures(model, load), "tickets": tickets}, NO_STORE)


async def pause(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Seat nobody any more; who comes waits as long as it may. Operators only.

    Raises:
        NoSuchModel: there is none of that name.
        ModelForbidden: the caller may not use it.
    """
    await _set_mode(gate, exchange, caller, "pause", "paused")


async def resume(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Let the line go on as usual, whether it was paused or drained. Operators only.

    Raises:
        NoSuchModel: there is none of that name.
        ModelForbidden: the caller may not use it.
    """
    await _set_mode(gate, exchange, caller, "resume", "open")


async def drain(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Serve those who wait and refuse who comes, with 503. Operators only.

    Raises:
        NoSuchModel: there is none of that name.
        ModelForbidden: the caller may not use it.
    """
    await _set_mode(gate, exchange, caller, "drain", "draining")


async def cancel(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Take a waiting request out of the line; it is answered 429 ``queue_cancelled``.

    Raises:
        NoSuchTicket: it does not wait, or is another tenant's and the caller is no operator.
    """
    ticket = str(exchange.scope["path_params"]["model_or_ticket"])
    found = await gate.line.whose(ticket)
    mine = found is not None and _is_theirs(found, caller) and caller.may_use(found.model)
    sent_away = await gate.line.cancel(ticket) if mine else None
    if found is None or sent_away is None:
        raise NoSuchTicket(f"No request waits in line with the ticket '{ticket[:64]}'.")
    model, tenant, key = sent_away
    was = {"model": model, "class": found.class_, "key": key}
    await gate.noted(
        exchange, caller, action="queue.cancel", target=ticket, tenant=tenant, before=was
    )
    await exchange.reply(204, headers=NO_STORE)


async def _set_mode(gate: Gate, exchange: Exchange, caller: Caller, verb: str, mode: str) -> None:
    """Set the mode of the line that the path names; a second time, nothing changes.

    Raises:
        Forbidden: the caller is no operator.
    """
    if not caller.operator:
        raise Forbidden(f"All tenants share this line: only the platform's operators {verb} it.")
    model = _named(gate, exchange, caller, "model")
    before = await gate.line.set_mode(model, mode)
    await gate.noted(
        exchange,
        caller,
        action=f"queue.{verb}",
        target=model,
        before={"mode": before},
        after={"mode": mode},
    )
    await exchange.reply(200, figures(model, await gate.line.look(model)), NO_STORE)


def _named(gate: Gate, exchange: Exchange, caller: Caller, field: str) -> str:
    """Return the model that ``field`` of the path names."""
    model = str(exchange.scope["path_params"][field])
    if model not in gate.models:
        raise NoSuchModel(f"The model '{model[:128]}' does not exist.", param="model")
    caller.must_use(model)
    return model


def _is_theirs(one: Waiting, caller: Caller) -> bool:
    return caller.operator or one.tenant == caller.tenant


def figures(model: str, load: Load) -> dict[str, Any]:
    """Return what is told of a model's line."""
    return {
        "model": model,
        "mode": load.mode,
        "replicas": load.replicas,
        "seats": load.seats,
        "running": load.running,
        "waiting": load.waiting,
        "drain_per_s": round(load.drain_per_s, 3),
        "classes": [_class_figures(one) for one in load.classes],
    }


def _class_figures(one: ClassLoad) -> dict[str, Any]:
    wait_ms = one.predicted_wait_ms
    return {
        "class": one.name,
        "waiting": one.waiting,
        "running_in_class": one.running,
        "waiting_bytes": one.waiting_bytes,
        "oldest_s": round(one.oldest_ms / 1e3, 3),
        "predicted_wait_s": None if wait_ms is None else round(wait_ms / 1e3, 3),
    }


def shown(one: Waiting, now_us: int) -> dict[str, Any]:
    """Return what is told of a ticket at ``now_us``: how long it has waited, and may yet."""
    return {
        "ticket": one.ticket,
        "class": one.class_,
        "tenant": one.tenant,
        "key": one.caller,
        "waited_s": round(max(0, now_us - one.arrived_us) / 1e6, 3),
        "deadline_s": round(max(0, one.deadline_us - now_us) / 1e6, 3),
        "cost_tokens": one.cost_tokens,
        "bytes": one.body_bytes,
    }
