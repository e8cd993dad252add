"""Let a caller in: who it is, whether it may go on, and what it owes when it leaves."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Coroutine, Hashable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, TypeVar

from serve_app import auth
from serve_app.errors import (
    GateError,
    InvalidToken,
    StoreUnavailable,
    Unauthenticated,
    UnknownTenant,
)
from serve_app.ingress.bill import Bill
from serve_app.ingress.capturing import watched
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.gate import Gate
from serve_app.ingress.reading.body import without
from serve_app.ingress.reading.call import Call, read
from serve_app.ingress.reading.dialects import DIALECTS
from serve_app.ingress.told import LIMIT_HEADERS, limit_headers, over_limit
from serve_app.ingress.wish import MAX_WAIT, PRIORITY, Wish, wished
from serve_app.limits import Hold, State, Terms, nanos_per_token
from serve_app.settings import QueueClass

Found = TypeVar("Found")
SMALL_BODY_BYTES = 65_536
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
        named = exchange.header_lines(PRIORITY), exchange.header_lines(MAX_WAIT)
        exchange.wish = wished(*named, gate.classes)
        is_form = DIALECTS[path].form
        reading = exchange.form_body if is_form else exchange.json_body
        raw, fields = await reading(limits.max_body_bytes)
        exchange.wish = exchange.wish.or_tier(fields.get("service_tier"), gate.classes)
        more = {"media_type": exchange.media_type} if is_form else {}
        most = limits.max_prompt_chars
        return read(path, raw, fields, gate.catalogue, max_prompt_chars=most, **more), None
    except GateError as mistake:
        return None, mistake


async def _take_credential(gate: Gate, exchange: Exchange) -> None:
    """Take the credential out of the body; the engine never sees it."""
    if exchange.declared_bytes() > SMALL_BODY_BYTES or DIALECTS[exchange.scope["engine_path"]].form:
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
        queue_class = class_served(gate, caller, held, exchange.wish)
        if exchange.scope.get("by_engine"):
            _tell_limits(exchange, held)
            exchange.note_seat(queue_class.name, 0.0)
        yield Bill(caller, queue_class, held)
        return
    bill = await _held(gate, exchange, credential, call)
    try:
        _note(gate, exchange, call, bill)
        bill.caller.must_come_from(gate.address(exchange))
        if bill.held.refusing is not None:
            raise over_limit(bill.held, bill.held.refusing, call.demand.least_tokens)
        yield bill
    finally:
        await asyncio.shield(_kept(gate, _settle(gate, exchange, call, bill)))


async def _looked(gate: Gate, credential: auth.Credential) -> Hold:
    """Return what the store says of a caller that takes nothing.

    While it is away, a caller with a static key is still known: the gateway itself holds the key.
    """
    try:
        return await gate.holds.hold(credential)
    except StoreUnavailable:
        if credential.vouched is None or credential.token_id or credential.tenant_must_exist:
            raise
        return Hold(credential, State.KNOWN, now_us=time.time_ns() // 1_000)


async def _held(gate: Gate, exchange: Exchange, credential: auth.Credential, call: Call) -> Bill:
    """Return the bill of a call, let in or refused; its caller may rather wait than be refused.

    Each try has a name of its own: what undoes one does not settle another. Requests that wish for
    the same class share a turn, whatever wait each of them wishes.
    """
    exchange.notes["model"] = call.counts_as
    tries, wish = count(1), exchange.wish

    async def hold() -> Bill:
        held = await _hold(gate, credential, call, f"{exchange.settle_id}.{next(tries)}")
        bill = None
        try:
            caller = await _known(gate, exchange, credential, held)
            _tell_limits(exchange, held)
            bill = Bill(caller, class_served(gate, caller, held, wish.for_class), held)
        finally:
            if bill is None:
                await asyncio.shield(_kept(gate, gate.holds.settle(held)))
        return bill

    whose = turn_of(credential, call.counts_as, wish.class_)
    bill = await gate.patience.held(whose, hold, most_s=wish.max_wait_s)
    bill.queue_class = wish.shortened(bill.queue_class)
    return bill


def turn_of(credential: auth.Credential, model: str, wished: str | None = None) -> Hashable:
    """Return whose turn a request waits in: of whoever is proven alike, for one model and class."""
    proven = (credential.kind, credential.proof, credential.token_id, credential.user)
    return credential.tenant, credential.bucket, *proven, model, wished


def _tell_limits(exchange: Exchange, held: Hold) -> None:
    """Tell what is left, and nothing of what an earlier try was told."""
    for name in LIMIT_HEADERS:
        exchange.headers_out.pop(name, None)
    exchange.headers_out |= limit_headers(held)


def _note(gate: Gate, exchange: Exchange, call: Call, bill: Bill) -> None:
    """Note the wait for limits, and once if any shadow would have refused."""
    exchange.note_seat(bill.queue_class.name, bill.waited_ms)
    who, class_, now_us = bill.caller, bill.queue_class.name, bill.held.now_us
    if bill.held.would_refuse:
        gate.ledger.refused(who.tenant, who.key_id, call.counts_as, class_, now_us, shadow=True)


async def _hold(gate: Gate, credential: auth.Credential, call: Call, request: str) -> Hold:
    """Hold for a call; whoever leaves meanwhile takes nothing."""
    holding = asyncio.create_task(
        gate.holds.hold(
            credential,
            call.demand,
            model=call.counts_as,
            terms=Terms(call.output_cap, *nanos_per_token(call.model.prices)),
            request=request,
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
        _kept(gate, gate.holds.settle(holding.result()))


def _kept(gate: Gate, settling: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Return a task that goes on to its end, whoever waits for it or leaves."""
    task = asyncio.create_task(settling)
    gate.settling.add(task)
    task.add_done_callback(gate.settling.discard)
    return task


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
    watched(gate.captures, exchange, caller, held.now_us)
    exchange.notes |= {
        "tenant": caller.tenant,
        "key_id": caller.key_id,
        "credential": credential.how,
    }
    if credential.how is not auth.How.NONE:
        attempts.succeeded(address)
    return caller


def class_served(gate: Gate, caller: auth.Caller, held: Hold, wish: Wish) -> QueueClass:
    """Return the class in which ``caller`` waits, its tenant's ceiling kept.

    What the client wishes is one more ceiling, and shortens the wait.
    """
    tenant = auth.tenant_of(held.tenant_attributes, caller.tenant)
    ceilings = (caller.max_class, tenant.max_class, wish.class_)
    wanted = caller.class_ or tenant.class_
    return wish.shortened(gate.classes[auth.class_of(wanted, ceilings, list(gate.classes))])


async def _settle(gate: Gate, exchange: Exchange, call: Call, bill: Bill) -> None:
    """Charge what was used; if that cannot be told, all is given back."""
    used, charge = bill.usage, None
    exchange.notes |= {"input_tokens": used.input_tokens, "output_tokens": used.output_tokens}
    try:
        charge = bill.charge(call, exchange)
    finally:
        await gate.holds.settle(bill.held, charge)
