"""When: whose turn is it, and how many replicas should there be?

Words: a *seat* is permission to run one request on one replica; a *ticket* is a place in line; a
*flow* is what one tenant, or one caller of it, has in one class; a *rank* is the class that a
ticket counts as; a gateway *tends* the line by showing that it lives; a replica *beats*.

Who goes next is decided in :mod:`order`, plain arithmetic; ``store/lua/line_*`` does the same.

**Decided: the line lives in the store**, not in a process: one order across all gateways, and a
gateway's death costs only its own requests. Seats name a replica, so the line, capacity and routing
are one decision.

**Decided: a flow's turn comes by tokens served per weight**, start-time fair queueing on two levels
(tenants, then a tenant's callers), charged with the estimate and corrected with the use.

**Decided: a flow is lifted when it goes unserved, not when its tickets grow old.** Under a backlog
of one class all its tickets are old; lifting those would put batch work before interactive. What
a class above starves is a flow that nobody serves, and that is what is lifted, one class after
each ``promote_after_s``, before that class's own flows and under its ceiling.

**Decided: a class's ceiling is a share of each replica's seats.** The emptiest replica is asked;
where every replica offers the same, that is the share of the house, and no total has to be kept.
Ceilings do not rise from class to class, so if the first in line may not sit, nobody may.

**Decided: a conversation prefers one replica**, found by hashing its tenant and its beginning onto
a ring of replicas (:mod:`affinity`), because that one may have it in its cache. It is not waited
for, and it may lend a quarter more seats than the mean: load goes before the cache.

**Decided: who is refused has a place kept for the time it was told** (:mod:`order.promises`).
Without it, under steady overload, whoever obeys finds the place taken by a newcomer as often as
not.

**Decided: seats come free at (lent) x (given back) / (time lent)**, the time of those still lent
included. A count of those that came free says nothing of a house that has just filled up, and their
mean time alone lets a few short requests promise the end of long ones. What an engine refused was
of no use and tells nothing.

**Decided: the tally of a model is one value**, read and written whole by each step: dozens of
counters for one read and one write.

**Decided: waiters are woken by publish/subscribe**, one channel a gateway. A list per gateway and
model would have to be declared by whoever calls the step, and nobody knows all gateways; a message
needs no key. A lost message is caught by a look every 250 ms.

**Decided: without the store there is no line.** A gateway lends its share of the seats it last
heard of, less those that the store lent it before. Who finds none asks again, the store first, so
that it stands in line as soon as there is one.

**Decided: replicas follow the line, not the requests that Serve counts.** What waits in the store
is invisible to Serve, so every gateway reports it and one application-level policy decides.
"""

from serve_app.queueing.adapters import Adapters
from serve_app.queueing.autoscaling import (
    LOOK_BACK_S,
    REPORT_INTERVAL_S,
    replicas_for_line,
    report,
    wanted_replicas,
)
from serve_app.queueing.kept import Kept, Place
from serve_app.queueing.line import Line
from serve_app.queueing.seat import Asks, ClassLoad, Load, Seat, Telling, Waiting
from serve_app.store import Address, Loaded

__all__ = [
    "LOOK_BACK_S",
    "REPORT_INTERVAL_S",
    "Adapters",
    "Address",
    "Asks",
    "ClassLoad",
    "Kept",
    "Line",
    "Load",
    "Loaded",
    "Place",
    "Seat",
    "Telling",
    "Waiting",
    "replicas_for_line",
    "report",
    "wanted_replicas",
]
