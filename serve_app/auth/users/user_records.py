"""Users as they lie in the store.

A name is unique over the whole gate, a record lies beside its tenant's keys; no one step may touch
both. So a user is made in two steps and removed in two:

    claim the name ── at most LEASE_US ──→ write the record         drop the record ──→ release

What dies between them leaves a claim without a record. After STALE_US, when no record can follow
any more, whoever wants the name takes the claim over. Of two who want it at once, one gets it.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Self

from serve_app.auth.caller import DEFAULT_TENANT
from serve_app.auth.users.user import NAME, UserRecord, drawn
from serve_app.errors import AlreadyExists, StoreUnavailable, UnknownTenant
from serve_app.store import Store, keys

NO_TENANT = -2
LEASE_US = 5_000_000
STALE_US = 10_000_000
_NOBODY = "-"
_NAME = re.compile(NAME)


@dataclass(frozen=True, slots=True)
class StoredUser:
    """A user as it lay in the store.

    Attributes:
        record: who it is.
        password: the hash of its password.
        not_before_ms: sessions issued before are refused.
        read_ms: when it lay there like that, in the store's time.
        claim: what holds its name; empty if it was found by its tenant.
    """

    record: UserRecord
    password: str = field(repr=False)
    not_before_ms: int
    read_ms: int
    claim: str = ""

    @classmethod
    def from_reply(cls, reply: list[str]) -> Self | None:
        """Return the user that ``user_read`` tells of, None if there is none."""
        read_ms, user_id, attributes, password, disabled, not_before_ms, changed_ms, revision = (
            reply
        )
        if not user_id:
            return None
        record = replace(
            UserRecord.from_json(attributes),
            disabled=disabled == "1",
            changed_ms=int(changed_ms),
            revision=revision,
        )
        return cls(record, password, int(not_before_ms), int(read_ms))


class UserRecords:
    """The records of every tenant's users; every method may raise StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def read(self, tenant: str, name: str) -> StoredUser | None:
        """Return a tenant's user."""
        return StoredUser.from_reply(
            await self._store.run("user_read", [keys.user_record(tenant, name)], [])
        )

    async def find(self, name: str) -> StoredUser | None:
        """Return the user called ``name``; asks the store as often if there is none."""
        shaped = name.lower() if _NAME.fullmatch(name) else _NOBODY
        (claim,) = await self._store.fields(keys.USERNAMES, shaped)
        tenant = claim.split()[0] if claim else DEFAULT_TENANT
        found = await self.read(tenant, shaped)
        return replace(found, claim=claim) if found and claim else None

    async def page(self, tenant: str, after: str, size: int) -> tuple[list[StoredUser], str]:
        """Return a page of a tenant's users, oldest first, and the next cursor, if any."""
        page, following = await self._store.page(keys.user_index(tenant), after, size)
        found = [await self.read(tenant, name) for name in page]
        return [one for one in found if one is not None], following

    async def make(self, record: UserRecord, password: str) -> UserRecord:
        """Write a new user and return its record with the store's times.

        Raises:
            AlreadyExists: the name is taken, or is just being taken.
            UnknownTenant: the tenant has gone meanwhile; the name is free again in 10 s.
            StoreUnavailable: ask for the user; if there is none, make it again in 10 s.
        """
        claimed_us = int((await self._claim(record)).split()[1])
        made_ms = claimed_us // 1_000
        record = replace(record, created_ms=made_ms, changed_ms=made_ms, revision=drawn())
        put = await self._store.run(
            "user_put",
            [
                keys.user_record(record.tenant, record.name),
                keys.user_index(record.tenant),
                keys.tenant_record(record.tenant),
            ],
            [
                *(record.name, record.id, password, record.to_json(), int(record.disabled)),
                *(record.limits_text(), record.revision, claimed_us, LEASE_US),
                int(record.tenant != DEFAULT_TENANT),
            ],
        )
        if put == NO_TENANT:
            raise UnknownTenant(f"There is no tenant '{record.tenant}'.", param="tenant")
        if put < 0:
            raise StoreUnavailable("The state store was too slow; try again.", retry_after_s=10.0)
        if not put:
            raise AlreadyExists("This user name is taken.", param="name")
        return record

    async def _claim(self, record: UserRecord) -> str:
        """Claim the name of ``record``; a claim that came to nothing is taken over."""
        names, args = [keys.USERNAMES], [record.name, record.tenant, record.id]
        taken, claim, now_us = await self._store.run("user_claim", names, [*args, ""])
        if taken:
            return str(claim)
        owner, claimed_us, _ = claim.split()
        if await self.read(owner, record.name) is not None:
            raise AlreadyExists("This user name is taken.", param="name")
        if now_us - int(claimed_us) > STALE_US:
            taken, claim, _ = await self._store.run("user_claim", names, [*args, claim])
        if not taken:
            raise AlreadyExists(
                "This user name is just being taken; if no such user appears, try again in 10 s.",
                param="name",
            )
        return str(claim)

    async def rewrite(
        self, seen: StoredUser, after: UserRecord, password: str = ""
    ) -> StoredUser | None:
        """Write ``after`` over ``seen`` and return it; None if it has changed meanwhile.

        Its sessions end with a new password hash, and when it is disabled.
        """
        ends = bool(password) or (after.disabled and not seen.record.disabled)
        revision = drawn()
        changed_ms, not_before_ms = await self._store.run(
            "user_change",
            [keys.user_record(after.tenant, after.name)],
            [
                *(seen.record.revision, revision, after.to_json(), int(after.disabled)),
                *(after.limits_text(), password, int(ends)),
            ],
        )
        if changed_ms <= 0:
            return None
        record = replace(after, changed_ms=changed_ms, revision=revision)
        return StoredUser(record, password or seen.password, not_before_ms, changed_ms, seen.claim)

    async def rehash(self, seen: StoredUser, password: str) -> None:
        """Write another hash of the same password, unless it was changed meanwhile."""
        record = keys.user_record(seen.record.tenant, seen.record.name)
        await self._store.run("user_rehash", [record], [seen.password, password])

    async def drop(self, seen: StoredUser) -> bool:
        """Remove a user and free its name; False if it has changed meanwhile."""
        record = seen.record
        dropped = await self._store.run(
            "user_drop",
            [keys.user_record(record.tenant, record.name), keys.user_index(record.tenant)],
            [record.name, record.revision],
        )
        if dropped:
            await self._store.run("user_release", [keys.USERNAMES], [record.name, seen.claim])
        return bool(dropped)
