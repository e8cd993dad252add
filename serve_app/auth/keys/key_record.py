"""What is asked of a key, what is kept of it, and what is shown of it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import ip_network
from typing import Any

from pydantic import Field, StrictBool

from serve_app.allowance import text_of
from serve_app.auth.caller import CALLER_PERMISSIONS, Caller
from serve_app.auth.grant import DAY_MS, Grant, OverLimit, Strict, rfc3339
from serve_app.auth.keys.key import TENANT
from serve_app.auth.record import Record
from serve_app.errors import Forbidden, InvalidKey

CALLERS_KEPT = 10_000


class KeyRequest(Grant):
    """The body of ``POST /v1/auth/api-keys``."""

    name: str = Field(min_length=1, max_length=128, examples=["nightly batch"])
    tenant: str | None = Field(default=None, pattern=rf"^{TENANT}$")
    all_tenants: StrictBool = False


class KeyChange(Grant):
    """The body of ``PATCH /v1/auth/api-keys/{id}``: what is named is replaced, null resets it."""

    name: str = Field(default="", min_length=1, max_length=128)


class Rotation(Strict):
    """The body of ``POST /v1/auth/api-keys/{id}/rotate``."""

    overlap_s: int = Field(default=0, ge=0, le=2_592_000, examples=[3600])


class CaptureRequest(Strict):
    """The body of ``POST /v1/auth/api-keys/{id}/capture``."""

    minutes: int = Field(ge=1, le=60, examples=[5])


@dataclass(frozen=True, slots=True)
class KeyRecord(Record):
    """What is known of a key; the secret is not."""

    id: str
    name: str
    tenant: str
    permissions: list[str]
    models: list[str] | None
    limits: dict[str, Any]
    created_ms: int
    expires_ms: int
    metadata: dict[str, Any] = field(default_factory=dict)
    operator: bool = False
    endpoints: list[str] | None = None
    class_: str | None = None
    max_class: str | None = None
    weight: float | None = None
    allowed_addresses: list[str] | None = None
    changed_ms: int = 0
    over_limit: OverLimit = "refuse"
    capture_ends_ms: int = 0

    def public(self, used_ms: int = 0) -> dict[str, Any]:
        """Return the record as the admin API shows it, with when it was last used."""
        public = Record.public(self)
        public["all_tenants"] = public.pop("operator")
        return {**public, "last_used_at": rfc3339(used_ms)}

    def caller(self) -> Caller:
        """Return who shows this key."""
        cidrs = self.allowed_addresses
        return Caller(
            tenant=self.tenant,
            key_id=self.id,
            permissions=frozenset(self.permissions),
            models=None if self.models is None else frozenset(self.models),
            operator=self.operator,
            endpoints=None if self.endpoints is None else frozenset(self.endpoints),
            networks=None if cidrs is None else tuple(ip_network(cidr) for cidr in cidrs),
            class_=self.class_,
            max_class=self.max_class,
            weight=self.weight,
            expires_ms=self.expires_ms,
            over_limit_waits=self.over_limit == "wait",
            exempt=bool(self.limits.get("exempt")),
            capture_ends_ms=self.capture_ends_ms,
        )

    def limits_text(self) -> str:
        """Return its limits as steps read them; empty for the gate's default."""
        return text_of(self.limits)


@lru_cache(CALLERS_KEPT)
def identify(attributes: str) -> Caller:
    """Return the caller whose key record holds ``attributes``; the same text, the same caller."""
    return KeyRecord.from_json(attributes).caller()


def unknown_key() -> InvalidKey:
    """Return the one refusal for unknown, wrong, revoked and expired keys."""
    return InvalidKey(
        "This API key is unknown, revoked or expired. Ask your operator for a new one."
    )


def new_record(key_id: str, tenant: str, request: KeyRequest, by: Caller, now_ms: int) -> KeyRecord:
    """Return the record of a new key of ``by``'s making; what is not asked for is inherited.

    Raises:
        Forbidden: it would outlive ``by``, or act for all tenants though ``by`` may not.
    """
    if request.all_tenants and not by.operator:
        raise Forbidden("This caller may not act for all tenants itself.", param="all_tenants")
    record = KeyRecord(
        id=key_id,
        name=request.name,
        tenant=tenant,
        permissions=[],
        models=None,
        limits={},
        created_ms=now_ms,
        expires_ms=0,
        operator=request.all_tenants,
    )
    return changed_record(record, request, {"name", *Grant.model_fields}, by, now_ms)


def changed_record(
    record: KeyRecord, change: KeyRequest | KeyChange, given: set[str], by: Caller, now_ms: int
) -> KeyRecord:
    """Return ``record`` with the members ``given`` in ``change``.

    Null is what ``by`` has itself: permissions of a caller, models, endpoints, addresses, end and
    highest class; of class, weight, limits, ``over_limit`` and metadata, the default.

    Raises:
        Forbidden: it would outlive ``by``.
    """
    days = change.expires_in_days
    expires_ms = now_ms + round(days * DAY_MS) if days else by.expires_ms
    if by.expires_ms and expires_ms > by.expires_ms:
        raise Forbidden(
            f"This caller ends at {rfc3339(by.expires_ms)}; no key of its making may end later.",
            param="expires_in_days",
        )
    inherited = CALLER_PERMISSIONS & by.permissions
    new: dict[str, Any] = {
        "name": change.name,
        "permissions": sorted(set(inherited if change.permissions is None else change.permissions)),
        "models": _or(change.models, _listed(by.models)),
        "endpoints": _or(change.endpoints, _listed(by.endpoints)),
        "allowed_addresses": _or(change.allowed_addresses, _cidrs(by)),
        "limits": change.limits.as_written() if change.limits else {},
        "over_limit": change.over_limit or "refuse",
        "expires_ms": expires_ms,
        "class_": change.class_,
        "max_class": change.max_class or by.max_class,
        "weight": change.weight,
        "metadata": change.metadata or {},
    }
    named = {name: value for name, value in new.items() if _source(name) in given}
    return replace(record, **named, changed_ms=now_ms)


def _source(name: str) -> str:
    """Return the member of the request that a field of the record comes from."""
    return "expires_in_days" if name == "expires_ms" else name


def _or(asked: list[str] | None, otherwise: Iterable[str] | None) -> Iterable[str] | None:
    return otherwise if asked is None else asked


def _listed(names: frozenset[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


def _cidrs(by: Caller) -> list[str] | None:
    return None if by.networks is None else [str(network) for network in by.networks]
