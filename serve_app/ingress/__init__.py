"""The wire: routes, the request page, the relay, error bodies.

Words: an *exchange* is one request and its reply; a *call* is what a client asks of a model; the
*page* is :mod:`serve_app.ingress.page`, the whole life of an inference request on one screen.

**Decided: raw ASGI on the request page.** Handler and streaming reply are one function there, so a
seat and a hold are given back by the block that took them, also when the client hangs up before
the first byte.

**Decided: bytes are relayed as they come.** Only frames that carry usage are read; the request is
changed by appending members at its end, where a JSON object's last mention wins.

**Decided: a dialect is a row**, in :mod:`serve_app.ingress.reading.dialects`: no code asks for a
path. What only forms or only some streams do hangs on what the row says.

**Decided: a form is read more strictly than engines read it.** Its bytes go on as they came, so
what two readers could understand differently would let a caller past the gate's eyes.

**Decided: the gate names the responses that an engine keeps.** Whoever could choose a name could
write over another's, and a name that is known before the answer need not be looked for in it.

**Decided: what a prompt weighs is read from the parsed body**, not from the number of its bytes: an
image in base64 is no text, a tool's schema is, and a limit of characters must not depend on how a
client escapes them. It costs about as much as parsing did.

**Decided: a client's wish is one more ceiling.** It lowers the class and shortens the wait; asking
for more is no mistake, because one client calls with many keys, and ``x-served-class`` tells.

**Decided: an alias is its model, an adapter is itself.** Limits, usage, log and permissions know an
alias as its model, else a second name would be a second allowance; a key that names only the alias
may use only that. An adapter is trained on somebody's data: the base model's name does not open it,
and it is limited and billed by its own name. It has the base's line and seats, for it runs there.

**Decided: a model that cannot be started refuses at once** if replicas are kept of it: waiting in
line brings none. One that sleeps lets people wait, because that is what wakes it.

**Decided: the client's address is believed only from our own proxy.** The HAProxy shim appends the
true peer and a secret; without that secret an ``X-Forwarded-For`` is what a stranger wrote.

**Decided: a route declares its permission beside its handler**, in :mod:`serve_app.ingress.routes`;
what is declared for no path, an unknown route or a wrong method included, needs a caller.

**Decided: one place turns errors into replies**, :mod:`serve_app.ingress.door`; it alone catches
what nobody foresaw.
"""

from serve_app.ingress.door import Door
from serve_app.ingress.gate import Gate, Identity
from serve_app.ingress.routes import ENDPOINTS, TABLE
from serve_app.ingress.upstream import Relay

__all__ = ["ENDPOINTS", "TABLE", "Door", "Gate", "Identity", "Relay"]
