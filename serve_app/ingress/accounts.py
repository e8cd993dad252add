"""Users, logins and visitors over HTTP.

Logs name a user by ``user-<id>``: its name may be an e-mail address.
"""

import time
from collections.abc import Mapping
from typing import Any, NoReturn, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from serve_app.auth import PAGE_MAX, Caller
from serve_app.auth.user import (
    LoginRequest,
    PasswordRequest,
    UserChange,
    UserRequest,
    rfc3339,
)
from serve_app.auth.users import Session, Users, refused_login
from serve_app.auth.visitors import VisitorRequest, Visitors
from serve_app.errors import Forbidden, GateError, InvalidLogin, InvalidRequest, TooManyAttempts
from serve_app.ingress.address import UNKNOWN
from serve_app.ingress.admin import NO_STORE, PAGE, _mistake, _number, _tenant
from serve_app.ingress.exchange import Exchange

LOGIN_BODY_BYTES = 8_192
VISITOR_BODY_BYTES = 16_384
USER_BODY_BYTES = 65_536
Request = TypeVar("Request", bound=BaseModel)


class Attempts(Protocol):
    """Who showed wrong credentials."""

    def blocked_s(self, address: str) -> float:
        """Return for how many seconds ``address`` is still refused."""

    async def failed(self, address: str) -> float:
        """Note a wrong credential; return for how many seconds ``address`` is refused."""

    def succeeded(self, address: str) -> None:
        """Forget what ``address`` did wrong."""


class AccountsGate(Protocol):
    """What these handlers need of the gate."""

    @property
    def users(self) -> Users: ...  # noqa: D102 - the names say it
    @property
    def visitors(self) -> Visitors: ...  # noqa: D102
    @property
    def attempts(self) -> Attempts: ...  # noqa: D102

    def address(self, exchange: Exchange) -> str:
        """Return where ``exchange`` comes from."""

    def user_name(self, exchange: Exchange) -> str | None:
        """Return the name of the user whose session ``exchange`` shows; None for other callers."""

    async def revoke(self, exchange: Exchange, caller: Caller) -> bool:
        """End the token that ``exchange`` shows; False if it shows something else."""

    async def noted(  # noqa: PLR0913 - what an audit entry holds
        self,
        exchange: Exchange,
        caller: Caller | None,
        *,
        action: str,
        result: str,
        target: str = "",
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> None:
        """Write to the audit what was done, or tried."""


async def login(gate: AccountsGate, exchange: Exchange) -> None:
    """Answer a session for user name and password."""
    _must_not_be_blocked(gate, exchange)
    request = await _asked(exchange, LoginRequest, LOGIN_BODY_BYTES)
    user, session = await gate.users.login(request)
    if user is None or session is None:
        target = user.key_id if user else ""
        await _failed(gate, exchange, refused_login(), action="login", target=target)
    await _let_in(gate, exchange, user.caller(), session, action="login")


async def visitor(gate: AccountsGate, exchange: Exchange) -> None:
    """Answer a short session for a solved captcha."""
    gate.visitors.service()  # without one there is no such route
    _must_not_be_blocked(gate, exchange)
    request = await _asked(exchange, VisitorRequest, VISITOR_BODY_BYTES)
    address = gate.address(exchange)
    remote = None if address == UNKNOWN else address
    try:
        caller, session = await gate.visitors.admit(request, address=remote, now_s=time.time())
    except InvalidLogin as refused:
        await _failed(gate, exchange, refused, action="visitor")
    await _let_in(gate, exchange, caller, session, action="visitor")


async def logout(gate: AccountsGate, exchange: Exchange, caller: Caller) -> None:
    """End the session that the request shows."""
    if not await gate.revoke(exchange, caller):
        raise InvalidRequest("Only a token can log out; a key is revoked instead.")
    await gate.noted(exchange, caller, action="logout", result="ok", target=caller.key_id)
    await exchange.reply(204, headers=NO_STORE)


async def change_password(gate: AccountsGate, exchange: Exchange, caller: Caller) -> None:
    """Change one's own password; every older session ends, the answer is a new one."""
    _must_not_be_blocked(gate, exchange)
    name = gate.user_name(exchange)
    if name is None:
        raise Forbidden("Only a user who has logged in can change its password.")
    request = await _asked(exchange, PasswordRequest, USER_BODY_BYTES)
    session = await gate.users.change_password(name, request, by=caller)
    if session is None:
        wrong = InvalidLogin("The old password is wrong.", param="old_password")
        await _failed(gate, exchange, wrong, action="user.password", target=caller.key_id)
    await _let_in(gate, exchange, caller, session, action="user.password")


async def create_user(gate: AccountsGate, exchange: Exchange, caller: Caller) -> None:
    """Make a user."""
    request = await _asked(exchange, UserRequest, USER_BODY_BYTES)
    made = await gate.users.create(request, by=caller)
    exchange.notes["made_user"] = made.key_id
    await gate.noted(
        exchange,
        caller,
        action="user.create",
        result="ok",
        target=made.key_id,
        after=made.audited(),
    )
    await exchange.reply(201, made.public(), NO_STORE)


async def list_users(gate: AccountsGate, exchange: Exchange, caller: Caller) -> None:
    """List a tenant's users, oldest first: ``tenant``, ``limit`` (1 to 1000), ``after``."""
    size = _number(exchange.query.get("limit", str(PAGE)), "limit", low=1, high=PAGE_MAX)
    after = _number(exchange.query.get("after", "0"), "after", low=0, high=2**62)
    tenant = _tenant(exchange, caller)
    records, following = await gate.users.listed(tenant, by=caller, after_us=after, size=size)
    said = {
        "object": "list",
        "data": [record.public() for record in records],
        "has_more": following > 0,
        "after": str(following) if following else None,
    }
    await exchange.reply(200, said, NO_STORE)


async def get_user(gate: AccountsGate, exchange: Exchange, caller: Caller) -> None:
    """Show one user."""
    record = await gate.users.get(_named(exchange), by=caller)
    await exchange.reply(200, record.public(), NO_STORE)


async def update_user(gate: AccountsGate, exchange: Exchange, caller: Caller) -> None:
    """Change what the body names of a user, in force for its next request."""
    change = await _asked(exchange, UserChange, USER_BODY_BYTES)
    before, after = await gate.users.update(_named(exchange), change, by=caller)
    was, now = before.audited(), after.audited()
    differs = [name for name in now if was[name] != now[name]]
    renewed = {"password": "changed"} if change.password else {}
    await gate.noted(
        exchange,
        caller,
        action="user.update",
        result="ok",
        target=after.key_id,
        before={name: was[name] for name in differs},
        after={name: now[name] for name in differs} | renewed,
    )
    await exchange.reply(200, after.public(), NO_STORE)


async def remove_user(gate: AccountsGate, exchange: Exchange, caller: Caller) -> None:
    """Remove a user; its next request is refused."""
    gone = await gate.users.remove(_named(exchange), by=caller)
    await gate.noted(
        exchange,
        caller,
        action="user.remove",
        result="ok",
        target=gone.key_id,
        before=gone.audited(),
    )
    await exchange.reply(204, headers=NO_STORE)


def _named(exchange: Exchange) -> str:
    return str(exchange.scope["path_params"]["name"])


async def _asked(exchange: Exchange, kind: type[Request], max_bytes: int) -> Request:
    """Return what the body asks for; the reply, whatever it will be, is not to be kept."""
    exchange.headers_out |= NO_STORE
    raw, fields = await exchange.json_body(max_bytes)
    try:
        return kind.model_validate_json(raw)
    except ValidationError as err:
        raise _mistake(err, fields) from None


def _must_not_be_blocked(gate: AccountsGate, exchange: Exchange) -> None:
    """Return if the address may still try; nothing is read or hashed for one that may not."""
    left_s = gate.attempts.blocked_s(gate.address(exchange))
    if left_s:
        raise _too_many(left_s)


async def _failed(
    gate: AccountsGate,
    exchange: Exchange,
    refusal: GateError,
    *,
    action: str,
    target: str = "",
) -> NoReturn:
    """Count a wrong credential against the address and refuse.

    Raises:
        TooManyAttempts: it was one too many.
        GateError: ``refusal``.
    """
    left_s = await gate.attempts.failed(gate.address(exchange))
    await gate.noted(exchange, None, action=action, result=refusal.code, target=target)
    raise _too_many(left_s) if left_s else refusal


def _too_many(left_s: float) -> TooManyAttempts:
    return TooManyAttempts(
        f"Too many wrong credentials from this address; try again in {left_s:.0f} s.",
        retry_after_s=left_s,
    )


async def _let_in(
    gate: AccountsGate, exchange: Exchange, caller: Caller, session: Session, *, action: str
) -> None:
    """Answer with a new session."""
    gate.attempts.succeeded(gate.address(exchange))
    exchange.notes |= {"tenant": caller.tenant, "key_id": caller.key_id}
    await gate.noted(exchange, caller, action=action, result="ok", target=caller.key_id)
    said = {
        "token": session.token,
        "token_type": "Bearer",
        "expires_at": rfc3339(session.ends_s * 1_000),
    }
    await exchange.reply(200, said, NO_STORE)
