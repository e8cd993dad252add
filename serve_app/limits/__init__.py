"""How much: may this caller send this request now, and what did it use?

Words: a *limit* binds a *scope*: a key, a tenant, or one of them on one model. A *rate* refills
evenly; its *bucket* lies in the store as a debt. A *window* is a day or a month in UTC. A *claim*
is who somebody says to be. A *demand* is what a request's body says it may use, its *estimate*
what it is expected to use. A *hold* is what one request took from every limit that binds it; what
it took from one scope is a *lease*, which ends by itself unless it is renewed. *Settling* a hold
charges what was used and gives back the rest, once. The *ledger* is what all of that adds up to, by
caller, model, class and hour.

**Decided: GCRA**, not windows or counters, for what refills by the minute. Exact at any moment, no
burst at a window's edge, and the wait it names is true. Debts are whole numbers of units × µs, so
that no limit, however large, is rounded.

**Decided: a request holds when it comes and is charged when it ends**, and the bucket refills
meanwhile: first what was charged, then what is held, of every running request the same share. What
has come back of a hold by its end pays for its use; of the rest only what it used stays owed. So
many requests that end in any order are each charged to the token, a long one is not charged twice,
and no window ever admits more than it should. To undo takes in the order of taking was tried first:
of fifty at once, each counted the holds of the later ones, and ten times what was used was missing.
The price, where others wait for every unit and requests run longer than a bucket takes to refill:
what came back of a hold beyond its use is lost. What gets through of what is allowed, by how long
requests run, where 1 is the time in which a burst refills (``python -m benchmarks.limits loss``):

    ==================  ====  ====  ====  ====  ====  ====  ====
    a request runs for  0.1   0.2   0.33  0.5   0.66  1     2
    holds 1 × its use   100%  100%  100%  100%  100%  100%  100%
    holds 1.5 ×         100%  100%  100%  100%  100%   98%   76%
    holds 2 ×           100%  100%  100%  100%   97%   76%   57%
    holds 3 ×           100%  100%  100%   80%   66%   51%   38%
    holds 5 ×           100%  100%   67%   48%   40%   31%   23%
    holds 10 ×          100%   52%   34%   24%   20%   15%   11%
    ==================  ====  ====  ====  ====  ====  ====  ====

**Decided: what running requests hold lies beside what was used, in each scope**, not in a list of
requests. So whoever asks a scope gives back what gateways that died left there; no sweeper is
needed, no step touches another scope's keys, and concurrency is how many leases there are.

**Decided: money is whole nanos.** A price is read as it was written (0.15, not the binary fraction
next to it), and what a request cost is a whole number, so ledgers add up to the last digit. Only
an estimate is a double.

**Decided: estimates are learned per tenant and model**, not per model: one tenant's Chinese novels
say nothing of another's code. A handful of numbers each, gone after thirty idle days.

**Decided: the record that proves a claim rides in the hold's call**, with the tenant's record and
the mark of a revoked token. Who the caller is and whether it may go on are read in one atomic
step, so a revoked key, a disabled user or a changed limit never meets a cached one.

**Decided: the ledger keeps sums, not requests.** One hash per caller and hour grows with the models
it uses and not with its traffic, and is added to by the step that settles, so that ledger and
buckets cannot part.

**Decided: without its store a gateway lets in its share of what it last heard was left**, and what
it did not hear of lately it refuses. Rounded down, and with no credit for what others may have
given back: so all of them together never let in more than was left and refills, as long as they
heard the same. What one has not heard, because another used it since, or revoked it, it cannot
know; ``grace_s`` bounds that. A gateway that alone is cut off counts with its share as well, while
the others have the whole. Nothing of it outlives the loss: requests are charged in the store when
they have ended, against the whole limits, as if it had held nothing.
"""

from serve_app.limits.bound import SCOPES
from serve_app.limits.claim import Claim, State
from serve_app.limits.demand import Demand, Terms
from serve_app.limits.hold import Charge, Hold, Said, Usage
from serve_app.limits.holds import Holds
from serve_app.limits.ledger import KEPT_HOURS, NO_MODEL, Ledger
from serve_app.limits.local import LocalLimits
from serve_app.limits.prices import cost_nanos, nanos_per_token
from serve_app.limits.report import FINEST, HOUR_S, MEMBERS, Report

__all__ = [
    "FINEST",
    "HOUR_S",
    "KEPT_HOURS",
    "MEMBERS",
    "NO_MODEL",
    "SCOPES",
    "Charge",
    "Claim",
    "Demand",
    "Hold",
    "Holds",
    "Ledger",
    "LocalLimits",
    "Report",
    "Said",
    "State",
    "Terms",
    "Usage",
    "cost_nanos",
    "nanos_per_token",
]
