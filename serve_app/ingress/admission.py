"""Let a caller in: who it is, whether it may go on, and what it owes when it leaves."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

from serve_app import auth
from serve_app.errors import (
    GateError,
    InvalidToken,
    StoreUnavailable,
    Unauthenticated,
    UnknownTenant,
)
from serve_app.ingress.bill import Bill
from serve_app.ingress.body import without
from serve_app.ingress.call import Call, read
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.gate import Gate
from serve_app.ingress.told import limit_headers, over_limit
from serve_app.limits import Hold, State, Terms, nanos_per_token
from serve_app.settings import QueueClass

Found = TypeVar("Found")
SMALL_BODY_BYTES = 65_536
OWN_PASSWORD = "/v1/auth/password"
"""Where a good session does not clear what wrong passwords have counted."""

_WRONG = ("invalid_api_key", "invalid_token")


async def asked(gate: Gate, exchange: Exchange) -> tuple[Call | None, GateError | None]:
    """Return what is asked, or what is wrong with it.

    A well-formed credential is enough for a small body to be read: the hold will tell. A large one
    is read only for a caller that the store knows.

    Raises:
        Unauthenticated: nobody we know; a large body was not read for a stranger.
        TooManyAttempts: the same, from an address that is blocked.
        StoreUnavailable: a large body's caller cannot be told.
    """
    if gate.identity.authenticator.reads_bodies:
        await _take_credential(gate, exchange)
    if exchange.declared_bytes() > SMALL_BODY_BYTES:
        async with admitted(gate, exchange):
            pass
    await credential_of(gate, exchange)
    try:
        path = exchange.scope["engine_path"]
        limits = gate.settings.limits
        raw, fields = await exchange.json_body(limits.max_body_bytes)
        most = limits.max_prompt_chars
        return read(path, raw, fields, gate.models, max_prompt_chars=most), None
    except GateError as mistake:
        return None, mistake


async def _take_credential(gate: Gate, exchange: Exchange) -> None:
    """Take the credential out of the body; the engine never sees it."""
    if exchange.declared_bytes() > SMALL_BODY_BYTES:
        return  # the header alone decides whether it is read
    try:
        raw, fields = await exchange.json_body(SMALL_BODY_BYTES)
    except GateError:
        return  # it is told, once the caller is known
    if "api_key" in fields:
        exchange.body = without(raw, "api_key"), fields
        text = fields.pop("api_key")
        exchange.credential = await _counted(gate, exchange, _of_body(gate, exchange, text))


async def _of_body(gate: Gate, exchange: Exchange, text: object) -> auth.Credential | None:
    """Return the credential in a body, None if a header's goes before it."""
    shown, authenticator = auth.in_body(text), gate.identity.authenticator
    first = auth.find([*exchange.scope["headers"]], last=shown)
    return await authenticator.read(shown, now_s=time.time()) if first is shown else None


async def credential_of(gate: Gate, exchange: Exchange) -> auth.Credential:
    """Return the credential of ``exchange``, found once and before the store is asked.

    Raises:
        Unauthenticated: there is none, or none that is good.
        TooManyAttempts: the same, from an address that is blocked.
    """
    if exchange.credential is None:
        exchange.credential = await _counted(
            gate,
            exchange,
            gate.identity.authenticator.credential(
                exchange.scope["headers"],
                exchange.query,
                address=gate.address(exchange),
                now_s=time.time(),
            ),
        )
    return exchange.credential


async def _counted(gate: Gate, exchange: Exchange, finding: Awaitable[Found]) -> Found:
    """Return what ``finding`` finds; a wrong credential counts against its address."""
    try:
        return await finding
    except Unauthenticated as err:
        if err.code in _WRONG:
            blocked_s = gate.identity.attempts.failed_unseen(gate.address(exchange))
            if blocked_s:
                raise auth.too_many_attempts(blocked_s) from err
        raise


@asynccontextmanager
async def admitted(gate: Gate, exchange: Exchange, call: Call | None = None) -> AsyncIterator[Bill]:
    """Let a caller in; for a call, with one request of its limits, settled on the way out.

    Raises:
        Unauthenticated: nobody we know; nothing was taken.
        TooManyAttempts: the same, from an address that is blocked.
        AddressForbidden: it may not call from there; nothing counts.
        RateLimited: nothing was taken.
        StoreUnavailable: nobody can be let in.
    """
    credential = await credential_of(gate, exchange)
    if call is None:
        held = await _looked(gate, credential)
        caller = await _known(gate, exchange, credential, held)
        caller.must_come_from(gate.address(exchange))
        queue_class = class_served(gate, caller, held)
        if exchange.scope.get("engine_path"):
            exchange.headers_out |= limit_headers(held)
            exchange.note_seat(queue_class.name, 0.0)
        yield Bill(caller, queue_class, held)
        return
    bill = await _held(gate, exchange, credential, call)
    try:
        bill.caller.must_come_from(gate.address(exchange))
        if bill.held.refusing is not None:
            raise over_limit(bill.held, bill.held.refusing)
        yield bill
    finally:
        await asyncio.shield(asyncio.create_task(_settle(gate, exchange, call, bill)))


async def _looked(gate: Gate, credential: auth.Credential) -> Hold:
    """Return what the store says of a caller that takes nothing.

    While it is away, a caller with a static key is still known: the gateway itself holds the key.
    """
    try:
        return await gate.holds.hold(credential)
    except StoreUnavailable:
        if credential.vouched is None or credential.token_id or credential.tenant_must_exist:
            raise
        return Hold(credential, State.KNOWN)


async def _held(gate: Gate, exchange: Exchange, credential: auth.Credential, call: Call) -> Bill:
    """Return the bill of a call, let in or refused; its caller may rather wait than be refused."""
    exchange.notes["model"] = call.model.name

    async def hold() -> Bill:
        held = await _hold(gate, exchange, credential, call)
        caller = await _known(gate, exchange, credential, held)
        exchange.headers_out |= limit_headers(held)
        return Bill(caller, class_served(gate, caller, held), held)

    whose = f"{credential.tenant}:{credential.bucket}:{call.model.name}"
    bill = await gate.patience.held(whose, hold)
    exchange.note_seat(bill.queue_class.name, bill.waited_ms)
    who, class_, now_us = bill.caller, bill.queue_class.name, bill.held.now_us
    for _ in bill.held.would_refuse:
        gate.ledger.refused(who.tenant, who.key_id, call.model.name, class_, now_us, shadow=True)
    return bill


async def _hold(gate: Gate, exchange: Exchange, credential: auth.Credential, call: Call) -> Hold:
    """Hold for a call; whoever leaves meanwhile takes nothing."""
    model = call.model
    holding = asyncio.create_task(
        gate.holds.hold(
            credential,
            call.demand,
            model=model.name,
            terms=Terms(call.output_cap, *nanos_per_token(model.prices)),
            request=exchange.settle_id,
        )
    )
    try:
        return await asyncio.shield(holding)
    except asyncio.CancelledError:
        holding.add_done_callback(lambda done: _undo(gate, done))
        raise


def _undo(gate: Gate, holding: asyncio.Task[Hold]) -> None:
    """Give back what was held for a client that had left; without a store, time gives it back."""
    if not holding.cancelled() and holding.exception() is None:
        settling = asyncio.get_running_loop().create_task(gate.holds.settle(holding.result()))
        gate.settling.add(settling)
        settling.add_done_callback(gate.settling.discard)


async def _known(
    gate: Gate, exchange: Exchange, credential: auth.Credential, held: Hold
) -> auth.Caller:
    """Return the caller whom the store knows; a wrong credential counts against its address."""
    address, attempts = gate.address(exchange), gate.identity.attempts
    if held.state is State.NO_TENANT:
        raise UnknownTenant(f"There is no tenant '{credential.tenant}'.", param="tenant")
    if held.state is State.REVOKED:
        raise InvalidToken("This token was revoked, or its user may no longer log in.")
    if held.state is State.UNKNOWN:
        if blocked_s := await attempts.failed(address):
            raise auth.too_many_attempts(blocked_s)
        raise auth.unknown_key()
    exchange.held = held
    caller = auth.identified(credential, held.attributes)
    exchange.notes |= {
        "tenant": caller.tenant,
        "key_id": caller.key_id,
        "credential": credential.how,
    }
    guessing = exchange.scope.get("route_path") == OWN_PASSWORD
    if credential.how is not auth.How.NONE and not guessing:
        attempts.succeeded(address)
    return caller


def class_served(gate: Gate, caller: auth.Caller, held: Hold) -> QueueClass:
    """Return the class in which ``caller`` waits, its tenant's ceiling kept."""
    tenant = auth.tenant_of(held.tenant_attributes, caller.tenant)
    ceilings = (caller.max_class, tenant.max_class)
    wanted = caller.class_ or tenant.class_
    return gate.classes[auth.class_of(wanted, ceilings, list(gate.classes))]


async def _settle(gate: Gate, exchange: Exchange, call: Call, bill: Bill) -> None:
    tokens = {"input_tokens": bill.usage.input_tokens, "output_tokens": bill.usage.output_tokens}
    exchange.notes |= tokens
    await gate.holds.settle(bill.held, bill.charge(call, exchange))
