"""Users, logins and visitors over HTTP.

Logs name a user by ``user-<id>``: its name may be an e-mail address.
"""

import time
from typing import NoReturn

from serve_app import auth
from serve_app.auth import Caller, Session
from serve_app.errors import Forbidden, GateError, InvalidLogin, InvalidRequest
from serve_app.ingress.address import UNKNOWN
from serve_app.ingress.admin.asked import (
    NO_STORE,
    body_as,
    must_be_tenant,
    page_asked,
    reply_page,
    tenant_asked,
)
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.gate import Gate

LOGIN_BODY_BYTES = 8_192
VISITOR_BODY_BYTES = 16_384


async def login(gate: Gate, exchange: Exchange) -> None:
    """Answer a session for user name and password."""
    _must_not_be_blocked(gate, exchange)
    request = await body_as(auth.LoginRequest, exchange, LOGIN_BODY_BYTES)
    user, session = await gate.identity.users.login(request)
    if user is None or session is None:
        about = {"target": user.key_id, "tenant": user.tenant} if user else {}
        await _failed(gate, exchange, auth.refused_login(), action="login", **about)
    _must_not_be_blocked(gate, exchange)  # others may have guessed while this one was hashed
    await _let_in(gate, exchange, user.caller(), session, action="login")


async def visitor(gate: Gate, exchange: Exchange) -> None:
    """Answer a short session for a solved captcha."""
    gate.identity.visitors.service()  # without one there is no such route
    _must_not_be_blocked(gate, exchange)
    request = await body_as(auth.VisitorRequest, exchange, VISITOR_BODY_BYTES)
    address = gate.address(exchange)
    remote = None if address == UNKNOWN else address
    try:
        caller, session = await gate.identity.visitors.admit(
            request, address=remote, now_s=time.time()
        )
    except InvalidLogin as refused:
        await _failed(gate, exchange, refused, action="visitor")
    await _let_in(gate, exchange, caller, session, action="visitor")


async def logout(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """End the token that the request shows; its next request is refused."""
    shown = exchange.credential
    if shown is None or not shown.token_id:
        raise InvalidRequest("Only a token can log out; a key is revoked instead.")
    ttl_s = max(1, shown.token_expires_s - int(time.time()))
    await gate.identity.revocations.revoke(shown.tenant, shown.token_id, ttl_s=ttl_s)
    await gate.noted(exchange, caller, action="logout", target=caller.key_id)
    await exchange.reply(204, headers=NO_STORE)


async def revoke_token(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """End a token by its issuer and ``jti``; its next request is refused."""
    request = await body_as(auth.RevocationRequest, exchange)
    if not gate.identity.issuers.knows(request.issuer):
        raise InvalidRequest("'issuer': no tokens of that issuer are believed.", param="issuer")
    await must_be_tenant(gate, request.tenant or caller.tenant, caller)
    tenant = await gate.identity.revocations.revoke_named(request, by=caller)
    about = {"issuer": request.issuer, "jti": request.jti}
    await gate.noted(exchange, caller, action="token.revoke", tenant=tenant, after=about)
    await exchange.reply(204, headers=NO_STORE)


async def change_password(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Change one's own password; every older session ends, the answer is a new one."""
    _must_not_be_blocked(gate, exchange)
    shown = exchange.credential
    name = shown.user if shown else None
    if name is None:
        raise Forbidden("Only a user who has logged in can change its password.")
    request = await body_as(auth.PasswordRequest, exchange)
    session = await gate.identity.users.change_password(name, request, by=caller)
    if session is None:
        wrong = InvalidLogin("The old password is wrong.", param="old_password")
        await _failed(gate, exchange, wrong, action="user.password", target=caller.key_id)
    await _let_in(gate, exchange, caller, session, action="user.password")


async def create_user(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Make a user."""
    request = await body_as(auth.UserRequest, exchange)
    made = await gate.identity.users.create(request, by=caller)
    exchange.notes["made_user"] = made.key_id
    await gate.noted(
        exchange,
        caller,
        action="user.create",
        target=made.key_id,
        tenant=made.tenant,
        after=made.audited(),
    )
    await exchange.reply(201, made.public(), NO_STORE)


async def list_users(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """List a tenant's users, oldest first: ``tenant``, ``limit`` (1 to 1000), ``after``."""
    after, size = page_asked(exchange)
    tenant = await tenant_asked(gate, exchange, caller)
    found, following = await gate.identity.users.listed(tenant, by=caller, after=after, size=size)
    await reply_page(exchange, [record.public() for record in found], following)


async def get_user(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Show one user."""
    record = await gate.identity.users.get(_named(exchange), by=caller)
    await exchange.reply(200, record.public(), NO_STORE)


async def update_user(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Change what the body names of a user, in force for its next request."""
    change = await body_as(auth.UserChange, exchange)
    before, after = await gate.identity.users.update(_named(exchange), change, by=caller)
    was, now = before.audited(), after.audited()
    differs = [name for name in now if was[name] != now[name]]
    renewed = {"password": "changed"} if change.password else {}
    await gate.noted(
        exchange,
        caller,
        action="user.update",
        target=after.key_id,
        tenant=after.tenant,
        before={name: was[name] for name in differs},
        after={name: now[name] for name in differs} | renewed,
    )
    await exchange.reply(200, after.public(), NO_STORE)


async def remove_user(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Remove a user; its next request is refused."""
    gone = await gate.identity.users.remove(_named(exchange), by=caller)
    await gate.noted(
        exchange,
        caller,
        action="user.delete",
        target=gone.key_id,
        tenant=gone.tenant,
        before=gone.audited(),
    )
    await exchange.reply(204, headers=NO_STORE)


def _named(exchange: Exchange) -> str:
    return str(exchange.scope["path_params"]["name"])


def _must_not_be_blocked(gate: Gate, exchange: Exchange) -> None:
    """Return if the address may still try; nothing is read or hashed for one that may not."""
    attempts, address = gate.identity.attempts, gate.address(exchange)
    left_s = max(attempts.blocked_s(address), attempts.blocked_s(address, auth.PASSWORDS))
    if left_s:
        raise auth.too_many_attempts(left_s)


async def _failed(
    gate: Gate,
    exchange: Exchange,
    refusal: GateError,
    *,
    action: str,
    **about: str,
) -> NoReturn:
    """Count a wrong credential against the address and refuse.

    Raises:
        TooManyAttempts: it was one too many.
        GateError: ``refusal``.
    """
    await gate.noted(exchange, None, action=action, result=refusal.code, **about)
    left_s = await gate.identity.attempts.failed(gate.address(exchange), auth.PASSWORDS)
    raise auth.too_many_attempts(left_s) if left_s else refusal


async def _let_in(
    gate: Gate, exchange: Exchange, caller: Caller, session: Session, *, action: str
) -> None:
    """Answer with a new session."""
    for what in ("", auth.PASSWORDS):
        gate.identity.attempts.succeeded(gate.address(exchange), what)
    exchange.notes |= {"tenant": caller.tenant, "key_id": caller.key_id}
    await gate.noted(exchange, caller, action=action, target=caller.key_id)
    said = {
        "token": session.token,
        "token_type": "Bearer",
        "expires_at": auth.rfc3339(session.ends_s * 1_000),
    }
    await exchange.reply(200, said, NO_STORE)
