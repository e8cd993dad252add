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
| ``sg:{t:T}:tenant`` | hash | a tenant's attributes and limit | on delete |
| ``sg:{t:T}:key:K`` | hash | a key's SHA-256s, attributes, limit, expiry, last use | on revoke |
| ``sg:{t:T}:keys`` | zset | the tenant's key ids by time made, us | on revoke |
| ``sg:{t:T}:user:N`` | hash | a user's password hash, attributes, earliest token | on delete |
| ``sg:{t:T}:users`` | zset | the tenant's user names by time made, us | on delete |
| ``sg:{t:T}:revoked:J`` | string | token J was revoked | when the token has expired |
| ``sg:{t:T}:rpm:K`` | string | request bucket of a caller, GCRA, us | when full again |
| ``sg:{t:T}:tenant-rpm`` | string | request bucket of the tenant, GCRA, us | when full again |
| ``sg:{t:T}:settled:R`` | string | request R was settled | after ten minutes |
| ``sg:{t:T}:usage:K:H`` | hash | use of a caller in UTC hour H, per model | after 100 days |
| ``sg:{m:M}:replicas`` | hash | how to reach each replica | withdrawn, or 3 s silent |
| ``sg:{m:M}:capacity`` | hash | seats each replica offers | with its replica |
| ``sg:{m:M}:room`` | zset | seats free on each replica | with its replica |
| ``sg:{m:M}:beats`` | zset | last sign of life of replicas and gateways, ms | 3 s, 5 s silent |
| ``sg:{m:M}:line`` | zset | waiting tickets by arrival, us | seated, left, or gateway gone |
| ``sg:{m:M}:seats`` | hash | seated tickets and their replica | left, or either side gone |
| ``sg:{m:M}:drain`` | hash | how fast seats come free | never, two fields |
| ``sg:{m:M}:failed`` | string | the model's last start failed | after two minutes |
| ``sg:{X}:probe`` | string | a gateway tried whether it can write beside X | after a second |

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


def tenant_bucket(tenant: str) -> str:
    """Return the name of a tenant's requests-per-minute bucket."""
    return f"sg:{{t:{tenant}}}:tenant-rpm"


def key_record(tenant: str, key_id: str) -> str:
    """Return the name of a key's record."""
    return f"sg:{{t:{tenant}}}:key:{key_id}"


def key_index(tenant: str) -> str:
    """Return the name of a tenant's list of keys."""
    return f"sg:{{t:{tenant}}}:keys"


def request_bucket(tenant: str, key_id: str) -> str:
    """Return the name of a caller's requests-per-minute bucket."""
    return f"sg:{{t:{tenant}}}:rpm:{key_id}"


def settled(tenant: str, request_id: str) -> str:
    """Return the name of the mark that a request was settled."""
    return f"sg:{{t:{tenant}}}:settled:{request_id}"


def usage(tenant: str, key_id: str, hour: int) -> str:
    """Return the name of a key's use in one UTC hour (hours since the epoch)."""
    return f"sg:{{t:{tenant}}}:usage:{key_id}:{hour}"


def line(model: str) -> list[str]:
    """Return the keys of one model's line, in the order in which every step of it takes them."""
    parts = ("replicas", "capacity", "room", "beats", "line", "seats", "drain")
    return [f"sg:{{m:{model}}}:{part}" for part in parts]


def failed(model: str) -> str:
    """Return the name of the note that a model's last start failed."""
    return f"sg:{{m:{model}}}:failed"


def wake_channel(gateway: str) -> str:
    """Return the channel on which a gateway hears that its tickets were seated."""
    return f"sg:wake:{gateway}"


def probe(tag: str) -> str:
    """Return the name that is written to find out whether the server with ``tag`` is well."""
    return f"sg:{{{tag}}}:probe"
