"""Users over the admin API, and their logins. A change is in force for the very next request."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from serve_app.auth.caller import DEFAULT_TENANT, Caller
from serve_app.auth.users import granting
from serve_app.auth.users.passwords import Passwords, Place
from serve_app.auth.users.user import (
    LoginRequest,
    PasswordRequest,
    UserChange,
    UserRecord,
    UserRequest,
    drawn,
)
from serve_app.auth.users.user_records import StoredUser, UserRecords
from serve_app.errors import InUse, InvalidLogin, NoSuchUser, StoreUnavailable, UnknownTenant
from serve_app.store import Store, keys

TRIES = 5
WITHIN_MS = 0.25
"""Put on a whole millisecond before it becomes seconds, so that it is the same one again."""


class TokenSource(Protocol):
    """What makes a token of who somebody is."""

    def issue(
        self,
        caller: Caller,
        *,
        user: str | None = None,
        limits: str | None = None,
        ttl_s: int,
        now_s: float,
    ) -> tuple[str, float]:
        """Return a token and when it ends, in seconds since the epoch.

        Of a user's token, only tenant, key id and ``user`` are kept: what the user may do is read
        from its record on every request.
        """


@dataclass(frozen=True, slots=True)
class Session:
    """A token that was just made, and when it ends, in seconds since the epoch."""

    token: str = field(repr=False)
    ends_s: float


class Attempt(NamedTuple):
    """How a login went: whose it was, if there is such a user, and its session, if it is good."""

    user: UserRecord | None
    session: Session | None


class Changed(NamedTuple):
    """A user before and after a change."""

    before: UserRecord
    after: UserRecord


def refused_login() -> InvalidLogin:
    """Return the one refusal of an unknown user, a wrong password and a disabled user."""
    return InvalidLogin("User name and password do not fit.")


class Users:
    """The users of every tenant.

    Args:
        store: where they lie.
        passwords: the threads that hash.
        sessions: what makes tokens.
        session_ttl_s: how long a token is good for.
        classes: the classes there are, highest first.
    """

    def __init__(
        self,
        store: Store,
        *,
        passwords: Passwords,
        sessions: TokenSource,
        session_ttl_s: int,
        classes: Sequence[str],
    ) -> None:
        self._store, self._records = store, UserRecords(store)
        self._passwords, self._sessions = passwords, sessions
        self._session_ttl_s, self._classes = session_ttl_s, classes

    async def create(self, request: UserRequest, *, by: Caller) -> UserRecord:
        """Make a user.

        Raises:
            AlreadyExists: the name is taken, in whatever tenant.
            UnknownTenant: the tenant does not exist, or ``by`` may not act for it.
            Forbidden: ``by`` would give what it lacks.
            InvalidRequest: an unknown class, or the password is the name.
            RateLimited: too many passwords wait; nothing was made.
            StoreUnavailable: it may have been made; ask for it, or create it again in 10 s.
        """
        tenant = request.tenant or by.tenant
        if tenant != by.tenant and not (by.operator and await self._is_tenant(tenant)):
            raise UnknownTenant(f"There is no tenant '{tenant}'.", param="tenant")
        record = granting.created(request, user_id=drawn(), by=by, classes=self._classes)
        with self._passwords.place() as place:
            password = await place.hash(request.password)
        return await self._records.make(record, password)

    async def _is_tenant(self, tenant: str) -> bool:
        known = tenant == DEFAULT_TENANT
        return known or await self._store.exists(keys.tenant_record(tenant))

    async def listed(
        self, tenant: str, *, by: Caller, after: str, size: int
    ) -> tuple[list[UserRecord], str]:
        """Return a page of a tenant's users, oldest first, and the next cursor, empty at the end.

        Those who may act for all tenants are shown to their like only.

        Raises:
            StoreUnavailable: nothing was read.
        """
        found, following = await self._records.page(tenant, after, size)
        return [one.record for one in found if granting.may_see(by, one.record)], following

    async def get(self, name: str, *, by: Caller) -> UserRecord:
        """Return a user.

        Raises:
            NoSuchUser: there is none, or ``by`` may not know of it.
            StoreUnavailable: nothing was read.
        """
        return (await self._seen(name, by)).record

    async def _seen(self, name: str, by: Caller) -> StoredUser:
        stored = await self._records.find(name)
        if stored is None or not granting.may_see(by, stored.record):
            raise NoSuchUser("There is no user of that name.")
        return stored

    async def update(self, name: str, change: UserChange, *, by: Caller) -> Changed:
        """Change a user; a new password, or being disabled, ends its sessions.

        Raises:
            NoSuchUser: there is none, or ``by`` may not know of it.
            Forbidden: ``by`` would touch or give what it lacks, or lock itself out.
            InvalidRequest: an unknown class, or the password is the name.
            InUse: it has changed since ``change.revision``, or changes all the time.
            RateLimited: too many passwords wait; nothing was changed.
            StoreUnavailable: it may or may not be changed; call again.
        """

        def amended(seen: StoredUser) -> UserRecord:
            if change.revision not in (None, seen.record.revision):
                raise InUse("The user was changed since; read it again.", param="revision")
            return granting.changed(seen.record, change, by=by, classes=self._classes)

        password = ""
        if change.password:
            amended(await self._seen(name, by))  # who may not is refused before the slow hash
            with self._passwords.place() as place:
                password = await place.hash(change.password)
        before, after = await self._rewrite(name, by, amended, password)
        return Changed(before.record, after.record)

    async def _rewrite(
        self, name: str, by: Caller, amended: Callable[[StoredUser], UserRecord], password: str
    ) -> tuple[StoredUser, StoredUser]:
        """Write what ``amended`` makes of a user; read and asked again if somebody was faster."""
        for _ in range(TRIES):
            seen = await self._seen(name, by)
            after = await self._records.rewrite(seen, amended(seen), password)
            if after is not None:
                return seen, after
        raise _restless()

    async def remove(self, name: str, *, by: Caller) -> UserRecord:
        """Remove a user and return who it was; its next request is refused, its name is free.

        Raises:
            NoSuchUser: there is none, or ``by`` may not know of it.
            Forbidden: it is ``by`` itself, or more than ``by``.
            InUse: it changes all the time.
            StoreUnavailable: it may or may not be gone; call again.
        """
        for _ in range(TRIES):
            seen = await self._seen(name, by)
            granting.removable(seen.record, by=by, classes=self._classes)
            if await self._records.drop(seen):
                return seen.record
        raise _restless()

    async def login(self, request: LoginRequest) -> Attempt:
        """Return how a login went; it takes as long for a user who is not there.

        Raises:
            RateLimited: too many passwords wait; nobody was looked up.
            StoreUnavailable: nothing is known.
        """
        with self._passwords.place() as place:
            stored = await self._records.find(request.username)
            if stored is None or stored.record.disabled:
                await place.verify(None, request.password)
                return Attempt(stored.record if stored else None, None)
            if not await place.verify(stored.password, request.password):
                return Attempt(stored.record, None)
            if self._passwords.outdated(stored.password):
                await self._rehash(place, stored, request.password)
        return Attempt(stored.record, self._session(stored))

    async def _rehash(self, place: Place, stored: StoredUser, password: str) -> None:
        hashed = await place.hash(password)
        with contextlib.suppress(StoreUnavailable):  # the next login does it
            await self._records.rehash(stored, hashed)

    async def change_password(
        self, name: str, request: PasswordRequest, *, by: Caller
    ) -> Session | None:
        """Change one's own password and return a new session; None if the old one is wrong.

        Every older session ends.

        Raises:
            NoSuchUser: ``name`` is not ``by``, or not any more.
            InvalidRequest: the new password is the name.
            InUse: the password was changed just now, by somebody else.
            RateLimited: too many passwords wait; nothing was changed.
            StoreUnavailable: it may or may not be changed.
        """
        with self._passwords.place() as place:
            stored = await self._seen(name, by)
            if stored.record.key_id != by.key_id:
                raise NoSuchUser("There is no user of that name.")
            granting.must_not_be_name(request.new_password, stored.record, param="new_password")
            if not await place.verify(stored.password, request.old_password):
                return None
            password = await place.hash(request.new_password)

        def unmoved(now: StoredUser) -> UserRecord:
            if now.password != stored.password:
                raise InUse("The password was changed just now; log in again.")
            return now.record

        _, changed = await self._rewrite(name, by, unmoved, password)
        return self._session(changed)

    def _session(self, stored: StoredUser) -> Session:
        """Return a session as of when ``stored`` was read: what has changed since ends it too."""
        issued_ms = max(stored.read_ms, stored.not_before_ms)
        token, ends_s = self._sessions.issue(
            stored.record.caller(),
            user=stored.record.name,
            ttl_s=self._session_ttl_s,
            now_s=(issued_ms + WITHIN_MS) / 1_000,
        )
        return Session(token, ends_s)


def _restless() -> InUse:
    return InUse("Others are changing this user right now; try again.")
