"""How much, while the store is away: callers seen lately go on, under their share of the limits.

    the store answers ── a caller is seen ──→ remembered
    it is away ── seen in the last ``grace_s``? ── no ──→ refused
                        └── yes ──→ the same steps, in memory, on limits ÷ gateways

A gateway begins with its share of what was left when it last heard. What it lets in is settled in
the store when that is back. A limit that is too small to be divided refuses, and so does one of
which nothing was heard lately.
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from serve_app.allowance import understood
from serve_app.errors import StoreUnavailable
from serve_app.limits.bound import SCOPES, Bound, Bounds, bind
from serve_app.limits.claim import Claim, State
from serve_app.limits.demand import Demand, Terms
from serve_app.limits.gcra import Taken
from serve_app.limits.heard import Heard, Seen
from serve_app.limits.hold import NO_LEASES, Charge, Hold, Said
from serve_app.limits.learning import Learned
from serve_app.limits.scope import Scope, Used, lease_text
from serve_app.limits.step import Asked, Judged, judge, settle
from serve_app.limits.window import window_at
from serve_app.store import keys

NEVER_MS = 10**15
"""Milliseconds after which a hold of our own ends by itself: we settle it, or end with it."""

_BEFORE = "before"
"""Names the leases of requests that were let in by the store."""


@dataclass(frozen=True, slots=True)
class _Running:
    """What one request holds here: its tenant, and what it took of which scopes."""

    tenant: str
    scopes: Sequence[Scope]
    leases: tuple[str, ...]


class LocalLimits:
    """The limits of one gateway while its store is away.

    Args:
        grace_s: how long ago a caller may have been seen.
        gateways: how many gateways share the limits.
        defaults: limits of whoever has none of that kind, as steps read them.
        ttl_ms: of a hold in the store.
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
        self._gateways, self._defaults = gateways, defaults
        self._heard = Heard(grace_s=grace_s, ttl_ms=ttl_ms, clock=clock)
        self._scopes: dict[str, dict[str, Scope]] = {}
        self._running: dict[str, _Running] = {}

    @property
    def knows_somebody(self) -> bool:
        """Whether there is a caller who could go on."""
        return self._heard.lately

    @property
    def running(self) -> int:
        """How many requests hold something here."""
        return len(self._running)

    def saw(self, held: Hold) -> None:
        """Remember what the store said; if it has taken something, nothing more is counted here."""
        if held.state is not State.KNOWN:
            self._heard.forget(held.claim)
            return
        self._heard.note(held)
        if any(held.leases):
            self._scopes.pop(held.claim.tenant, None)

    def ended(self, held: Hold, charge: Charge | None) -> None:
        """Take note that a request has ended which the store had let in."""
        self._heard.ended(held, charge)
        scopes = self._scopes.get(held.claim.tenant)
        if not scopes:
            return
        for name in _names(held.claim, held.model):
            leases = scopes[name].leases if name in scopes else {}
            before = next((lease for lease in leases if lease.startswith(f"{_BEFORE} ")), "")
            leases.pop(before, None)

    def all_settled(self) -> None:
        """Forget the tenants of which nothing runs here; the store knows all that has ended."""
        busy = {one.tenant for one in self._running.values()}
        for tenant in self._scopes.keys() - busy:
            del self._scopes[tenant]

    def hold(
        self, claim: Claim, demand: Demand | None, terms: Terms, model: str, request: str
    ) -> Hold:
        """Judge a request by what is remembered, and take it from this gateway's share.

        Raises:
            StoreUnavailable: the caller was not seen lately, or a limit cannot be judged here.
        """
        seen, count, now_us = self._heard.caller(claim), self._gateways(), self._heard.now_us()
        if seen is None:
            raise _cannot("this caller cannot be judged without it")
        wholes, names = self._binds(claim, seen, model), _names(claim, model)
        shares = [_share(one, count, scope) for one, scope in zip(wholes, SCOPES, strict=True)]
        begun = self._scopes.setdefault(claim.tenant, {})
        scopes = [
            begun.get(name) or self._begun(name, scope, one, count, now_us)
            for name, scope, one in zip(names, SCOPES, shares, strict=True)
        ]
        begun.update((name, scopes[at]) for at, name in enumerate(names) if shares[at].bounds)
        judged = judge(scopes, shares, _asked(demand, terms, request), now_us)
        held = Hold(claim, State.KNOWN, seen.attributes, seen.tenant_attributes, now_us)
        held = _told(judged, demand, replace(held, request=request, model=model, local=True))
        if demand is None or judged.refusing is not None:
            return held
        self._running[request] = _Running(claim.tenant, scopes, judged.leases)
        return replace(held, leases=_owed(wholes, request, now_us))

    def settle(self, held: Hold, charge: Charge | None) -> None:
        """Settle a hold of this gateway's own; a second call does nothing."""
        running = self._running.pop(held.request, None)
        if running is not None:
            used = {} if charge is None else charge.units()
            settle(running.scopes, running.leases, used, self._heard.now_us())

    def _binds(self, claim: Claim, seen: Seen, model: str) -> tuple[Bounds, ...]:
        """Return what binds a caller wherever it calls."""
        own = _written(seen.attributes) or claim.limits or ""
        return bind(own, self._defaults, _written(seen.tenant_attributes), model)

    def _begun(self, name: str, whose: str, share: Bounds, count: int, now_us: int) -> Scope:
        """Return a scope as it begins: with the share of what was left.

        Raises:
            StoreUnavailable: nobody said lately what was left.
        """
        scope, used = Scope(), dict.fromkeys(share.bounds, 0)
        for bound in share.bounds:
            left = self._heard.left(name, bound.field)
            if left is None and not bound.shadow:
                raise _cannot(f"what is left of {whose}:{bound.kind.name} is not known")
            if left is not None:
                used[bound] = max(bound.burst - left // count, 0)
        scope.take(_BEFORE, used, now_us, 0)
        seats = [used[bound] for bound in used if bound.kind.unit == "seats" and not bound.shadow]
        scope.leases = {f"{_BEFORE} {number}": NEVER_MS for number in range(sum(seats))}
        return scope


def _share(whole: Bounds, count: int, whose: str) -> Bounds:
    """Return a scope's limits, divided among ``count`` gateways.

    Raises:
        StoreUnavailable: one is too small for that; a shadow limit is passed over.
    """
    return replace(whole, bounds=tuple(_divided(whole.bounds, count, whose)))


def _divided(bounds: Iterable[Bound], count: int, whose: str) -> Iterable[Bound]:
    for bound in bounds:
        share = replace(bound, limit=bound.limit // count, burst=bound.burst // count)
        if not bound.limit or (share.limit and share.burst):
            yield share
        elif not bound.shadow:
            name = f"{whose}:{bound.kind.name}"
            raise _cannot(f"{name} is too small to be divided among {count} gateways")


def _asked(demand: Demand | None, terms: Terms, request: str) -> Asked:
    """Return a request as the steps see it, estimated without what the store has learned."""
    learned, asked = Learned(), demand or Demand()
    tokens = learned.input_tokens(asked.text_bytes, asked.fixed_tokens)
    return Asked(demand, terms, tokens, learned.p95, request, NEVER_MS)


def _told(judged: Judged, demand: Demand | None, held: Hold) -> Hold:
    """Return ``held`` with what the limits say of it."""
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
        held,
        said=said,
        refusing=None if judged.refusing is None else said[judged.refusing],
        input_tokens=judged.estimate.input_tokens,
        output_tokens=(demand or Demand()).choices * judged.estimate.output_tokens,
        cap=judged.estimate.cap,
    )


def _owed(wholes: Sequence[Bounds], request: str, now_us: int) -> tuple[str, ...]:
    """Return leases with which the store, which holds nothing, charges all that was used."""
    leases = list(NO_LEASES)
    for at, whole in enumerate(wholes):
        terms: dict[str, Taken | Used] = {}
        for bound in whole.bounds:
            if bound.limit and bound.kind.period == "minute":
                terms[bound.field] = Taken(0, 1.0, bound.limit)
            elif bound.limit and bound.kind.period:
                terms[bound.field] = Used(0, window_at(bound.kind.period, now_us).number)
        leases[at] = lease_text(request, now_us, terms) if terms else ""
    return tuple(leases)


def _names(claim: Claim, model: str) -> list[str]:
    """Return the names of the scopes of a request."""
    return keys.scopes(claim.tenant, claim.bucket, model)[::2]


@lru_cache(maxsize=1_000)
def _written(attributes: str) -> str:
    """Return the limits in a record's attributes, as steps read them."""
    return understood(json.loads(attributes).get("limits") or {}).text() if attributes else ""


def _cannot(why: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"The state store does not answer, and {why}; try again shortly.", retry_after_s=1.0
    )
