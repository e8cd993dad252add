"""What one scope remembers: the values of its limits, and what running requests hold of them. Pure.

``store/lua/shared/scope.lua`` and its neighbours do the same inside the store; a test holds the
two equal. A gateway that has lost its store counts with these as well.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from serve_app.allowance import BY_LETTER
from serve_app.limits import gcra, window
from serve_app.limits.bound import Bound
from serve_app.limits.gcra import Bucket, Decision, Rate, Taken
from serve_app.limits.window import Window

RELEASED_AT_ONCE = 16
SEAT_WAIT_US = 1_000_000
"""Nobody knows when a running request ends; whoever needs its place asks again in a second."""

_LEASE = re.compile(r"\S+ (\d+)(.*)")
_TERM = re.compile(r"([A-Za-z]+) (\d+) (\d+) (\d+)")


def lease_text(request: str, at_us: int, taken: Mapping[str, Taken]) -> str:
    """Return what a request holds of a scope, as the store keeps it."""
    terms = [f"{name} {one.units} {one.total} {one.limit}" for name, one in taken.items()]
    return " ".join([f"{request} {at_us}", *terms])


def lease_read(text: str) -> tuple[int, dict[str, Taken]]:
    """Return since when a lease is held, and what it holds."""
    found = _LEASE.fullmatch(text)
    if found is None:
        return 0, {}
    at_us = int(found[1])
    terms = [(name, [int(one) for one in rest]) for name, *rest in _TERM.findall(found[2])]
    return at_us, {name: Taken(*figures) for name, figures in terms}


@dataclass(slots=True)
class Scope:
    """The state of one scope; changed in place.

    Attributes:
        born_us: when it began to remember; before that everything was full.
        values: of each field.
        leases: until when each is held, ms.
    """

    born_us: int | None = None
    values: dict[str, Bucket | Window] = field(default_factory=dict)
    leases: dict[str, int] = field(default_factory=dict)

    def release_expired(self, bounds: Sequence[Bound], now_us: int) -> None:
        """Give back what gateways that are gone still hold of ``bounds``, some of it at least."""
        expired = sorted(
            (until_ms, lease)
            for lease, until_ms in self.leases.items()
            if until_ms <= now_us // 1_000
        )
        if expired:
            self.keep(bounds, now_us)
        for _, lease in expired[:RELEASED_AT_ONCE]:
            self._settle(lease, {}, now_us, only=self.values)

    def ask(self, bound: Bound, units: int, least: int, now_us: int) -> Decision:
        """Return what ``bound`` says to ``units``, of which it gives as many as it can ever hold.

        If it can never hold the ``least``, it never will.
        """
        never, units = least > bound.burst, min(units, bound.burst)
        units = 0 if never else units
        if bound.kind.unit == "seats":
            said = self._ask_seats(bound, units, now_us)
        elif bound.limit == 0:
            said = Decision(0, 0, 0)
        elif bound.kind.period == "minute":
            bucket = self._bucket(bound, now_us)
            said = gcra.ask(bucket, Rate(bound.limit, bound.burst), units, now_us)
        else:
            said = window.ask(self._window(bound.field, now_us), bound.limit, units, now_us)
        return replace(said, wait_us=-1) if never else said

    def _ask_seats(self, bound: Bound, units: int, now_us: int) -> Decision:
        held = sum(until_ms > now_us // 1_000 for until_ms in self.leases.values())
        left = bound.limit - held - units
        reset_us = SEAT_WAIT_US if held + units else 0
        if left < 0 and units:
            return Decision(max(left + units, 0), SEAT_WAIT_US, reset_us)
        return Decision(max(left, 0), 0, reset_us)

    def take(self, request: str, units: Mapping[Bound, int], now_us: int, until_ms: int) -> str:
        """Take ``units`` of each bound and return the lease."""
        taken: dict[str, Taken] = {}
        for bound, count in units.items():
            name = bound.field
            if bound.limit == 0 or bound.kind.unit == "seats":
                continue
            if bound.kind.period == "minute":
                bucket, rate = self._bucket(bound, now_us), Rate(bound.limit, bound.burst)
                self.values[name], taken[name] = gcra.take(bucket, rate, count, now_us)
            else:
                here = self._window(name, now_us)
                self.values[name] = window.charged(here, here.number, count)
                taken[name] = Taken(count, here.number, 0)
        if taken and self.born_us is None:
            self.born_us = now_us
        lease = lease_text(request, now_us, taken)
        self.leases[lease] = until_ms
        return lease

    def keep(self, bounds: Sequence[Bound], now_us: int) -> None:
        """Bring all values up to date and forget those of other limits that matter no more.

        A limit that comes back knows what was used of it. Once one was forgotten, what is held
        from before gives nothing back.
        """
        kept = {one.field: one for one in bounds if one.limit and one.kind.period}
        values: dict[str, Bucket | Window] = {}
        for name, bound in kept.items():
            rate = bound.kind.period == "minute"
            bucket = gcra.paid(self._bucket(bound, now_us), now_us)
            values[name] = bucket if rate else self._window(name, now_us)
        for name in self.values.keys() - kept.keys():
            was = self.values[name]
            value = gcra.paid(was, now_us) if isinstance(was, Bucket) else was
            if isinstance(value, Bucket):
                matters = value.debt > 0
            else:
                matters = value.number == self._window(name, now_us).number
            if matters:
                values[name] = value
            else:
                self.born_us = now_us
        self.values = values
        self.born_us = now_us if values and self.born_us is None else self.born_us

    def settle(self, lease: str, used: Mapping[str, int], now_us: int) -> None:
        """Put what was ``used``, by unit, in the place of what ``lease`` holds.

        A lease whose time is over is given back first, whoever noticed, and is charged all of it.
        """
        for name, value in self.values.items():
            if isinstance(value, Bucket):
                self.values[name] = gcra.paid(value, now_us)
        self._settle(lease, used, now_us)

    def _settle(
        self,
        lease: str,
        used: Mapping[str, int],
        now_us: int,
        only: Collection[str] | None = None,
    ) -> None:
        until_ms = self.leases.pop(lease, None)
        at_us, terms = lease_read(lease)
        for name, taken in terms.items():
            if only is not None and name not in only:
                continue
            units = used.get(BY_LETTER[name[-1]].unit, 0)
            if until_ms is not None and until_ms <= now_us // 1_000:
                self._correct(name, taken, -taken.units, at_us, now_us)
            elif until_ms is not None:
                units -= taken.units
            self._correct(name, taken, units, at_us, now_us)

    def _correct(self, name: str, taken: Taken, more: int, at_us: int, now_us: int) -> None:
        """Charge so much ``more`` than was taken at ``at_us``, or give back as much as less."""
        value = self._corrected(name, taken, more, at_us, now_us)
        spent = value.debt if isinstance(value, Bucket) else value.used
        if name in self.values or spent:
            self.values[name] = value
            self.born_us = now_us if self.born_us is None else self.born_us

    def _corrected(
        self, name: str, taken: Taken, more: int, at_us: int, now_us: int
    ) -> Bucket | Window:
        if BY_LETTER[name[-1]].period != "minute":
            return window.charged(self._window(name, now_us), taken.total, more)
        was = self.values.get(name)
        bucket = was if isinstance(was, Bucket) else Bucket(at_us=now_us, limit=taken.limit)
        if more >= 0:
            return gcra.take(bucket, Rate(bucket.limit, 1), more, now_us)[0]
        if at_us < (now_us if self.born_us is None else self.born_us):
            return gcra.paid(bucket, now_us)
        return gcra.give_back(bucket, taken, -more, now_us)

    def _bucket(self, bound: Bound, now_us: int) -> Bucket:
        """Return the bucket of a rate, to be paid at the limit that it has now."""
        was = self.values.get(bound.field)
        bucket = was if isinstance(was, Bucket) else Bucket(at_us=now_us)
        return replace(bucket, limit=bound.limit)

    def _window(self, name: str, now_us: int) -> Window:
        was = self.values.get(name)
        period = BY_LETTER[name[-1]].period
        return window.current(was if isinstance(was, Window) else None, period, now_us)
