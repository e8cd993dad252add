"""What a gateway has heard of its store lately: of callers, and what was left of every limit.

It is bounded, and only as old as it is told to be. The store's clock is the only one: what it said
last, and how long ago that was.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from serve_app.limits.bound import SCOPES
from serve_app.limits.claim import Claim
from serve_app.limits.gcra import Taken
from serve_app.limits.hold import Charge, Hold, Said
from serve_app.limits.scope import Used, lease_read
from serve_app.store import keys

SEEN_MAX = 20_000
"""Callers remembered; of more, those seen longest ago are forgotten."""

SCOPES_MAX = len(SCOPES) * SEEN_MAX
_Who = tuple[str | bool, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """One caller as the store last told of it, at ``at_s`` of our clock."""

    at_s: float
    attributes: str
    tenant_attributes: str


@dataclass(slots=True)
class _Left:
    """What was left of one scope, by field: heard at ``at_s`` of our clock, ``at_us`` of it."""

    at_s: float
    at_us: int
    said: dict[str, Said]


class Heard:
    """What one gateway has heard.

    Args:
        grace_s: how long it is worth something.
        ttl_ms: of a hold in the store.
        clock: monotonic, seconds.
    """

    def __init__(
        self, *, grace_s: float, ttl_ms: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._grace_s, self._ttl_ms, self._clock = grace_s, ttl_ms, clock
        self._seen: dict[_Who, Seen] = {}
        self._left: dict[str, _Left] = {}
        self._heard_us, self._heard_s = 0, -grace_s - 1

    @property
    def lately(self) -> bool:
        """Whether anything was heard that is still worth something."""
        return self._clock() - self._heard_s <= self._grace_s

    def now_us(self) -> int:
        """Return what the store's clock says now, as far as anybody knows."""
        return self._heard_us + round((self._clock() - self._heard_s) * 1e6)

    def note(self, held: Hold) -> None:
        """Remember what the store said of a caller that it knows."""
        now_s = self._clock()
        self._heard_us, self._heard_s = held.now_us, now_s
        _keep(
            self._seen,
            _who(held.claim),
            Seen(now_s, held.attributes, held.tenant_attributes),
            SEEN_MAX,
        )
        for name, scope in zip(_names(held), SCOPES, strict=True):
            said = {_field(one): one for one in held.said if one.scope == scope}
            was = self._left.get(name)
            if said and (was is None or was.at_us <= held.now_us):
                _keep(self._left, name, _Left(now_s, held.now_us, said), SCOPES_MAX)

    def forget(self, claim: Claim) -> None:
        """Forget a caller that the store knows no longer."""
        self._seen.pop(_who(claim), None)

    def caller(self, claim: Claim) -> Seen | None:
        """Return what was heard of a caller lately; None if nothing was, or its time is over."""
        seen = self._seen.get(_who(claim))
        if seen is None or self._clock() - seen.at_s > self._grace_s:
            return None
        expires_ms = json.loads(seen.attributes or "{}").get("expires_ms") or 0
        return None if 0 < expires_ms <= self.now_us() // 1_000 else seen

    def left(self, scope: str, field: str) -> int | None:
        """Return what was left of a limit of the scope so named; None if nobody said so lately."""
        heard = self._left.get(scope)
        if heard is None or self._clock() - heard.at_s > self._grace_s or field not in heard.said:
            return None
        return heard.said[field].left

    def ended(self, held: Hold, charge: Charge | None) -> None:
        """Give back what a request has not used of its hold, which nobody else can have heard of.

        Tell it before the store is told: what the store says afterwards counts.
        """
        if self.now_us() - held.now_us >= self._ttl_ms * 1_000:
            return  # its time may be over, and what it held is given back already
        used = {} if charge is None else charge.units()
        for name, lease in zip(_names(held), held.leases, strict=True):
            heard = self._left.get(name)
            if lease and heard is not None:
                taken = lease_read(lease)[1]
                heard.said = {
                    field: _with(said, _unused(said, taken.get(field), used))
                    for field, said in heard.said.items()
                }


def _unused(said: Said, taken: Taken | Used | None, used: dict[str, int]) -> int:
    """Return how many units of what was taken of a limit were not used."""
    if said.kind.unit == "seats":
        return 1
    return 0 if taken is None else taken.units - used.get(said.kind.unit, 0)


def _with(said: Said, more: int) -> Said:
    return replace(said, left=min(max(said.left + more, 0), said.burst)) if more else said


def _keep(kept: dict, name: object, value: object, most: int) -> None:  # type: ignore[type-arg]
    """Put ``value`` last, and forget what came first if that is too much."""
    kept.pop(name, None)
    kept[name] = value
    while len(kept) > most:
        del kept[next(iter(kept))]


def _names(held: Hold) -> list[str]:
    """Return the names of the scopes of a hold."""
    return keys.scopes(held.claim.tenant, held.claim.bucket, held.model)[::2]


def _who(claim: Claim) -> _Who:
    """Return what makes a claim the same as one seen before, its proof above all."""
    return (
        claim.kind,
        claim.tenant,
        claim.key_id,
        claim.bucket,
        claim.proof,
        claim.user or "",
        claim.token_id,
        claim.tenant_must_exist,
    )


def _field(said: Said) -> str:
    return ("s" if said.shadow else "") + said.kind.letter
