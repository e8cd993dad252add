"""How much: may this caller send this request now, and what did it use?

Words: a *rate* refills evenly; its *bucket* lies in the store as one number (TAT, the time at
which it will be full again); a *claim* is who somebody says to be; a *hold* is what one request
took from the buckets of its caller and its tenant; *settling* a hold writes down the real use or
gives the hold back, once.

**Decided: GCRA**, not windows or counters. One number per bucket, exact at any moment, no burst at
a window's edge, and the wait it names is true.

**Decided: money is whole nanos.** A price is read as it was written (0.15, not the binary fraction
next to it), and what a request cost is a whole number, so ledgers add up to the last digit. Only
an estimate is a double.

**Decided: estimates are learned per tenant and model**, not per model: one tenant's Chinese novels
say nothing of another's code. A handful of numbers each, gone after thirty idle days.

**Decided: the record that proves a claim rides in the hold's call**, with the tenant's record and
the mark of a revoked token. Who the caller is and whether it may go on are read in one atomic
step, so a revoked key, a disabled user or a changed limit never meets a cached one.
"""

from serve_app.limits.gcra import Decision, Rate, give_back, take, take_all
from serve_app.limits.hold import Claim, Hold, Holds, Outcome, State, Taken, Usage
from serve_app.limits.learning import Learned
from serve_app.limits.prices import cost_nanos, nanos_per_token

__all__ = [
    "Claim",
    "Decision",
    "Hold",
    "Holds",
    "Learned",
    "Outcome",
    "Rate",
    "State",
    "Taken",
    "Usage",
    "cost_nanos",
    "give_back",
    "nanos_per_token",
    "take",
    "take_all",
]
