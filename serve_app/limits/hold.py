"""Hold a place in every limit of a request, and settle it once.

    hold    ── allowed ──→ the request runs ──→ settle(used)      real use is written down
       └──── refused: nothing was taken              └─→ settle(returned)  the bucket is as before

An outcome decides what settling does; there is no third way out of a hold.
"""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from serve_app.errors import StoreUnavailable
from serve_app.store import Store, keys

MARK_TTL_S = 600
USAGE_TTL_S = 100 * 86_400
OWED_MAX = 100_000
HOUR_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Hold:
    """What the store said of one caller and one request.

    Attributes:
        known: whether the key exists, has this secret and has not expired.
        attributes: the key's attributes as JSON; empty for a caller without a record.
        allowed: whether the request was let in; if not, nothing was taken.
        taken: requests taken from the bucket.
        remaining: requests left now.
        retry_after_us: wait before asking again; -1 if it never comes back.
        reset_after_us: time until the bucket is full.
        limit_rpm: requests a minute.
        interval_us: time one request takes to come back; 0 if the limit is "never".
        now_us: the store's time.
    """

    tenant: str
    key_id: str
    known: bool
    attributes: str
    allowed: bool
    taken: int
    remaining: int
    retry_after_us: int
    reset_after_us: int
    limit_rpm: int
    interval_us: int
    now_us: int


class Outcome(StrEnum):
    """How a held request ended."""

    USED = "used"
    """It reached an engine: it counts, with the tokens it used."""

    RETURNED = "returned"
    """It never got a first byte: nothing counts, the request is given back."""


@dataclass(slots=True)
class Usage:
    """Tokens of one request, filled in as the reply goes by."""

    input_tokens: int = 0
    output_tokens: int = 0


class Holds:
    """Takes and settles holds; what cannot be settled now, because the store is away, is owed.

    Args:
        store: where the buckets lie.
        default_rpm: requests a minute of a key that names no limit.
    """

    def __init__(self, store: Store, *, default_rpm: int) -> None:
        self._store = store
        self._default_rpm = default_rpm
        self._owed: deque[tuple[list[str], list[str | int | float]]] = deque(maxlen=OWED_MAX)

    async def hold(self, *, tenant: str, key_id: str, sha256: str, cost: int) -> Hold:
        """Look up a key and take ``cost`` requests from its bucket, in one call.

        ``sha256`` empty: the gateway vouches for the caller itself (a static key).

        Raises:
            StoreUnavailable: nothing is known about the caller.
        """
        known, attributes, allowed, *rest = await self._store.run(
            "hold",
            [keys.key_record(tenant, key_id), keys.request_bucket(tenant, key_id)],
            [sha256, self._default_rpm, cost],
        )
        taken = cost if allowed else 0
        return Hold(tenant, key_id, bool(known), attributes, bool(allowed), taken, *rest)

    async def settle(
        self, held: Hold, *, request_id: str, model: str, outcome: Outcome, usage: Usage
    ) -> None:
        """Settle ``held`` once; a second call does nothing. Never raises: what fails is owed."""
        names = [
            keys.settled(held.tenant, request_id),
            keys.usage(held.tenant, held.key_id, held.now_us // HOUR_US),
            keys.request_bucket(held.tenant, held.key_id),
        ]
        args: list[str | int | float] = [
            model,
            int(outcome is Outcome.USED),
            usage.input_tokens,
            usage.output_tokens,
            held.interval_us if held.taken else 0,
            MARK_TTL_S,
            USAGE_TTL_S,
            held.now_us + held.reset_after_us,
        ]
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
