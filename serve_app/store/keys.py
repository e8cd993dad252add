"""What lies in the store, under which name, and when it goes.

| key | type | holds | goes |
|---|---|---|---|
| ``sg:tenants`` | zset | ids of the tenants by time made, us | when the tenant goes |
| ``sg:bootstrap`` | string | id of the admin key made at the first start | never |
| ``sg:usernames`` | hash | user name -> tenant, when claimed, user id | when the user goes |
| ``sg:session-secret`` | string | what the gate signs its own tokens with | never |
| ``sg:audit`` | stream | who did what | after ``audit.keep_days``, or a million later ones |
| ``sg:{a}:attempts`` | hash | an address's wrong credentials, rounds and block | with its suspect |
| ``sg:{a}:suspects`` | zset | failed, not blocked lately; last change, us | after ``ttl_seconds`` |
| ``sg:{a}:blocked`` | zset | blocked now or lately; last change, us | after 25 h, or success |
| ``sg:{t:T}:tenant`` | hash | a tenant's attributes and limits | on delete |
| ``sg:{t:T}:key:K`` | hash | a key's SHA-256s, attributes, limits, expiry, last use | on revoke |
| ``sg:{t:T}:keys`` | zset | the tenant's key ids by time made, us | on revoke |
| ``sg:{t:T}:user:N`` | hash | a user's password hash, attributes, limits, sessions | on delete |
| ``sg:{t:T}:users`` | zset | the tenant's user names by time made, us | on delete |
| ``sg:{t:T}:revoked:J`` | string | token J was revoked | when the token has expired |
| ``sg:{t:T}:spent:K`` | string | what a caller used of each limit | when all is there again |
| ``sg:{t:T}:leases:K`` | zset | what its requests hold, until ms | settled, or time is over |
| ``sg:{t:T}:spent:K|M`` | string | the same, of one model | the same |
| ``sg:{t:T}:leases:K|M`` | zset | the same, of one model | the same |
| ``sg:{t:T}:spent-all`` | string | what a tenant used of each limit | the same |
| ``sg:{t:T}:leases-all`` | zset | what its requests hold, until ms | the same |
| ``sg:{t:T}:spent-all|M`` | string | the same, of one model | the same |
| ``sg:{t:T}:leases-all|M`` | zset | the same, of one model | the same |
| ``sg:{t:T}:settled:R`` | string | request R was settled | after an hour |
| ``sg:{t:T}:usage:K:H`` | hash | use of a caller in UTC hour H, per model, class | after 100 days |
| ``sg:{t:T}:used:H`` | set | ids of the callers with use in UTC hour H | after 100 days |
| ``sg:{t:T}:learned:M`` | hash | bytes per token and length of replies | unused for 30 days |
| ``sg:{t:T}:responses`` | hash | which replica holds which response | an hour after the last |
| ``sg:{t:T}:responses-since`` | zset | the same responses by time, ms | the same |
| ``sg:{m:M}:replicas`` | hash | how to reach each replica | withdrawn, or 2 s silent |
| ``sg:{m:M}:capacity`` | hash | seats each replica offers | with its replica |
| ``sg:{m:M}:lent`` | hash | seats each replica lends | with its replica |
| ``sg:{m:M}:room`` | zset | replicas that offer seats, by share lent | with its replica |
| ``sg:{m:M}:beats`` | zset | last sign of life of replicas and gateways, ms | 2 s, 5 s silent |
| ``sg:{m:M}:tickets`` | hash | requests that wait or run | left, or either side gone |
| ``sg:{m:M}:held`` | zset | which gateway and replica holds which ticket | with the ticket |
| ``sg:{m:M}:ages`` | zset | waiting tickets by class and arrival, ms | seated, left, gateway gone |
| ``sg:{m:M}:line`` | zset | waiting tickets, by caller and deadline | the same |
| ``sg:{m:M}:callers`` | zset | callers that wait, by tenant and service | none of theirs waits |
| ``sg:{m:M}:turns`` | zset | flows that wait, by class and service | none of theirs waits |
| ``sg:{m:M}:lifts`` | zset | when each of them counts one class higher, us | the same |
| ``sg:{m:M}:flows`` | hash | what tenants and callers were served | ten minutes unused |
| ``sg:{m:M}:seen`` | zset | when each of them was last used, ms | with it |
| ``sg:{m:M}:promised`` | zset | places kept for the refused, by time, ms | 5 s after that |
| ``sg:{m:M}:tally`` | string | rules of the classes, and what is counted of each | never |
| ``sg:{m:M}:failed`` | string | why the model's last start failed | once one succeeds |
| ``sg:{m:M}:adapters`` | hash | adapters that its replicas are to load | when unloaded |
| ``sg:{X}:probe`` | string | a gateway tried whether it can write beside X | after a second |

What a scope has spent is MessagePack, told in ``lua/shared/scope.lua``; a script reads it with
``cmsgpack``; so are tickets, flows and the tally of a line.

A ticket is ``<wake channel>/<number>``, and the wake channel names the gateway, so a step knows
whom to wake without a lookup. Channels: ``sg:wake:G``.
"""

TENANTS = "sg:tenants"
BOOTSTRAP = "sg:bootstrap"
USERNAMES = "sg:usernames"
SESSION_SECRET = "sg:session-secret"
AUDIT = "sg:audit"
ATTEMPTS = "sg:{a}:attempts"
SUSPECTS = "sg:{a}:suspects"
BLOCKED = "sg:{a}:blocked"


def tenant_record(tenant: str) -> str:
    """Return the name of a tenant's record."""
    return f"sg:{{t:{tenant}}}:tenant"


def user_record(tenant: str, name: str) -> str:
    """Return the name of a user's record."""
    return f"sg:{{t:{tenant}}}:user:{name}"


def user_index(tenant: str) -> str:
    """Return the name of a tenant's list of users."""
    return f"sg:{{t:{tenant}}}:users"


def revoked(tenant: str, token_id: str) -> str:
    """Return the name of the mark that a token was revoked."""
    return f"sg:{{t:{tenant}}}:revoked:{token_id}"


def key_record(tenant: str, key_id: str) -> str:
    """Return the name of a key's record."""
    return f"sg:{{t:{tenant}}}:key:{key_id}"


def key_index(tenant: str) -> str:
    """Return the name of a tenant's list of keys."""
    return f"sg:{{t:{tenant}}}:keys"


def scopes(tenant: str, key_id: str, model: str) -> list[str]:
    """Return the names of what is used and held of the four scopes of a request, in pairs.

    The scopes: the caller, the caller on the model, its tenant, its tenant on the model.
    """
    whom = (f":{key_id}", f":{key_id}|{model}", "-all", f"-all|{model}")
    parts = ("spent", "leases")
    return [f"sg:{{t:{tenant}}}:{part}{one}" for one in whom for part in parts]


def settled(tenant: str, request_id: str) -> str:
    """Return the name of the mark that a request was settled."""
    return f"sg:{{t:{tenant}}}:settled:{request_id}"


def usage(tenant: str, key_id: str, hour: int) -> str:
    """Return the name of a caller's use in one UTC hour (hours since the epoch)."""
    return f"sg:{{t:{tenant}}}:usage:{key_id}:{hour}"


def learned(tenant: str, model: str) -> str:
    """Return the name of what a tenant's requests to a model taught."""
    return f"sg:{{t:{tenant}}}:learned:{model}"


def responses(tenant: str) -> list[str]:
    """Return the names of where a tenant's responses are kept, and since when."""
    return [f"sg:{{t:{tenant}}}:responses", f"sg:{{t:{tenant}}}:responses-since"]


def used(tenant: str, hour: int) -> str:
    """Return the name of the list of a tenant's callers with use in one UTC hour."""
    return f"sg:{{t:{tenant}}}:used:{hour}"


def line(model: str) -> list[str]:
    """Return the keys of one model's line, in the order in which every step of it takes them."""
    parts = "replicas capacity lent room beats tickets held ages line callers turns lifts flows"
    return [f"sg:{{m:{model}}}:{part}" for part in f"{parts} seen promised tally".split()]


def failed(model: str) -> str:
    """Return the name of the note that a model's last start failed."""
    return f"sg:{{m:{model}}}:failed"


def adapters(model: str) -> str:
    """Return the name of what a model's replicas are to load beside the settings' adapters."""
    return f"sg:{{m:{model}}}:adapters"


def wake_channel(gateway: str) -> str:
    """Return the channel on which a gateway hears that its tickets were seated."""
    return f"sg:wake:{gateway}"


def probe(tag: str) -> str:
    """Return the name that is written to find out whether the server with ``tag`` is well."""
    return f"sg:{{{tag}}}:probe"
