"""When: whose turn is it, and how many replicas should there be?

Words: a *seat* is permission to run one request on one replica; a *ticket* is a place in line; a
gateway *tends* the line by showing that it lives and seating whom a lost message forgot; a replica
*beats*.

**Decided: the line lives in the store**, not in a process: one order across all gateways, and a
gateway's death costs only its own requests. Seats name a replica, so the line, capacity and routing
are one decision.

**Decided: waiters are woken by publish/subscribe**, one channel a gateway. A list per gateway and
model would have to be declared by whoever calls the step, and nobody knows all gateways; a message
needs no key. A lost message is caught by a look every 250 ms.

**Decided: without the store there is no line.** A gateway lends its share of the seats it last
heard of, less those that the store lent it before. Who finds none asks again, the store first, so
that it stands in line as soon as there is one.

**Decided: one class, first come first served.** Classes and fairness widen ``order.py`` and the
steps it is the twin of; nothing else knows the order.

**Decided: replicas follow the line, not the requests that Serve counts.** What waits in the store
is invisible to Serve, so every gateway reports it and one application-level policy decides.
"""

from serve_app.queueing.autoscaling import (
    LOOK_BACK_S,
    REPORT_INTERVAL_S,
    replicas_for_line,
    report,
    wanted_replicas,
)
from serve_app.queueing.line import Line
from serve_app.queueing.drain import retry_after_s
from serve_app.queueing.seat import Load, Seat

__all__ = [
    "LOOK_BACK_S",
    "REPORT_INTERVAL_S",
    "Line",
    "Load",
    "Seat",
    "replicas_for_line",
    "report",
    "retry_after_s",
    "wanted_replicas",
]
