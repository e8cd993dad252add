"""How much, while the store is away: callers seen lately go on, under their share of the limits.

    the store answers ── a caller is seen ──→ remembered
    it is away ── seen in the last ``grace_s``? ── no ──→ refused
                        └── yes ──→ the same steps, in memory, on limits ÷ gateways

A gateway begins with its share of what was left when it last heard. What it lets in is settled in
the store when that is back. A limit that is too small to be divided refuses.
"""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from serve_app.allowance import text_of
from serve_app.errors import StoreUnavailable
from serve_app.limits.bound import SCOPES, Bound, Bounds, bind
from serve_app.limits.claim import Claim, State
from serve_app.limits.demand import Demand, Terms
from serve_app.limits.hold import Charge, Hold, Said
from serve_app.limits.learning import Learned
from serve_app.limits.scope import Scope
from serve_app.limits.step import Asked, Judged, judge, settle
from serve_app.store import keys

SEEN_MAX = 20_000
"""Callers remembered; of more, those seen longest ago are forgotten."""

_Who = tuple[str, ...]


@dataclass(slots=True)
class _Seen:
    """One caller as the store last told of it."""

    at_s: float
    attributes: str
    tenant_attributes: str
    left: dict[tuple[str, str, str], Said] = field(default_factory=dict)


class LocalLimits:
    """The limits of one gateway while its store is away.

    Args:
        grace_s: how long ago a caller may have been seen.
        gateways: how many gateways share the limits.
        defaults: limits of whoever has none of that kind, as steps read them.
        ttl_ms: of a hold.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        *,
        grace_s: float,
        gateways: Callable[[], int],
        defaults: str,
        ttl_ms: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._grace_s, self._gateways, self._defaults = grace_s, gateways, defaults
        self._ttl_ms, self._clock = ttl_ms, clock
        self._seen: dict[_Who, _Seen] = {}
        self._heard_s = -grace_s
        self._scopes: dict[str, Scope] = {}

    @property
    def knows_somebody(self) -> bool:
        """Whether there is a caller who could go on."""
        return self._clock() - self._heard_s <= self._grace_s

    def saw(self, held: Hold) -> None:
        """Remember a caller whom the store knows; the store is back, so nothing is counted here."""
        self._scopes.clear()
        who = _who(held.claim)
        seen = self._seen.pop(who, None) or _Seen(0.0, "", "")
        self._heard_s = seen.at_s = self._clock()
        seen.attributes = held.attributes
        seen.tenant_attributes = held.tenant_attributes
        seen.left |= {(held.model, one.scope, _field(one)): one for one in held.said}
        self._seen[who] = seen
        while len(self._seen) > SEEN_MAX:
            del self._seen[next(iter(self._seen))]

    def hold(
        self, claim: Claim, demand: Demand | None, terms: Terms, model: str, request: str
    ) -> Hold:
        """Judge a request by what is remembered, and take it from this gateway's share.

        Raises:
            StoreUnavailable: the caller was not seen lately, or a limit cannot be divided.
        """
        seen = self._seen.get(_who(claim))
        now_us = _now_us()
        if seen is None or self._clock() - seen.at_s > self._grace_s or _ended(seen, now_us):
            raise _unknown()
        binds = self._shares(claim, seen, model)
        scopes = self._begun(claim, seen, binds, model, now_us)
        learned = Learned()
        asked = demand or Demand()
        tokens = learned.input_tokens(asked.text_bytes, asked.fixed_tokens)
        judged = judge(
            scopes,
            binds,
            Asked(demand, terms, tokens, learned.p95, request, self._ttl_ms),
            now_us,
        )
        known = Hold(claim, State.KNOWN, seen.attributes, seen.tenant_attributes, now_us)
        known = replace(known, request=request, model=model, local=True)
        return _told(judged, asked, known)

    def settle(self, held: Hold, charge: Charge | None) -> None:
        """Settle a hold of this gateway's own."""
        names = keys.scopes(held.claim.tenant, held.claim.bucket, held.model)[::2]
        scopes = [self._scopes.get(name) or Scope() for name in names]
        settle(scopes, held.leases, {} if charge is None else charge.units(), _now_us())

    def _shares(self, claim: Claim, seen: _Seen, model: str) -> list[Bounds]:
        """Return what binds here: every limit divided by the number of gateways."""
        own = _written(seen.attributes) or claim.limits or ""
        binds = bind(own, self._defaults, _written(seen.tenant_attributes), model)
        count = max(self._gateways(), 1)
        return [replace(one, bounds=tuple(_divided(one.bounds, count))) for one in binds]

    def _begun(
        self, claim: Claim, seen: _Seen, binds: list[Bounds], model: str, now_us: int
    ) -> list[Scope]:
        """Return the scopes of a request; a new one begins with the share of what was left."""
        scopes, count = [], max(self._gateways(), 1)
        names = keys.scopes(claim.tenant, claim.bucket, model)[::2]
        for name, scope_name, one in zip(names, SCOPES, binds, strict=True):
            if name not in self._scopes:
                used = {}
                for bound in one.bounds:
                    said = seen.left.get((model, scope_name, bound.field))
                    left = bound.burst if said is None else said.left // count
                    used[bound] = max(bound.burst - left, 0)
                scope = self._scopes[name] = Scope()
                scope.take("before", used, now_us, now_us // 1_000)
                scope.leases.clear()
            scopes.append(self._scopes[name])
        return scopes


def _divided(bounds: Iterable[Bound], count: int) -> Iterable[Bound]:
    for bound in bounds:
        share = replace(bound, limit=bound.limit // count, burst=bound.burst // count)
        if bound.limit and not (share.limit and share.burst):
            if bound.shadow:
                continue
            raise _unknown()
        yield share


def _told(judged: Judged, demand: Demand, known: Hold) -> Hold:
    """Return ``known`` with what the limits say of it."""
    said = tuple(
        Said(
            SCOPES[at],
            bound.kind,
            bound.shadow,
            bound.limit,
            bound.burst,
            one.left,
            one.wait_us,
            one.reset_us,
        )
        for at, bound, one in judged.said
    )
    return replace(
        known,
        said=said,
        refusing=None if judged.refusing is None else said[judged.refusing],
        input_tokens=judged.estimate.input_tokens,
        output_tokens=demand.choices * judged.estimate.output_tokens,
        cap=judged.estimate.cap,
        leases=judged.leases,
    )


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
    )


def _written(attributes: str) -> str:
    """Return the limits in a record's attributes, as steps read them."""
    return text_of(json.loads(attributes).get("limits") or {}) if attributes else ""


def _ended(seen: _Seen, now_us: int) -> bool:
    """Return whether a key's time is over."""
    expires_ms = json.loads(seen.attributes or "{}").get("expires_ms") or 0
    return 0 < expires_ms <= now_us // 1_000


def _field(said: Said) -> str:
    return ("s" if said.shadow else "") + said.kind.letter


def _now_us() -> int:
    return time.time_ns() // 1_000


def _unknown() -> StoreUnavailable:
    return StoreUnavailable(
        "The state store does not answer, and this caller cannot be judged without it; try again "
        "shortly.",
        retry_after_s=1.0,
    )
