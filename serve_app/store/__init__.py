"""The store: the only room that knows Redis.

Words: a *step* is one Lua file, one atomic change; a *key* is a name in :mod:`keys`, which is also
the table of what lies in the store and when it goes; the *embedded* store is a Valkey of our own.

**Decided: plain scripts, not a function library.** A step is called by the SHA of its text, so two
versions of the gate run side by side during a rolling update, each with its own steps. A function
library has one name on the server: the newer gateway would replace the older one's steps under it.
Shared Lua is put into each script by ``--@include`` when the text is read.

**Decided: every key that a step touches carries a hash tag**, ``{t:tenant}``, ``{m:model}`` or
``{a}`` (addresses that failed), and no step touches two tags, so that a Redis Cluster can hold
them; the client speaks to one server.

**Decided: the embedded Valkey serves one node**, on loopback, behind a random password. A cluster
of several nodes names a store of its own; a gateway elsewhere says so instead of hanging.

**Decided: time is the store's.** A step reads ``TIME``; no caller hands in a clock.
"""

from serve_app.store import keys, registry
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
    "Store",
    "Watch",
    "claim_folder",
    "header_counts",
    "keys",
    "registry",
    "running_url",
    "store_url",
]
