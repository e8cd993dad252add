"""Who goes next, and where. Plain arithmetic on a plain state: no clock, no store, no await.

``store/lua/shared`` and the ``line_*`` steps do the same; a test holds them equal, step by step.
The laws, each a property in the tests:

    Nobody overtakes inside a caller's requests: earliest deadline, then first come.
    No replica lends beyond its seats times the ceiling of the class served.
    No ticket waits that could sit, for longer than from one tending to the next.
    Between two flows of a class that both wait, what they were served per weight never differs by
        more than the dearest ticket of each; the same among the callers of a tenant.
    Idle time banks nothing: who begins to wait is not ahead of those that wait.
    A weight counts from the next ticket that is seated; a cost that is corrected moves nobody who
        sits, and in the end each flow was charged what it used.
    A flow that goes unserved counts one class higher after each ``promote_us`` of its class, before
        the flows of that class: none starves.
    A seat is given back once; a second leave changes nothing.
    Whoever is silent too long is forgotten, with everything it held, and nobody else is touched.
"""

from serve_app.queueing.order.steps import (
    GATEWAY_SILENT_MS,
    IDLE_MS,
    REPLICA_SILENT_MS,
    beat,
    cancel,
    channel_of,
    enter,
    leave,
    retire,
    roomiest,
    set_mode,
    tend,
    withdraw,
)

__all__ = [
    "GATEWAY_SILENT_MS",
    "IDLE_MS",
    "REPLICA_SILENT_MS",
    "beat",
    "cancel",
    "channel_of",
    "enter",
    "leave",
    "retire",
    "roomiest",
    "set_mode",
    "tend",
    "withdraw",
]
