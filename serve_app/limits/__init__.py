"""How much: may this caller send this request now, and what did it use?

Words: a *rate* refills evenly; its *bucket* lies in the store as one number (TAT, the time at
which it will be full again); a *hold* is what one request took; *settling* a hold writes down the
real use or gives the hold back, once.

**Decided: GCRA**, not windows or counters. One number per bucket, exact at any moment, no burst at
a window's edge, and the wait it names is true.

**Decided: the key's record rides in the hold's call.** Who the caller is and whether it may go on
are read in one atomic step, so a revoked key never meets a cached limit.
"""

from serve_app.limits.gcra import Decision, Rate, give_back, take
from serve_app.limits.hold import Hold, Holds, Outcome, Usage

__all__ = ["Decision", "Hold", "Holds", "Outcome", "Rate", "Usage", "give_back", "take"]
