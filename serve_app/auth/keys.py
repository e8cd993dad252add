"""Keys over the admin API: create, list, revoke. In force for the very next request."""

import json
import time
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, field_validator

from serve_app.auth.caller import CALLER_PERMISSIONS, DEFAULT_TENANT, PERMISSIONS, Caller
from serve_app.auth.key import TENANT, MadeKey, make
from serve_app.errors import InvalidKey, NoSuchKey, UnknownTenant
from serve_app.store import Store, keys

DAY_MS = 86_400_000
MAX_RPM = 1_000_000
MAX_METADATA_BYTES = 4_096
PAGE_MAX = 1_000


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Burst(_Strict):
    """A limit with a burst of its own."""

    limit: StrictInt = Field(ge=0, le=MAX_RPM)
    burst: StrictInt = Field(ge=1, le=MAX_RPM)


class KeyLimits(_Strict):
    """The limits of one key."""

    requests_per_minute: Annotated[StrictInt, Field(ge=0, le=MAX_RPM)] | Burst | None = None


class KeyRequest(_Strict):
    """The body of ``POST /v1/auth/api-keys``."""

    name: str = Field(min_length=1, max_length=128)
    tenant: str | None = Field(default=None, pattern=rf"^{TENANT}$")
    permissions: list[str] | None = Field(default=None, max_length=64)
    models: list[Annotated[str, Field(max_length=128)]] | None = Field(default=None, max_length=256)
    limits: KeyLimits = KeyLimits()
    expires_in_days: StrictInt | None = Field(default=None, ge=1, le=36_500)
    metadata: dict[str, str | StrictInt | float | StrictBool | None] = {}

    @field_validator("permissions")
    @classmethod
    def _known(cls, permissions: list[str] | None) -> list[str] | None:
        unknown = sorted(set(permissions or []) - PERMISSIONS)
        if unknown:
            raise ValueError(
                f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(PERMISSIONS))}"
            )
        return permissions

    @field_validator("metadata")
    @classmethod
    def _small(cls, metadata: dict[str, Any]) -> dict[str, Any]:
        if len(json.dumps(metadata)) > MAX_METADATA_BYTES:
            raise ValueError(f"larger than {MAX_METADATA_BYTES} bytes")
        return metadata


@dataclass(frozen=True, slots=True)
class KeyRecord:
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

    @classmethod
    def from_json(cls, attributes: str) -> Self:
        """Return the record that :meth:`to_json` wrote."""
        known = {one.name for one in fields(cls)}
        told = json.loads(attributes)  # a newer gateway may have written more
        return cls(**{name: value for name, value in told.items() if name in known})

    def to_json(self) -> str:
        """Return the record as the store keeps it."""
        return json.dumps(asdict(self), separators=(",", ":"))

    def public(self) -> dict[str, Any]:
        """Return the record as the admin API shows it."""
        shown = asdict(self)
        created_ms, expires_ms = shown.pop("created_ms"), shown.pop("expires_ms")
        del shown["operator"]
        shown["created_at"] = _rfc3339(created_ms)
        shown["expires_at"] = _rfc3339(expires_ms) if expires_ms else None
        return shown

    def caller(self) -> Caller:
        """Return who shows this key."""
        models = None if self.models is None else frozenset(self.models)
        return Caller(self.tenant, self.id, frozenset(self.permissions), models, self.operator)


def identify(attributes: str) -> Caller:
    """Return the caller whose key record holds ``attributes``."""
    return KeyRecord.from_json(attributes).caller()


def unknown_key() -> InvalidKey:
    """Return the one refusal for unknown, wrong, revoked and expired keys."""
    return InvalidKey(
        "This API key is unknown, revoked or expired. Ask your operator for a new one."
    )


class Keys:
    """The keys of every tenant, as the admin API changes them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(
        self, request: KeyRequest, *, by: Caller, operator: bool = False
    ) -> tuple[MadeKey, KeyRecord]:
        """Make a key and return it with its record; the key's text is not kept.

        Raises:
            UnknownTenant: the tenant does not exist, or ``by`` may not act for it.
            Forbidden: ``by`` would give a permission or model it does not hold itself.
            StoreUnavailable: the key may have been written, but nobody knows its text.
        """
        tenant = request.tenant or by.tenant
        if tenant != by.tenant and not (by.operator and await self._exists(tenant)):
            raise UnknownTenant(f"There is no tenant '{tenant}'.", param="tenant")
        made = make(tenant)
        record = _record(made, request, by, operator=operator)
        await self._write(made, record, request.limits)
        return made, record

    async def _exists(self, tenant: str) -> bool:
        known = tenant == DEFAULT_TENANT
        return known or await self._store.has_member(keys.TENANTS, tenant)

    async def _write(self, made: MadeKey, record: KeyRecord, limits: KeyLimits) -> None:
        rpm = limits.requests_per_minute
        limit = rpm.limit if isinstance(rpm, Burst) else rpm
        burst = rpm.burst if isinstance(rpm, Burst) else rpm
        key = made.key
        await self._store.add_member(keys.TENANTS, key.tenant)
        await self._store.run(
            "key_put",
            [keys.key_record(key.tenant, key.key_id), keys.key_index(key.tenant)],
            [
                key.key_id,
                key.sha256,
                record.to_json(),
                record.expires_ms,
                -1 if limit is None else limit,
                -1 if burst is None else burst,
            ],
        )

    async def listed(
        self, tenant: str, *, by: Caller, after_us: int, size: int
    ) -> tuple[list[KeyRecord], int]:
        """Return a page of a tenant's keys, oldest first, and the next cursor; 0 on the last page.

        An operator's keys are shown to operators only.

        Raises:
            StoreUnavailable: nothing was read.
        """
        page = await self._store.run("key_page", [keys.key_index(tenant)], [after_us, size])
        records = []
        for key_id in page[::2]:
            record = await self._record(tenant, key_id)
            if record is not None and (by.operator or not record.operator):
                records.append(record)
        return records, int(page[-1]) if len(page) == 2 * size else 0

    async def _record(self, tenant: str, key_id: str) -> KeyRecord | None:
        (attributes,) = await self._store.fields(keys.key_record(tenant, key_id), "attributes")
        return None if attributes is None else KeyRecord.from_json(attributes)

    async def revoke(self, tenant: str, key_id: str, *, by: Caller) -> None:
        """Revoke a key; its next request is refused.

        Raises:
            NoSuchKey: the tenant has no such key, or it is an operator's and ``by`` is none.
            StoreUnavailable: it may or may not be revoked; call again.
        """
        record = await self._record(tenant, key_id)
        if record is not None and record.operator and not by.operator:
            raise NoSuchKey(f"There is no key '{key_id}'.")
        there = await self._store.run(
            "key_drop", [keys.key_record(tenant, key_id), keys.key_index(tenant)], [key_id]
        )
        if not there:
            raise NoSuchKey(f"There is no key '{key_id}'.")


def _record(made: MadeKey, request: KeyRequest, by: Caller, *, operator: bool) -> KeyRecord:
    """Return the record of a new key, if ``by`` may give what it grants."""
    permissions = sorted(
        set(CALLER_PERMISSIONS if request.permissions is None else request.permissions)
    )
    for permission in permissions:
        by.must(permission)
    models = request.models
    if models is None and by.models is not None:
        models = sorted(by.models)
    for model in models or ():
        by.must_use(model)
    now_ms = time.time_ns() // 1_000_000
    days = request.expires_in_days
    return KeyRecord(
        id=made.key.key_id,
        name=request.name,
        tenant=made.key.tenant,
        permissions=permissions,
        models=models,
        limits=request.limits.model_dump(exclude_none=True),
        created_ms=now_ms,
        expires_ms=now_ms + days * DAY_MS if days else 0,
        metadata=request.metadata,
        operator=operator,
    )


def _rfc3339(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
