"""What tests of users need: who asks, quick hashes, and tokens that can be read back."""

from dataclasses import dataclass, field, replace
from typing import Any

from argon2 import PasswordHasher

from serve_app.auth import PERMISSIONS, Caller
from serve_app.auth.users.passwords import Passwords
from serve_app.auth.users.user import LoginRequest, UserChange, UserRequest
from serve_app.auth.users.users import Users
from serve_app.store import Store

QUICK = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
"""Argon2 as weak as it can be: these tests are about users, not about hashing."""

PASSWORD = "correct horse battery"
CLASSES = ("interactive", "standard", "batch")
TTL_S = 600
OPERATOR = Caller("default", "static-admin", PERMISSIONS, operator=True)
ACME = Caller("acme", "k-acme", PERMISSIONS)
OTHER = Caller("other", "k-other", PERMISSIONS)


@dataclass(frozen=True)
class Issued:
    """One token, as it was asked for."""

    caller: Caller
    user: str | None
    limits: str | None
    ttl_s: int
    issued_ms: int


@dataclass
class Tokens:
    """Makes tokens that are numbers and remembers what each stands for."""

    issued: dict[str, Issued] = field(default_factory=dict)

    def issue(
        self,
        caller: Caller,
        *,
        user: str | None = None,
        limits: str | None = None,
        ttl_s: int,
        now_s: float,
    ) -> tuple[str, float]:
        token = f"token-{len(self.issued)}"
        issued = Issued(caller, user, limits, ttl_s, int(now_s * 1_000))
        self.issued[token] = issued
        return token, now_s + ttl_s


def asked(name: str, **more: Any) -> UserRequest:
    """Return the request for a user, as the API reads it."""
    return UserRequest.model_validate({"name": name, "password": PASSWORD, **more})


def change(**what: Any) -> UserChange:
    """Return a change, as the API reads it."""
    return UserChange.model_validate(what)


def shown(name: str, password: str = PASSWORD) -> LoginRequest:
    """Return a login, as the API reads it."""
    return LoginRequest(username=name, password=password)


def without(*permissions: str) -> Caller:
    """Return acme's admin key without some permissions."""
    return replace(ACME, permissions=PERMISSIONS - set(permissions))


def users_on(store: Store, passwords: Passwords, tokens: Tokens | None = None) -> Users:
    """Return the users of ``store``."""
    return Users(
        store,
        passwords=passwords,
        sessions=tokens or Tokens(),
        session_ttl_s=TTL_S,
        classes=CLASSES,
    )
