"""How much: may this caller send this request now, and what did it use?

Words: a *rate* refills evenly; its *bucket* lies in the store as one number (TAT, the time at
which it will be full again); a *claim* is who somebody says to be; a *hold* is what one request
took from the buckets of its caller and its tenant; *settling* a hold writes down the real use or
gives the hold back, once; the *ledger* is what all of that adds up to, by caller, model, class and
hour.

**Decided: GCRA**, not windows or counters. One number per bucket, exact at any moment, no burst at
a window's edge, and the wait it names is true.

**Decided: the record that proves a claim rides in the hold's call**, with the tenant's record and
the mark of a revoked token. Who the caller is and whether it may go on are read in one atomic
step, so a revoked key, a disabled user or a changed limit never meets a cached one.

**Decided: the ledger keeps sums, not requests.** One hash per caller and hour grows with the models
it uses and not with its traffic, and is added to by the step that settles, so that ledger and
buckets cannot part.
"""

from serve_app.limits.gcra import Decision, Rate, give_back, take, take_all
from serve_app.limits.hold import Claim, Hold, Holds, Outcome, State, Taken, Usage
from serve_app.limits.ledger import KEPT_HOURS, NO_MODEL, Ledger
from serve_app.limits.report import FINEST, MEMBERS, Report

__all__ = [
    "FINEST",
    "KEPT_HOURS",
    "MEMBERS",
    "NO_MODEL",
    "Claim",
    "Decision",
    "Hold",
    "Holds",
    "Ledger",
    "Outcome",
    "Rate",
    "Report",
    "State",
    "Taken",
    "Usage",
    "give_back",
    "take",
    "take_all",
]
