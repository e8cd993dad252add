"""Take, renew and settle holds in the store, for one gateway."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from serve_app.errors import StoreUnavailable
from serve_app.limits.claim import Claim, State, record_of
from serve_app.limits.demand import Demand, Terms
from serve_app.limits.hold import NO_LEASES, Charge, Hold, Said
from serve_app.limits.local import LocalLimits
from serve_app.limits.owed import Owed, Step, sent
from serve_app.limits.report import HOUR_US
from serve_app.store import Store, keys

MARK_TTL_S = 3_600
"""Of the mark that a request was settled: the longest outage that can charge nothing twice. Each
takes about 120 bytes, 45 MB at a hundred requests a second."""


class Holds:
    """Takes, renews and settles holds; what cannot be settled now is owed.

    Args:
        store: where the limits lie.
        defaults: limits of whoever has none of that kind, as steps read them.
        ttl_s: seconds after which a hold that nobody renews is given back.
        local: judges while the store is away; None if nobody does.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        store: Store,
        *,
        defaults: str = "",
        ttl_s: float = 120.0,
        local: LocalLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._defaults, self._clock = store, defaults, clock
        self._ttl_ms, self._local = int(ttl_s * 1_000), local
        self._running: dict[str, Hold] = {}
        self._renewed_s = clock()
        self._due: set[str] = set()
        self._settling: set[asyncio.Future[None]] = set()
        self._owed = Owed(clock)

    def running(self) -> int:
        """Return how many requests hold something here."""
        return len(self._running) + (self._local.running if self._local is not None else 0)

    def owed(self) -> int:
        """Return how many requests are still to be settled."""
        return len(self._owed)

    def lost(self) -> int:
        """Return how many requests will never be settled."""
        return self._owed.lost

    @property
    def may_judge_alone(self) -> bool:
        """Whether somebody could be let in while the store is away."""
        return self._local is not None and self._local.knows_somebody

    async def hold(
        self,
        claim: Claim,
        demand: Demand | None = None,
        *,
        model: str = "",
        terms: Terms | None = None,
        request: str = "",
    ) -> Hold:
        """Judge a claim and take what a request may use, in one call; renewed until it is settled.

        Args:
            claim: who it is about.
            demand: what the request's body says; None only looks.
            model: which one it asks for.
            terms: what the model adds.
            request: names the request.

        Raises:
            StoreUnavailable: nothing is known about the caller; what was taken is given back when
                its time is over.
        """
        tenant = claim.tenant
        names = [
            record_of(claim),
            keys.tenant_record(tenant),
            keys.revoked(tenant, claim.token_id),
            keys.learned(tenant, model),
            *keys.scopes(tenant, claim.bucket, model),
        ]
        args: list[str | int | float] = [
            claim.kind,
            claim.proof,
            int(claim.tenant_must_exist),
            claim.limits or "",
            self._defaults,
            model,
            request,
            self._ttl_ms,
            demand_text(demand, terms or Terms()),
        ]
        try:
            reply = await self._store.run("hold", names, args)
        except StoreUnavailable as away:
            if self._local is None:
                raise
            try:
                return self._local.hold(claim, demand, terms or Terms(), model, request)
            except StoreUnavailable as refused:
                refused.details = away.details
                raise
        held = _read(claim, request, model, reply)
        if self._local is not None:
            self._local.saw(held)
        if any(held.leases):
            self._running[request] = held
        return held

    async def settle(self, held: Hold, charge: Charge | None = None) -> None:
        """Settle ``held`` once: charge what was used, or give all of it back.

        A second call does nothing. Never raises: what fails is owed, and paid with :meth:`pay`.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settling.add(done)
        try:
            await self._settle(held, charge)
        finally:
            self._settling.discard(done)
            done.set_result(None)

    async def _settle(self, held: Hold, charge: Charge | None) -> None:
        ran = self._running.pop(held.request, None)
        if self._local is not None and ran is not None:
            self._local.ended(held, charge)
        if charge is None and (held.local or not any(held.leases)):
            self._settle_here(held, charge)
            return
        step = settling(held, charge)
        try:
            await self._store.run("settle", *step)
        except StoreUnavailable:
            self._owed.append(step)
        finally:
            self._settle_here(held, charge)

    def _settle_here(self, held: Hold, charge: Charge | None) -> None:
        if self._local is not None and held.local:
            self._local.settle(held, charge)

    async def pay(self) -> None:
        """Settle what is owed, a bounded part of it.

        Raises:
            StoreUnavailable: some of it is still owed.
        """
        await self._owed.pay(self._store)
        if self._local is not None and not self._owed:
            self._local.all_settled()

    async def all_settled(self) -> None:
        """Return when nothing is being settled any more, and nothing owed.

        Raises:
            StoreUnavailable: some of it is still owed.
        """
        while self._settling:
            await asyncio.wait(self._settling)
        while self._owed:
            await self.pay()

    async def renew(self) -> None:
        """Renew what runs here, four times in the life of a hold; call it often.

        Raises:
            StoreUnavailable: not all was renewed; what is given back meanwhile is still charged.
        """
        now_s = self._clock()
        if now_s - self._renewed_s >= self._ttl_ms / 4_000:
            self._renewed_s, self._due = now_s, set(self._running)
        steps: dict[str, Step] = {
            held.request: (names[1::2], [self._ttl_ms, *held.leases])
            for held in map(self._running.get, self._due)
            if held is not None
            for names in [keys.scopes(held.claim.tenant, held.claim.bucket, held.model)]
        }
        failed = await sent(self._store, "renew", steps)
        self._due = set(failed)
        for err in failed.values():
            raise err


def demand_text(demand: Demand | None, terms: Terms) -> str:
    """Return a demand as the step *hold* reads it."""
    asked = demand or Demand()
    figures = (
        int(demand is not None),
        asked.text_bytes,
        asked.fixed_tokens,
        asked.choices,
        -1 if asked.cap is None else asked.cap,
        -1 if terms.output_cap is None else terms.output_cap,
        float(terms.nanos_in),
        float(terms.nanos_out),
    )
    return " ".join(map(repr, figures))


def settling(held: Hold, charge: Charge | None) -> Step:
    """Return the keys and arguments of the step that settles ``held``."""
    claim = held.claim
    tenant, hour = claim.tenant, held.now_us // HOUR_US
    names = [
        keys.settled(tenant, held.request),
        keys.usage(tenant, claim.key_id, hour),
        keys.used(tenant, hour),
        keys.learned(tenant, held.model),
        *keys.scopes(tenant, claim.bucket, held.model),
    ]
    counts, sample, class_ = "0 0 0 0 0 0 0", "", ""
    if charge is not None:
        used, class_ = charge.usage, charge.class_
        tokens = (used.input_tokens, used.output_tokens, used.cached_tokens)
        figures = (1, *tokens, charge.cost_nanos, charge.queue_ms, charge.engine_ms)
        counts = " ".join(map(str, figures))
        sample = " ".join(map(str, charge.sample or ()))
    args: list[str | int | float] = [claim.key_id, held.model, class_, counts, sample, MARK_TTL_S]
    return names, [*args, *held.leases]


def _read(claim: Claim, request: str, model: str, reply: list[Any]) -> Hold:
    state, attributes, tenant_attributes, now_us, place, *expected, cap, leases, said = reply
    rows = tuple(map(Said.from_line, said.splitlines()))
    return Hold(
        claim=claim,
        state=State(state),
        attributes=attributes,
        tenant_attributes=tenant_attributes,
        now_us=now_us,
        said=rows,
        refusing=rows[place - 1] if place else None,
        input_tokens=expected[0],
        output_tokens=expected[1],
        cap=None if cap == -1 else cap,
        leases=tuple(leases) or NO_LEASES,
        request=request,
        model=model,
    )
