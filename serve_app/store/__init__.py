"""The store: the only room that knows Redis.

Words: a *step* is one Lua file, one atomic change; a *key* is a name in :mod:`keys`, which is also
the table of what lies in the store and when it goes; the *embedded* store is a Valkey of our own; a
*state* is ``ok`` or what is the matter (:mod:`states`); a *link* is a way to one server, a cluster
or sentinels; a *probe* is a small write that finds out whether a server is well again.

**Decided: plain scripts, not a function library.** A step is called by the SHA of its text, so two
versions of the gate run side by side during a rolling update, each with its own steps. A function
library has one name on the server: the newer gateway would replace the older one's steps under it.
Shared Lua is put into each script by ``--@include`` when the text is read.

**Decided: every key that a step touches carries a hash tag**, ``{t:tenant}``, ``{m:model}`` or
``{a}`` (addresses that failed), and no step touches two tags, so that a Redis Cluster can hold
them. Every step runs on one server, on a cluster of three primaries and behind Sentinel in the same
test. A call of many keys goes to each server that has some, and fails if one of them does.

**Decided: a call has one time limit over all it takes**: waiting for a free connection, connecting,
asking a sentinel, a second try on a fresh connection. A limit per read, as the client library has
it, adds up, and costs a timer for each. What does many things at once (a page, an import) may take
ten times as long. What the store is not to blame for is our own event loop's being busy: when the
time is up, it takes a few turns more, in which an answer that has come is read.

**Decided: one failure is enough** to refuse the next call at once, where nothing can be had from
the server, because a probe goes out in the same moment: a hiccup costs those that it meets and a
round trip, and who waits for a server that is silent is one crowd, not every request. To wait for
three failures would let a silent store hold up three rounds of callers. But a server that has
answered anybody since the failed call began is busy, not away: that call fails alone. Further
probes go out every 0.2 s, one at a time, from each process for itself, so that no request has to be
the one that tries.

**Decided: a server that answers and refuses is asked on**: a replica, or one without memory, still
reads, and what it is asked to remove may be what mends it. Its state is told, and probes see when
it is over.

**Decided: a breaker belongs to one server**, not to the store: while one primary of a cluster is
away, the tenants of the others are served. Behind Sentinel there is one, whoever is the primary.

**Decided: a listener trusts no silence.** It asks every half second whether the other side is
there, and lets go whenever calls are refused at once; what it misses meanwhile, the look catches.

**Decided: the embedded Valkey serves one node**, on loopback, behind a random password. A cluster
of several nodes names a store of its own; a gateway elsewhere says so instead of hanging.

**Decided: time is the store's.** A step reads ``TIME``; no caller hands in a clock.
"""

from serve_app.store import adapters, keys, registry
from serve_app.store.adapters import Loaded
from serve_app.store.connection import Store
from serve_app.store.embedded import EmbeddedStore, claim_folder, running_url, store_url
from serve_app.store.guarded import Watch
from serve_app.store.registry import KEY_HEADER, Address
from serve_app.store.scripts import TEXTS, header_counts
from serve_app.store.states import STATES

__all__ = [
    "KEY_HEADER",
    "STATES",
    "TEXTS",
    "Address",
    "EmbeddedStore",
    "Loaded",
    "Store",
    "Watch",
    "adapters",
    "claim_folder",
    "header_counts",
    "keys",
    "registry",
    "running_url",
    "store_url",
]
