"""The gate's own tokens: users who logged in, visitors who solved a captcha.

Signed with HS256 under a random secret that all gateways share, so that one reads what another
made. They are JWTs like those of any issuer, and are verified by the same lines.
"""

import secrets
from ipaddress import ip_network
from typing import Self

import jwt
import msgspec

from serve_app.auth.caller import PERMISSIONS, Caller
from serve_app.auth.tokens.claims import Verified, token_id_of
from serve_app.auth.tokens.signature import secret_key
from serve_app.auth.tokens.token import Token, Window
from serve_app.errors import InvalidToken

ISSUER = "sluicegate"
"""The ``iss`` and ``aud`` of a session."""


class _Told(msgspec.Struct, omit_defaults=True):
    """What a session says of its bearer; a newer gateway may say more."""

    tenant: str
    key_id: str
    ims: int
    user: str | None = None
    permissions: frozenset[str] = frozenset()
    models: frozenset[str] | None = None
    endpoints: frozenset[str] | None = None
    networks: tuple[str, ...] | None = None
    class_: str | None = msgspec.field(default=None, name="class")
    max_class: str | None = None
    weight: float | None = None
    limits: str | None = None

    @classmethod
    def of_user(cls, user: str, caller: Caller, now_ms: int) -> Self:
        """Return a user's session: who it is; what he may is in his record."""
        return cls(caller.tenant, caller.key_id, now_ms, user)

    @classmethod
    def of_visitor(cls, caller: Caller, now_ms: int, limits: str | None) -> Self:
        """Return a visitor's session: all there is of him."""
        return cls(
            caller.tenant,
            caller.key_id,
            now_ms,
            permissions=caller.permissions,
            models=caller.models,
            endpoints=caller.endpoints,
            networks=None if caller.networks is None else tuple(map(str, caller.networks)),
            class_=caller.class_,
            max_class=caller.max_class,
            weight=caller.weight,
            limits=limits,
        )

    def caller(self, expires_s: float) -> Caller:
        """Return whom a session is about, never an operator.

        Raises:
            ValueError: a network is none.
        """
        return Caller(
            self.tenant,
            self.key_id,
            self.permissions & PERMISSIONS,
            self.models,
            endpoints=self.endpoints,
            networks=None if self.networks is None else tuple(map(ip_network, self.networks)),
            class_=self.class_,
            max_class=self.max_class,
            weight=self.weight,
            expires_ms=int(expires_s * 1_000),
        )


def new_secret() -> str:
    """Return a secret for all gateways to share, 256 bits."""
    return secrets.token_urlsafe(32)


class Sessions:
    """Makes the gate's own tokens and reads them.

    Args:
        secret: from :func:`new_secret`, the same in every gateway.

    Raises:
        ValueError: the secret is too short.
    """

    def __init__(self, secret: str) -> None:
        self.key = secret_key(secret)

    def issue(
        self,
        caller: Caller,
        *,
        user: str | None = None,
        limits: str | None = None,
        ttl_s: int,
        now_s: float,
    ) -> tuple[str, int]:
        """Return a new token and when it ends, seconds since the epoch.

        Args:
            caller: whose it is. Of a user's, the tenant and key id are kept; of a visitor's, all
                but ``operator``.
            user: the user whose record decides what the token may; None for a visitor.
            limits: a visitor's, as steps read them.
            ttl_s: how long it is good for.
            now_s: now, seconds since the epoch.
        """
        now_ms = int(now_s * 1_000)
        if user is not None:
            told = _Told.of_user(user, caller, now_ms)
        else:
            told = _Told.of_visitor(caller, now_ms, limits)
        expires_s = int(now_s) + ttl_s
        claims = msgspec.to_builtins(told) | {
            "iss": ISSUER,
            "aud": ISSUER,
            "jti": secrets.token_urlsafe(16),
            "iat": int(now_s),
            "exp": expires_s,
        }
        return jwt.encode(claims, self.key, "HS256"), expires_s

    def read(self, token: Token, window: Window) -> Verified:
        """Return whom a session is about, once its signature was found good.

        Raises:
            InvalidToken: it does not say, or a later gateway says it in other words.
        """
        try:
            told = msgspec.convert(dict(token.claims), _Told)
            caller = told.caller(window.expires_s)
        except (msgspec.ValidationError, ValueError):
            raise InvalidToken("This session is not one of this gate's; log in again.") from None
        return Verified(
            caller,
            token_id_of(token),
            told.ims,
            int(window.expires_s),
            told.user,
            told.limits,
        )
