"""What a simulated line did, as figures: waits, fairness, starvation, goodput. Plain arithmetic."""

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich import box
from rich.table import Table

from benchmarks.traces import CLASSES, Request

WAITING, SERVED, TIMED_OUT, REFUSED = range(4)

WINDOW_SHARE = 0.5
"""Fairness is looked at over half of the time that the class may wait: some turns for each."""

Span = tuple[int, int]
"""From when to when, us."""


@dataclass(slots=True)
class Run:
    """How each request ended, by its number.

    Attributes:
        how: one of :data:`WAITING` (to be found nowhere in the end), :data:`SERVED`,
            :data:`TIMED_OUT`, :data:`REFUSED`.
        when_us: when it was seated, dropped or turned away.
    """

    how: "array[int]"
    when_us: "array[int]"

    def end(self, at: int, how: int, now_us: int) -> None:
        """Note how a request ended; it ends once."""
        if self.how[at] != WAITING:
            raise RuntimeError(f"request {at} ended twice")
        self.how[at], self.when_us[at] = how, now_us


@dataclass(frozen=True, slots=True)
class Figures:
    """What a class got.

    Attributes:
        waits_s: p50, p95, p99 and the longest of those that were served.
        jain: see :func:`jain`; None if no two tenants waited through a window.
        starved_s: the longest time in which a flow waited and none of its requests was served.
        goodput: tokens a second of those that were served, each within its deadline.
        ended: how many were served, timed out and refused.
    """

    waits_s: tuple[float, float, float, float]
    jain: float | None
    starved_s: float
    goodput: float
    ended: tuple[int, int, int]


def figures(asked: list[Request], run: Run, class_: int) -> Figures:
    """Return what the requests of a class got."""
    mine = [at for at, request in enumerate(asked) if request.class_ == class_]
    served = [at for at in mine if run.how[at] == SERVED]
    waits = sorted(run.when_us[at] - asked[at].at_us for at in served)
    ends = [sum(run.how[at] == how for at in mine) for how in (SERVED, TIMED_OUT, REFUSED)]
    lasted_s = (asked[-1].at_us - asked[0].at_us) / 1e6
    flows = by_tenant(asked, run, mine)
    return Figures(
        (*(percentile(waits, share) / 1e6 for share in (0.5, 0.95, 0.99, 1.0)),),
        jain(flows, int(CLASSES[class_].max_wait_s * 1e6 * WINDOW_SHARE)),
        max((gap for flow in flows for gap in flow.gaps()), default=0) / 1e6,
        sum(asked[at].tokens for at in served) / max(lasted_s, 1e-6),
        (ends[0], ends[1], ends[2]),
    )


def percentile(ordered: list[int], share: float) -> int:
    """Return the value that ``share`` of ``ordered`` do not exceed; 0 of none."""
    return ordered[max(-int(-len(ordered) * share // 1) - 1, 0)] if ordered else 0


@dataclass(slots=True)
class Served:
    """One tenant's requests of a class.

    Attributes:
        waited: when any of them waited, in order; nothing overlaps.
        seated: when one of them was seated, and the cost per weight, in order.
    """

    waited: list[Span]
    seated: list[tuple[int, float]]

    def gaps(self) -> Iterator[int]:
        """Yield for how long the flow waited and nobody of it was seated, us."""
        times, at = [when for when, _ in self.seated], 0
        for begin, end in self.waited:
            last = begin
            while at < len(times) and times[at] <= end:
                if times[at] > last:
                    yield times[at] - last
                    last = times[at]
                at += 1
            yield end - last


def by_tenant(asked: list[Request], run: Run, mine: Iterable[int]) -> list[Served]:
    """Return when each tenant waited and was served."""
    waits: dict[str, list[Span]] = defaultdict(list)
    seats: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for at in mine:
        request, when_us = asked[at], run.when_us[at]
        if when_us > request.at_us:
            waits[request.tenant].append((request.at_us, when_us))
        if run.how[at] == SERVED:
            seats[request.tenant].append((when_us, request.cost / request.weight))
    return [Served(union(waits[whose]), sorted(seats[whose])) for whose in waits.keys() | seats]


def union(spans: list[Span]) -> list[Span]:
    """Return the times that any of ``spans`` covers."""
    found: list[Span] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found


def jain(flows: list[Served], window_us: int) -> float | None:
    """Return how fairly those were served that waited: Jain's index, 1 is equal.

    Time is cut into windows. Those tenants count in a window that had a request of the class in
    line from its begin to its end without a break; x of each is the real cost per weight, tokens,
    of its requests that were seated in the window, and the window's index is
    (sum of x)^2 / (tenants * sum of x^2). The mean of the windows with at least two such tenants is
    told, each window as often as it has tenants; a window in which none of them was served says
    nothing. Source: Jain, Chiu, Hawe 1984.
    """
    shares: dict[int, list[float]] = defaultdict(list)
    for flow in flows:
        got: dict[int, float] = defaultdict(float)
        for when_us, cost in flow.seated:
            got[when_us // window_us] += cost
        for begin, end in flow.waited:
            for window in range(-(-begin // window_us), end // window_us):
                shares[window].append(got[window])
    told = [one for one in shares.values() if len(one) > 1 and any(one)]
    many = sum(map(len, told))
    return sum(sum(one) ** 2 / sum(x * x for x in one) for one in told) / many if many else None


def table() -> Table:
    """Return the table without its rows, to be printed as Markdown."""
    told = Table(box=box.MARKDOWN)
    told.add_column("policy: class")
    for name in ("wait p50, s", "p95", "p99", "max", "Jain", "starved, s", "tokens/s"):
        told.add_column(name, justify="right")
    for name in ("served", "timed out", "refused"):
        told.add_column(name, justify="right")
    return told


def add_rows(told: Table, policy: str, asked: list[Request], run: Run) -> None:
    """Add a row for each class that was asked for."""
    for class_ in sorted({request.class_ for request in asked}):
        got = figures(asked, run, class_)
        fair = "" if got.jain is None else f"{got.jain:.3f}"
        cells = [*(f"{wait:.1f}" for wait in got.waits_s), fair, f"{got.starved_s:.0f}"]
        cells += [f"{got.goodput:,.0f}", *(f"{ended:,}" for ended in got.ended)]
        told.add_row(f"{policy}: {CLASSES[class_].name}", *cells)
