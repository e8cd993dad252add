"""Keys over the admin API: create, change, rotate, list, revoke. In force for the next request."""

import time
from collections.abc import Callable
from dataclasses import replace

from serve_app.auth.caller import DEFAULT_TENANT, Caller
from serve_app.auth.grant import Known, must_be_classes, must_be_givable, must_cover
from serve_app.auth.keys.key import MadeKey, make
from serve_app.auth.keys.key_record import (
    KeyChange,
    KeyRecord,
    KeyRequest,
    Rotation,
    changed_record,
    new_record,
)
from serve_app.auth.tenants import Tenants
from serve_app.errors import AlreadyExists, Forbidden, InUse, NoSuchKey, UnknownTenant
from serve_app.store import Store, keys

PAGE_MAX = 1_000
TRIES = 8
MINUTE_MS = 60_000


class Keys:
    """The keys of every tenant, as the admin API changes them."""

    def __init__(self, store: Store, known: Known) -> None:
        self._store, self._known = store, known
        self._tenants = Tenants(store, known)

    async def create(self, request: KeyRequest, *, by: Caller) -> tuple[MadeKey, KeyRecord]:
        """Make a key and return it with its record; the key's text is not kept.

        Raises:
            UnknownTenant: the tenant does not exist, or ``by`` may not act for it.
            InvalidRequest: there is no such class or endpoint.
            Forbidden: ``by`` would give what it does not hold itself, or exempt from limits.
            StoreUnavailable: the key may have been written, but nobody knows its text.
        """
        tenant = request.tenant or by.tenant
        await self._must_be_givable(request, tenant, by)
        made = make(tenant)
        record = new_record(made.key.key_id, tenant, request, by, _now_ms())
        written = await self._store.run("key_put", *put(record, made.key.sha256))
        if written < 0:
            raise _unknown(tenant)
        if not written:
            raise AlreadyExists("The key's id is taken; try again.")
        return made, record

    async def _must_be_givable(
        self, grant: KeyRequest | KeyChange, tenant: str, by: Caller
    ) -> None:
        found = await self._tenants.found(tenant) if by.operator or tenant == by.tenant else None
        if found is None:
            raise _unknown(tenant)
        must_be_classes(grant, self._known, [found.max_class, by.max_class])
        must_be_givable(grant, by, self._known)

    async def get(self, tenant: str, key_id: str, *, by: Caller) -> tuple[KeyRecord, int]:
        """Return a key's record and when it was last used, ms, to the minute; 0 for never.

        Raises:
            NoSuchKey: the tenant has no such key, or it is an operator's and ``by`` is none.
            StoreUnavailable: nothing was read.
        """
        record, used_ms, _ = await self._found(tenant, key_id, by)
        return record, used_ms

    async def _found(self, tenant: str, key_id: str, by: Caller) -> tuple[KeyRecord, int, str]:
        name = keys.key_record(tenant, key_id)
        attributes, used_ms = await self._store.fields(name, "attributes", "used_ms")
        record = KeyRecord.from_json(attributes) if attributes else None
        if record is None or attributes is None or (record.operator and not by.operator):
            raise NoSuchKey(f"There is no key '{key_id[:64]}'.")
        return record, int(used_ms or 0), attributes

    async def change(
        self, tenant: str, key_id: str, change: KeyChange, *, by: Caller
    ) -> tuple[KeyRecord, KeyRecord]:
        """Change a key for its next request; return what it was and what it is.

        Raises:
            NoSuchKey: as in :meth:`get`.
            InvalidRequest: there is no such class or endpoint.
            Forbidden: the key may do what ``by`` may not, before the change or after it.
            InUse: others change it at the same time; nothing was changed.
            StoreUnavailable: it may have been changed; ask for it.
        """
        await self._must_be_givable(change, tenant, by)
        given = change.model_fields_set
        return await self._replaced(
            tenant, key_id, by, lambda was: changed_record(was, change, given, by, _now_ms())
        )

    async def capture(
        self, tenant: str, key_id: str, minutes: int, *, by: Caller
    ) -> tuple[KeyRecord, KeyRecord]:
        """Have gateways write down what a key sends and gets; return what it was and what it is.

        Args:
            tenant: whose key it is.
            key_id: its public id.
            minutes: how long, from its next request on; 0 ends it.
            by: an operator: what is written lies on the platform's disks.

        Raises:
            NoSuchKey: as in :meth:`get`.
            Forbidden: ``by`` is no operator, or the key may do what it may not.
            InUse: others change the key at the same time; nothing was changed.
            StoreUnavailable: it may have been changed; ask for it.
        """
        if not by.operator:
            raise Forbidden("Only the platform's operators capture what a key sends.")
        ends_ms = _now_ms() + minutes * MINUTE_MS if minutes else 0
        return await self._replaced(
            tenant, key_id, by, lambda was: replace(was, capture_ends_ms=ends_ms)
        )

    async def _replaced(
        self, tenant: str, key_id: str, by: Caller, new: Callable[[KeyRecord], KeyRecord]
    ) -> tuple[KeyRecord, KeyRecord]:
        """Write what ``new`` makes of a key that ``by`` covers, unless others write meanwhile."""
        for _ in range(TRIES):
            was, _, attributes = await self._found(tenant, key_id, by)
            must_cover(by, was.caller(), self._known)
            record = new(was)
            done = await self._store.run(
                "key_change",
                [keys.key_record(tenant, key_id)],
                [attributes, record.to_json(), record.expires_ms, record.limits_text()],
            )
            if done > 0:
                return was, record
        raise InUse("Others are changing this key; try again.")

    async def rotate(
        self, tenant: str, key_id: str, rotation: Rotation, *, by: Caller
    ) -> tuple[MadeKey, KeyRecord, int]:
        """Give a key a new secret; return it, the record, and when the old one ends, ms.

        Raises:
            NoSuchKey: as in :meth:`get`.
            Forbidden: the key may do what ``by`` may not.
            StoreUnavailable: the old secret may have ended, and nobody knows the new one.
        """
        record, _, _ = await self._found(tenant, key_id, by)
        must_cover(by, record.caller(), self._known)
        made = make(tenant, key_id)
        until_ms = await self._store.run(
            "key_rotate",
            [keys.key_record(tenant, key_id)],
            [made.key.sha256, rotation.overlap_s * 1_000],
        )
        if until_ms < 0:
            raise NoSuchKey(f"There is no key '{key_id[:64]}'.")
        return made, record, int(until_ms)

    async def listed(
        self, tenant: str, *, by: Caller, after: str, size: int
    ) -> tuple[list[tuple[KeyRecord, int]], str]:
        """Return a page of a tenant's keys, oldest first, and the next cursor, empty at the end.

        Each with when it was last used, ms. An operator's keys are shown to operators only.

        Raises:
            InvalidRequest: ``after`` is no cursor.
            StoreUnavailable: nothing was read.
        """
        page, following = await self._store.page(keys.key_index(tenant), after, size)
        names = [keys.key_record(tenant, key_id) for key_id in page]
        told = await self._store.fields_of(names, "attributes", "used_ms")
        found = [
            (KeyRecord.from_json(attributes), int(used_ms or 0))
            for attributes, used_ms in told
            if attributes
        ]
        records = [one for one in found if by.operator or not one[0].operator]
        return records, following

    async def revoke(self, tenant: str, key_id: str, *, by: Caller) -> KeyRecord:
        """Revoke a key; its next request is refused. Return what it was.

        Raises:
            NoSuchKey: as in :meth:`get`.
            Forbidden: the key may do what ``by`` may not.
            StoreUnavailable: it may or may not be revoked; call again.
        """
        record, _, _ = await self._found(tenant, key_id, by)
        must_cover(by, record.caller(), self._known)
        await self._store.run(
            "key_drop", [keys.key_record(tenant, key_id), keys.key_index(tenant)], [key_id]
        )
        return record


def put(
    record: KeyRecord, sha256: str, made_us: int = 0
) -> tuple[list[str], list[str | int | float]]:
    """Return the keys and arguments of the step that writes ``record``."""
    tenant = record.tenant
    names = [
        keys.key_record(tenant, record.id),
        keys.key_index(tenant),
        keys.tenant_record(tenant),
    ]
    return names, [
        *(record.id, sha256, record.to_json(), record.expires_ms, record.limits_text()),
        *(int(tenant != DEFAULT_TENANT), made_us),
    ]


def _unknown(tenant: str) -> UnknownTenant:
    return UnknownTenant(f"There is no tenant '{tenant}'.", param="tenant")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
