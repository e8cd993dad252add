"""Tenants: who owns keys and users, and what all of them together may use."""

import time
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from pydantic import Field, field_validator

from serve_app.allowance import Limits, text_of
from serve_app.amount import wrong
from serve_app.auth.caller import DEFAULT_TENANT, Caller
from serve_app.auth.grant import Known, Share, must_be_classes
from serve_app.auth.keys.key import TENANT
from serve_app.auth.record import Record
from serve_app.errors import AlreadyExists, Forbidden, InUse, NoSuchTenant
from serve_app.store import Store, keys

TRIES = 8
TENANTS_KEPT = 10_000


class _Tenantly(Share):
    """What both a new tenant and a change may name."""

    @field_validator("limits")
    @classmethod
    def _not_exempt(cls, limits: Limits | None) -> Limits | None:
        if limits is not None and limits.exempt:
            wrong("exempt", "is for keys and users; a tenant without limits has none", True)
        return limits


class TenantRequest(_Tenantly):
    """The body of ``POST /v1/tenants``."""

    id: str = Field(pattern=rf"^{TENANT}$", examples=["acme"])
    name: str = Field(default="", max_length=128)


class TenantChange(_Tenantly):
    """The body of ``PATCH /v1/tenants/{id}``: what is named is replaced, null resets it."""

    name: str = Field(default="", max_length=128)


@dataclass(frozen=True, slots=True)
class TenantRecord(Record):
    """What is known of a tenant.

    Attributes:
        class_: the class of its callers that name none; None for the gate's.
        max_class: the highest class that any of its callers may wait in.
        weight: its share between tenants; None for 1.
        limits: of all its callers together.
    """

    id: str
    name: str = ""
    class_: str | None = None
    max_class: str | None = None
    weight: float | None = None
    limits: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    created_ms: int = 0
    changed_ms: int = 0


@lru_cache(TENANTS_KEPT)
def tenant_of(attributes: str, tenant: str) -> TenantRecord:
    """Return the tenant whose record holds ``attributes``; empty is one that nobody has changed."""
    return TenantRecord.from_json(attributes) if attributes else TenantRecord(tenant)


class Tenants:
    """The tenants, as the admin API changes them."""

    def __init__(self, store: Store, known: Known) -> None:
        self._store, self._known = store, known

    async def get(self, tenant: str, *, by: Caller) -> TenantRecord:
        """Return a tenant's record; ``default`` always has one.

        Raises:
            NoSuchTenant: there is none, or ``by`` belongs to another.
            StoreUnavailable: nothing was read.
        """
        found = await self.found(tenant) if by.operator or tenant == by.tenant else None
        if found is None:
            raise NoSuchTenant(f"There is no tenant '{tenant[:64]}'.")
        return found

    async def found(self, tenant: str) -> TenantRecord | None:
        """Return a tenant's record, None if there is none."""
        (attributes,) = await self._store.fields(keys.tenant_record(tenant), "attributes")
        exists = attributes is not None or tenant == DEFAULT_TENANT
        return tenant_of(attributes or "", tenant) if exists else None

    async def create(self, request: TenantRequest, *, by: Caller) -> TenantRecord:
        """Make a tenant.

        Raises:
            Forbidden: only the platform's operators make tenants.
            AlreadyExists: the id is taken.
            InvalidRequest: there is no such class.
            StoreUnavailable: it may have been made; ask for it.
        """
        _must_be_operator(by)
        must_be_classes(request, self._known, ())
        now_ms = time.time_ns() // 1_000_000
        record = _with(TenantRecord(request.id, created_ms=now_ms), request, _ALL, now_ms)
        taken = request.id == DEFAULT_TENANT
        if not taken:
            await self._store.add_score(keys.TENANTS, request.id, now_ms * 1_000)
        if taken or not await self._put("", record):
            raise AlreadyExists(f"There is a tenant '{request.id}' already.", param="id")
        return record

    async def change(
        self, tenant: str, change: TenantChange, *, by: Caller
    ) -> tuple[TenantRecord, TenantRecord]:
        """Change a tenant; return what it was and what it is.

        Raises:
            Forbidden: only the platform's operators change tenants.
            NoSuchTenant: there is none.
            InvalidRequest: there is no such class.
            StoreUnavailable: it may have been changed; ask for it.
        """
        _must_be_operator(by)
        must_be_classes(change, self._known, ())
        for _ in range(TRIES):
            (attributes,) = await self._store.fields(keys.tenant_record(tenant), "attributes")
            if attributes is None and tenant != DEFAULT_TENANT:
                raise NoSuchTenant(f"There is no tenant '{tenant[:64]}'.")
            was, now_ms = tenant_of(attributes or "", tenant), time.time_ns() // 1_000_000
            record = _with(was, change, change.model_fields_set, now_ms)
            if await self._put(attributes or "", record):
                return was, record
        raise InUse("Others are changing this tenant; try again.")

    async def _put(self, was: str, record: TenantRecord) -> bool:
        names, limits = [keys.tenant_record(record.id)], text_of(record.limits)
        return bool(await self._store.run("tenant_put", names, [was, record.to_json(), limits]))

    async def remove(self, tenant: str, *, by: Caller) -> None:
        """Remove a tenant that owns no keys and no users.

        Raises:
            Forbidden: only the platform's operators remove tenants.
            NoSuchTenant: there is none.
            InUse: it owns keys or users, or it is ``default``.
            StoreUnavailable: it may be gone; ask for it.
        """
        _must_be_operator(by)
        if tenant == DEFAULT_TENANT:
            raise InUse(f"The tenant '{DEFAULT_TENANT}' always exists.")
        names = [keys.tenant_record(tenant), keys.key_index(tenant), keys.user_index(tenant)]
        done = await self._store.run("tenant_drop", names, [])
        if done < 0:
            raise InUse(f"The tenant '{tenant}' owns keys or users; remove those first.")
        await self._store.remove_scored(keys.TENANTS, tenant)
        if not done:
            raise NoSuchTenant(f"There is no tenant '{tenant[:64]}'.")

    async def listed(self, *, by: Caller, after: str, size: int) -> tuple[list[TenantRecord], str]:
        """Return a page of tenants, oldest first, and the next cursor, empty at the end.

        ``default`` comes first; who is no operator sees its own tenant only.

        Raises:
            InvalidRequest: ``after`` is no cursor.
            StoreUnavailable: nothing was read.
        """
        if not by.operator:
            return [await self.get(by.tenant, by=by)], ""
        page, following = await self._store.page(keys.TENANTS, after, size)
        names = [keys.tenant_record(tenant) for tenant in page]
        told = await self._store.fields_of(names, "attributes")
        first = [] if after else [await self.get(DEFAULT_TENANT, by=by)]
        found = [TenantRecord.from_json(attributes) for (attributes,) in told if attributes]
        return [*first, *found], following


_ALL = {"name", *Share.model_fields}


def _with(
    record: TenantRecord, asked: TenantRequest | TenantChange, given: set[str], now_ms: int
) -> TenantRecord:
    new: dict[str, Any] = {
        "name": asked.name,
        "class_": asked.class_,
        "max_class": asked.max_class,
        "weight": asked.weight,
        "limits": asked.limits.as_written() if asked.limits else {},
        "metadata": asked.metadata or {},
    }
    named = {name: value for name, value in new.items() if name in given}
    return replace(record, **named, changed_ms=now_ms)


def _must_be_operator(by: Caller) -> None:
    if not by.operator:
        raise Forbidden("Tenants are made, changed and removed by the platform's operators.")
