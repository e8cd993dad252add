"""Let a caller in: who it is, whether it may go on, and what it owes when it leaves."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from serve_app import auth
from serve_app.errors import (
    GateError,
    InvalidToken,
    RateLimited,
    Unauthenticated,
    UnknownTenant,
)
from serve_app.ingress.body import without
from serve_app.ingress.call import Call, read
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.gate import Gate
from serve_app.limits import Hold, Outcome, State, Usage
from serve_app.settings import QueueClass

Found = TypeVar("Found")
SMALL_BODY_BYTES = 65_536
SECOND_US = 1_000_000
OWN_PASSWORD = "/v1/auth/password"
"""Where a good session does not clear what wrong passwords have counted."""

_WRONG = ("invalid_api_key", "invalid_token")


@dataclass(slots=True)
class Bill:
    """What one admitted request owes; settled when it leaves the page.

    Attributes:
        caller: who sent it.
        queue_class: the class it waits in.
        held: what the store said.
        outcome: returned, until an engine's first byte makes it used.
        usage: tokens, as far as they are known.
    """

    caller: auth.Caller
    queue_class: QueueClass
    held: Hold
    outcome: Outcome = Outcome.RETURNED
    usage: Usage = field(default_factory=Usage)

    def left(self, input_estimate: int) -> None:
        """Note that the client left while an engine worked for it: that counts."""
        self.outcome = Outcome.USED
        self.usage.input_tokens = self.usage.input_tokens or input_estimate


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
    held = await gate.holds.hold(credential, cost=0 if call is None else 1)
    caller = await _known(gate, exchange, credential, held)
    if call is not None:
        exchange.notes["model"] = call.model.name
        exchange.headers_out |= limit_headers(held)
        if not held.allowed:
            raise over_limit(held)
    bill = Bill(caller, class_served(gate, caller, held), held)
    try:
        caller.must_come_from(gate.address(exchange))
        yield bill
    finally:
        if call is not None:
            settling = _settle(gate, exchange, call.model.name, bill)
            await asyncio.shield(asyncio.create_task(settling))


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


async def _settle(gate: Gate, exchange: Exchange, model: str, bill: Bill) -> None:
    exchange.notes |= {
        "input_tokens": bill.usage.input_tokens,
        "output_tokens": bill.usage.output_tokens,
    }
    await gate.holds.settle(
        bill.held,
        request_id=exchange.settle_id,
        model=model,
        outcome=bill.outcome,
        usage=bill.usage,
    )


def over_limit(held: Hold) -> RateLimited:
    """Return the refusal of a hold that was not allowed."""
    who = "This caller" if held.scope == "key" else "This tenant"
    scope = f"{held.scope}:requests_per_minute"
    if held.limit_rpm == 0:
        return RateLimited(f"{who} may send no requests.", refused_by=scope)
    return RateLimited(
        f"{who} may send {held.limit_rpm} requests a minute; the next one passes in "
        f"{held.retry_after_us / 1e6:.3g} s.",
        retry_after_s=held.retry_after_us / 1e6,
        refused_by=scope,
    )


def limit_headers(held: Hold) -> dict[str, str]:
    """Return what is left of the tighter limit, in OpenAI's headers."""
    return {
        "x-ratelimit-limit-requests": str(held.limit_rpm),
        "x-ratelimit-remaining-requests": str(held.remaining),
        "x-ratelimit-reset-requests": span(held.reset_after_us),
    }


def span(us: int) -> str:
    """Return a time as OpenAI's headers write it, rounded up: ``850ms``, ``12s``, ``6m0s``."""
    if us < SECOND_US:
        return f"{-(-us // 1_000)}ms"
    minutes, seconds = divmod(-(-us // SECOND_US), 60)
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
