"""Hold a place in every limit of a request, and settle it once.

    hold    ── allowed ──→ the request runs ──→ settle(used)      real use is written down
       └──── refused: nothing was taken              └─→ settle(returned)  the buckets are as before

An outcome decides what settling does; there is no third way out of a hold.
"""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from serve_app.errors import StoreUnavailable
from serve_app.store import Store, keys

MARK_TTL_S = 600
USAGE_TTL_S = 100 * 86_400
OWED_MAX = 100_000
HOUR_US = 3_600_000_000


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
        """Names its limit."""

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
    def requests_per_minute(self) -> int | None:
        """The caller's limit if no record names one; None for the gate's default."""

    @property
    def tenant_must_exist(self) -> bool:
        """Whether a tenant without a record is a refusal."""


class State(StrEnum):
    """What the store says of a claim."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    REVOKED = "revoked"
    NO_TENANT = "no_tenant"


@dataclass(frozen=True, slots=True)
class Taken:
    """What a hold took from one bucket; ``interval_us`` 0 is nothing."""

    interval_us: int = 0
    tat_us: int = 0


@dataclass(frozen=True, slots=True)
class Hold:
    """What the store said of one caller and one request.

    Attributes:
        claim: who it was about.
        state: whether the caller is who it says to be; all else counts only if it is known.
        attributes: the record's attributes as JSON; empty for a caller that is vouched for.
        tenant_attributes: its tenant's; empty for one without a record.
        allowed: whether the request was let in; if not, nothing was taken.
        scope: the tighter limit, ``key`` or ``tenant``; the figures are that one's.
        remaining: requests left now.
        retry_after_us: wait before asking again; -1 if it never comes back.
        reset_after_us: time until the bucket is full.
        limit_rpm: requests a minute; 0 is never.
        now_us: the store's time.
        taken: from the caller's bucket and from its tenant's.
    """

    claim: Claim
    state: State
    attributes: str
    tenant_attributes: str
    allowed: bool
    scope: str
    remaining: int
    retry_after_us: int
    reset_after_us: int
    limit_rpm: int
    now_us: int
    taken: tuple[Taken, Taken] = (Taken(), Taken())


class Outcome(StrEnum):
    """How a held request ended."""

    USED = "used"
    """It reached an engine: it counts, with the tokens it used."""

    RETURNED = "returned"
    """It never got a first byte: nothing counts, the request is given back."""


@dataclass(slots=True)
class Usage:
    """Tokens of one request, filled in as the reply goes by.

    Attributes:
        input_tokens: all of the prompt's.
        output_tokens: of all replies together.
        cached_tokens: those of the prompt that the engine had cached.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0


class Holds:
    """Takes and settles holds; what cannot be settled now, because the store is away, is owed.

    Args:
        store: where the buckets lie.
        default_rpm: requests a minute of a caller that names no limit.
    """

    def __init__(self, store: Store, *, default_rpm: int) -> None:
        self._store = store
        self._default_rpm = default_rpm
        self._owed: deque[tuple[list[str], list[str | int | float]]] = deque(maxlen=OWED_MAX)

    async def hold(self, claim: Claim, *, cost: int) -> Hold:
        """Judge a claim and take ``cost`` requests from its buckets, in one call.

        Raises:
            StoreUnavailable: nothing is known about the caller.
        """
        tenant, rpm = claim.tenant, claim.requests_per_minute
        record = (
            keys.key_record(tenant, claim.key_id)
            if claim.user is None
            else keys.user_record(tenant, claim.user)
        )
        said = await self._store.run(
            "hold",
            [
                record,
                keys.tenant_record(tenant),
                keys.revoked(tenant, claim.token_id),
                keys.request_bucket(tenant, claim.bucket),
                keys.tenant_bucket(tenant),
            ],
            [
                claim.kind,
                claim.proof,
                self._default_rpm if rpm is None else rpm,
                cost,
                int(claim.tenant_must_exist),
            ],
        )
        state, attributes, tenant_attributes, allowed, scope, left, wait_us, reset_us = said[:8]
        rpm, now_us, *tats = said[8:]
        taken = (Taken(*tats[:2]), Taken(*tats[2:])) if allowed and cost else (Taken(), Taken())
        return Hold(
            claim=claim,
            state=State(state),
            attributes=attributes,
            tenant_attributes=tenant_attributes,
            allowed=bool(allowed),
            scope=scope,
            remaining=left,
            retry_after_us=wait_us,
            reset_after_us=reset_us,
            limit_rpm=rpm,
            now_us=now_us,
            taken=taken,
        )

    async def settle(
        self, held: Hold, *, request_id: str, model: str, outcome: Outcome, usage: Usage
    ) -> None:
        """Settle ``held`` once; a second call does nothing. Never raises: what fails is owed."""
        tenant, key_id = held.claim.tenant, held.claim.key_id
        names = [
            keys.settled(tenant, request_id),
            keys.usage(tenant, key_id, held.now_us // HOUR_US),
            keys.request_bucket(tenant, held.claim.bucket),
            keys.tenant_bucket(tenant),
        ]
        args: list[str | int | float] = [
            model,
            int(outcome is Outcome.USED),
            usage.input_tokens,
            usage.output_tokens,
            MARK_TTL_S,
            USAGE_TTL_S,
        ]
        for taken in held.taken:
            args += [taken.interval_us, taken.tat_us]
        try:
            await self._store.run("settle", names, args)
        except StoreUnavailable:
            self._owed.append((names, args))

    async def pay(self) -> None:
        """Settle what is owed.

        Raises:
            StoreUnavailable: the rest is still owed.
        """
        while self._owed:
            await self._store.run("settle", *self._owed[0])
            self._owed.popleft()
