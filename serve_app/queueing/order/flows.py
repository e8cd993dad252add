"""Flows: who has had how much, and so whose turn it is within a class. Pure.

A *flow* is one tenant's requests of one class; within it each *caller* (a key, a user) is a flow of
the same kind. Each has a *counter*: what it was served, in :func:`units`. Of those that wait, the
one with the smallest counter goes next. ``lua/shared/flows.lua`` does the same in the store.

The *virtual time* of a class is the counter of the flow that went last, before it was charged. Who
begins to wait is lifted to it: idle time banks nothing, and nobody pays for what was served while
no other wanted it. Source: start-time fair queueing (Goyal, Vin, Cheng 1996); charged in tokens as
the virtual token counter (Sheng et al. 2024).
"""

from dataclasses import dataclass, field
from math import floor

from serve_app.queueing.order.ordered import Ordered

UNITS_PER_TOKEN = 100
MIN_WEIGHT, MAX_WEIGHT = 0.01, 1_000.0
TOP_COUNTER = 9e15
"""Counters end here, where doubles stop counting; at 100 000 tokens a second in thirty years."""


def flow_name(class_: int, *whose: str) -> str:
    """Return the name of the flow of a tenant's requests of a class, or of one of its callers'."""
    return "|".join((f"{class_:02d}", *whose))


def class_of(flow: str) -> int:
    """Return the class of a flow."""
    return int(flow[:2])


def units(tokens: int, weight: float) -> int:
    """Return what ``tokens`` add to the counter of a flow of ``weight``."""
    weight = min(max(weight, MIN_WEIGHT), MAX_WEIGHT)
    return floor(tokens * UNITS_PER_TOKEN / weight + 0.5)


@dataclass(slots=True)
class Flow:
    """One tenant's requests of one class, or one caller's of these.

    Attributes:
        counter: units it was served.
        weight: its share, as of its last request.
        waiting: tickets that wait.
        since_us: when it was last served, or began to wait.
        lifted: classes that it counts higher for having waited.
        virtual: of a tenant: the virtual time among its callers.
        promised: of a caller: from when on places are kept for it, ms.
        inside: of a tenant: its callers that wait; of a caller: its tickets.
    """

    counter: int = 0
    weight: float = 1.0
    waiting: int = 0
    since_us: int = 0
    lifted: int = 0
    virtual: int = 0
    promised: list[int] = field(default_factory=list)
    inside: Ordered[str] = field(default_factory=Ordered)

    def begin(self, virtual: int) -> None:
        """Begin to wait or to be served after an idle time."""
        if not self.waiting:
            self.counter = max(self.counter, virtual)

    def charge(self, more: int) -> None:
        """Add ``more`` units, fewer if below 0."""
        self.counter = int(min(max(self.counter + more, 0), TOP_COUNTER))
