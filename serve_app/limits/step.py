"""The atomic steps *hold*, *renew* and *settle*, on scopes in memory. Pure.

``store/lua/hold.lua``, ``renew.lua`` and ``settle.lua`` do the same inside the store; a test holds
the two equal. A gateway that has lost its store counts with these as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serve_app.limits.bound import Bound, Bounds
from serve_app.limits.demand import Demand, Estimate, Terms, counted, estimated
from serve_app.limits.gcra import Decision
from serve_app.limits.hold import NO_LEASES
from serve_app.limits.scope import Scope

_NOTHING = dict.fromkeys(("requests", "seats", "input", "output", "tokens", "cost"), 0)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as the steps see it.

    Attributes:
        demand: what its body says; None only looks.
        terms: what its model adds.
        input_tokens: of its prompt, estimated.
        learned: output tokens that 95 of 100 replies do not exceed.
        request: names its lease.
        ttl_ms: until the lease is given back, unless it is renewed.
    """

    demand: Demand | None
    terms: Terms
    input_tokens: int
    learned: int
    request: str
    ttl_ms: int


@dataclass(frozen=True, slots=True)
class Judged:
    """What the limits say.

    Attributes:
        said: of each bound, in the order of the scopes.
        refusing: which of them refuses; None if the request was let in.
        leases: one for each scope, empty where nothing is bound or nothing was taken.
        estimate: what the request is expected to use.
    """

    said: tuple[tuple[int, Bound, Decision], ...]
    refusing: int | None
    leases: tuple[str, ...]
    estimate: Estimate


def judge(scopes: Sequence[Scope], binds: Sequence[Bounds], asked: Asked, now_us: int) -> Judged:
    """Ask every bound, and take from all or from none."""
    bounds = [(at, bound) for at, one in enumerate(binds) for bound in one.bounds]
    demand = asked.demand or Demand()
    estimate = estimated(demand, asked.terms, binds, asked.input_tokens, asked.learned)
    full = counted(demand, asked.terms, estimate.input_tokens, estimate.output_tokens)
    least = counted(demand, asked.terms, demand.least_tokens, 1)
    if asked.demand is None:
        full = least = _NOTHING
    for scope, one in zip(scopes, binds, strict=True):
        if one.bounds:
            scope.release_expired(one.bounds, now_us)
    told = [
        scopes[at].ask(bound, full[bound.kind.unit], least[bound.kind.unit], now_us)
        for at, bound in bounds
    ]
    refusing = tightest([*zip((bound for _, bound in bounds), told, strict=True)])
    leases: tuple[str, ...] = NO_LEASES
    if refusing is not None:
        told = [
            scopes[at].ask(bound, 0, 0, now_us) if said.allowed else said
            for (at, bound), said in zip(bounds, told, strict=True)
        ]
    elif asked.demand is not None:
        fits = [bound for (_, bound), said in zip(bounds, told, strict=True) if said.allowed]
        leases = _taken(scopes, binds, {id(bound) for bound in fits}, full, asked, now_us)
    said = tuple((at, bound, one) for (at, bound), one in zip(bounds, told, strict=True))
    return Judged(said, refusing, leases, estimate)


def tightest(told: Sequence[tuple[Bound, Decision]]) -> int | None:
    """Return which bound refuses, the one that refuses longest; None if none does."""
    worst: int | None = None
    for at, (bound, said) in enumerate(told):
        if bound.shadow or said.allowed:
            continue
        other_us = 0 if worst is None else told[worst][1].wait_us
        if other_us != -1 and (said.wait_us == -1 or said.wait_us > other_us):
            worst = at
    return worst


def settle(
    scopes: Sequence[Scope], leases: Sequence[str], used: Mapping[str, int], now_us: int
) -> None:
    """Put what was ``used``, by unit, in the place of what ``leases`` hold; call it once."""
    for scope, lease in zip(scopes, leases, strict=True):
        if lease:
            scope.settle(lease, used, now_us)


def renew(scopes: Sequence[Scope], leases: Sequence[str], ttl_ms: int, now_us: int) -> int:
    """Hold on to what still runs; return how many leases were still there."""
    now_ms = now_us // 1_000
    there = [
        (scope, lease)
        for scope, lease in zip(scopes, leases, strict=True)
        if scope.leases.get(lease, 0) > now_ms
    ]
    for scope, lease in there:
        scope.leases[lease] = now_ms + ttl_ms
    return len(there)


def _taken(
    scopes: Sequence[Scope],
    binds: Sequence[Bounds],
    fits: set[int],
    full: Mapping[str, int],
    asked: Asked,
    now_us: int,
) -> tuple[str, ...]:
    until_ms = now_us // 1_000 + asked.ttl_ms
    leases = []
    for scope, one in zip(scopes, binds, strict=True):
        if one.bounds:
            scope.keep(one.bounds, now_us)
        units = {
            bound: min(full[bound.kind.unit], bound.burst)
            for bound in one.bounds
            if id(bound) in fits
        }
        leases.append(scope.take(asked.request, units, now_us, until_ms) if one.bounds else "")
    return tuple(leases)
