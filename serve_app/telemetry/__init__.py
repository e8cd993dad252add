"""What happened: the access log, the audit and the figures, and no secret in any.

Words: a *line* tells of one request; an *entry* of the audit tells who did what; a *record* is what
Python's logging hands to its handlers; to *redact* is to put ``[redacted]`` where a secret stood.

**Decided: a line holds names and numbers, never content.** Prompts, keys and replies have no field
here; a credential is named by its public key id.

**Decided: secrets are known by their looks, not by a list.** A list would have to be told of every
secret, in every process, before it is logged; and a password is a secret also when it is wrong.
In doubt a text is redacted: a word too little can be asked for, a secret too much cannot be taken
back. Ids, names, times and counts are never in doubt.

**Decided: a log record is redacted where it is made**, not by a filter or a formatter: those belong
to loggers and handlers, and Serve, Ray and every library bring their own. A record's exception is
text from then on.

**Decided: of a line only what a client chooses is looked at.** Fields are vouched for by name; a
new one is redacted until somebody vouches for it.

**Decided: the audit is read oldest first.** It only grows at its end, so whoever exports it goes on
from the last cursor and sees each entry once, whatever is written meanwhile; from the newest
backwards, every new entry would shift the pages.

**Decided: an entry that cannot be written is owed, and what it tells of still happens.** Who takes
the store away would otherwise decide that nobody may revoke a key. It is in the log meanwhile.

**Decided: a capture is a file on the gateway's node, not a reply.** What a key sends and gets is
the most private thing here: who may read the node's disk may read it, and only operators begin it;
the tenant sees in its key and in its audit that they did. It ends by itself, and the switch lies in
the key's record, which every request reads anyway.

**Decided: each gateway tells its own figures**, in a registry of its own. Adding them up is what
Prometheus is for; a sum kept in the store would be one more call for each request.
"""

from serve_app.telemetry.access_log import AccessLog
from serve_app.telemetry.audit import PAGE_MAX, Audit, Entry, Wanted, changed
from serve_app.telemetry.captured import Captured
from serve_app.telemetry.captures import Captures
from serve_app.telemetry.metrics import MEDIA, Metrics

__all__ = [
    "MEDIA",
    "PAGE_MAX",
    "AccessLog",
    "Audit",
    "Captured",
    "Captures",
    "Entry",
    "Metrics",
    "Wanted",
    "changed",
]
