"""Who somebody says to be, and what the store says of it."""

from enum import StrEnum
from typing import Protocol

from serve_app.store import keys


class Claim(Protocol):
    """Who somebody says to be, for the store to judge."""

    @property
    def tenant(self) -> str:
        """The tenant."""

    @property
    def key_id(self) -> str:
        """The caller's public id; names its usage."""

    @property
    def bucket(self) -> str:
        """Names what it has used of its limits."""

    @property
    def kind(self) -> str:
        """What proves it: a ``key``, a ``user``'s session, or the gateway has ``vouched``."""

    @property
    def proof(self) -> str:
        """The SHA-256 of the secret shown, or when the session was issued, ms."""

    @property
    def user(self) -> str | None:
        """The user's name, if its record decides."""

    @property
    def token_id(self) -> str:
        """Names the mark that the token was revoked; empty if there is no token."""

    @property
    def limits(self) -> str | None:
        """The caller's limits if no record names them, as steps read them; None for none."""

    @property
    def tenant_must_exist(self) -> bool:
        """Whether a tenant without a record is a refusal."""


class State(StrEnum):
    """What the store says of a claim."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    REVOKED = "revoked"
    NO_TENANT = "no_tenant"


def record_of(claim: Claim) -> str:
    """Return the name of the record that proves ``claim``."""
    if claim.user is None:
        return keys.key_record(claim.tenant, claim.key_id)
    return keys.user_record(claim.tenant, claim.user)
