"""What one scope remembers: the values of its limits, and what running requests hold of them. Pure.

``store/lua/shared/scope.lua`` and its neighbours do the same inside the store; a test holds the
two equal. A gateway that has lost its store counts with these as well.
"""

import re
from collections.abc import Mapping, Sequence
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
_TERM = re.compile(r"([A-Za-z]+) (\d+) (\S+) (\d+)")


@dataclass(frozen=True, slots=True)
class Used:
    """What one request holds of a window: units, and which window it was."""

    units: int
    number: int


def lease_text(request: str, at_us: int, taken: Mapping[str, Taken | Used]) -> str:
    """Return what a request holds of a scope, as the store keeps it."""
    terms = [
        f"{name} {one.units} {one.left:.17g} {one.limit}"
        if isinstance(one, Taken)
        else f"{name} {one.units} {one.number} 0"
        for name, one in taken.items()
    ]
    return " ".join([f"{request} {at_us}", *terms])


def lease_read(text: str) -> tuple[int, dict[str, Taken | Used]]:
    """Return since when a lease is held, and what it holds."""
    found = _LEASE.fullmatch(text)
    if found is None:
        return 0, {}
    return int(found[1]), {
        name: Taken(int(units), float(mark), int(limit))
        if int(limit)
        else Used(int(units), int(mark))
        for name, units, mark, limit in _TERM.findall(found[2])
    }


@dataclass(slots=True)
class Scope:
    """The state of one scope; changed in place.

    Attributes:
        values: of each field.
        leases: until when each is held, ms.
    """

    values: dict[str, Bucket | Window] = field(default_factory=dict)
    leases: dict[str, int] = field(default_factory=dict)

    def release_expired(self, bounds: Sequence[Bound], now_us: int) -> None:
        """Give back what gateways that are gone still hold, some of it at least."""
        expired = sorted(
            (until_ms, lease)
            for lease, until_ms in self.leases.items()
            if until_ms <= now_us // 1_000
        )
        if expired:
            self.keep(bounds, now_us)
        for _, lease in expired[:RELEASED_AT_ONCE]:
            del self.leases[lease]
            at_us, terms = lease_read(lease)
            for name in terms.keys() & self.values.keys():
                self._correct(name, terms[name], at_us, 0, now_us)

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
        taken: dict[str, Taken | Used] = {}
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
                taken[name] = Used(count, here.number)
        lease = lease_text(request, now_us, taken)
        self.leases[lease] = until_ms
        return lease

    def keep(self, bounds: Sequence[Bound], now_us: int) -> None:
        """Bring all values up to date and forget those of other limits that matter no more.

        A limit that comes back knows what was used of it.
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
                matters = value.debt + value.held > 0
            else:
                matters = value.number == self._window(name, now_us).number
            if matters:
                values[name] = value
        self.values = values

    def settle(self, lease: str, used: Mapping[str, int], now_us: int) -> None:
        """Put what was ``used``, by unit, in the place of what ``lease`` holds.

        A lease whose time is over is given back first, whoever noticed, and is charged all of it.
        """
        for name, value in self.values.items():
            if isinstance(value, Bucket):
                self.values[name] = gcra.paid(value, now_us)
        until_ms = self.leases.pop(lease, None)
        late = until_ms is not None and until_ms <= now_us // 1_000
        at_us, terms = lease_read(lease)
        for name, taken in terms.items():
            units = used.get(BY_LETTER[name[-1]].unit, 0)
            if until_ms is not None:
                self._correct(name, taken, at_us, 0 if late else units, now_us)
            if until_ms is None or late:
                self._charge(name, taken, units, now_us)

    def _correct(self, name: str, taken: Taken | Used, at_us: int, used: int, now_us: int) -> None:
        """Put ``used`` units in the place of what a request holds since ``at_us``."""
        if isinstance(taken, Used):
            here = self._window(name, now_us)
            self.values[name] = window.charged(here, taken.number, used - taken.units)
        else:
            bucket = self._settled(name, taken, now_us)
            self.values[name] = gcra.settle(bucket, taken, at_us, used, now_us)

    def _charge(self, name: str, taken: Taken | Used, used: int, now_us: int) -> None:
        """Charge ``used`` units for which nothing is held any more."""
        if isinstance(taken, Used):
            self.values[name] = window.charged(self._window(name, now_us), taken.number, used)
        else:
            self.values[name] = gcra.charge(self._settled(name, taken, now_us), used)

    def _settled(self, name: str, taken: Taken, now_us: int) -> Bucket:
        """Return the bucket that a request took from; refilled since, if it is not there."""
        was = self.values.get(name)
        fresh = Bucket(at_us=now_us, since_us=now_us, limit=taken.limit)
        return gcra.paid(was, now_us) if isinstance(was, Bucket) else fresh

    def _bucket(self, bound: Bound, now_us: int) -> Bucket:
        """Return the bucket of a rate, to be paid at the limit that it has now."""
        was = self.values.get(bound.field)
        bucket = was if isinstance(was, Bucket) else Bucket(at_us=now_us, since_us=now_us)
        return replace(bucket, limit=bound.limit)

    def _window(self, name: str, now_us: int) -> Window:
        was = self.values.get(name)
        period = BY_LETTER[name[-1]].period
        return window.current(was if isinstance(was, Window) else None, period, now_us)
