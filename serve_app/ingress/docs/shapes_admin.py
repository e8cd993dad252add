"""The shapes of the admin API's replies and queries, for the document; see ``shapes`` beside it."""

from typing import Any, Literal

from pydantic import Field

from serve_app.allowance import Limits
from serve_app.ingress.docs.shapes import Shape


class TenantQuery(Shape):
    """Whose things are meant."""

    tenant: str | None = None
    """The tenant, by default the caller's own; only an operator may name another."""


class PageQuery(Shape):
    """A page of a list."""

    limit: int = Field(default=100, ge=1, le=1_000)
    """Entries on a page."""

    after: str = ""
    """The `after` of the page before."""


class TenantPageQuery(PageQuery, TenantQuery):
    """A page of what a tenant has."""


class AuditQuery(PageQuery):
    """Which entries of the audit, and in which form."""

    tenant: str | None = None
    """Whose; by default the caller's own, for an operator everyone's."""

    action: str | None = None
    """E.g. `key.create`, `user.update`, `tenant.delete`, `login`, `address.block`."""

    result: str | None = None
    """`ok`, or the code of the refusal."""

    actor: str | None = None
    """The public id of who did it."""

    address: str | None = None
    """Where from."""

    request_id: str | None = None
    """Of the request that did it."""

    target: str | None = None
    """The public id of what it was done to."""

    start: str | None = None
    """RFC 3339; entries from then on."""

    end: str | None = None
    """RFC 3339; entries before."""

    format: Literal["json", "jsonl"] = "json"
    """`jsonl` is one entry a line, for export; `x-next-after` carries the cursor."""


class Page(Shape):
    """A page of a list."""

    object: Literal["list"]
    has_more: bool
    after: str | None
    """Ask for the next page with it; null on the last."""


class Shared(Shape):
    """What tenants, keys and users have alike."""

    class_: str | None = Field(alias="class")
    """The class to wait in; null for the default."""

    max_class: str | None
    """The highest class that may be served."""

    weight: float | None
    """Its share of the turns; null for 1."""

    limits: Limits
    """As they were given; of a kind that is missing the gate's default binds, of a tenant none."""

    metadata: dict[str, Any]
    created_at: str | None
    """RFC 3339, UTC."""

    changed_at: str | None
    """RFC 3339, UTC."""


class ShownKey(Shared):
    """A key, without its secret."""

    id: str
    """Its public id; stands in logs."""

    name: str
    tenant: str
    permissions: list[str]
    models: list[str] | None
    """The models that it may use; null for all."""

    endpoints: list[str] | None
    """The inference paths that it may use; null for all."""

    allowed_addresses: list[str] | None
    """CIDRs that it may be used from; null for everywhere."""

    all_tenants: bool
    """Whether it acts for every tenant."""

    over_limit: Literal["refuse", "wait"]
    """Whether a request beyond a limit is refused, or waits until it fits."""

    expires_at: str | None
    """RFC 3339, UTC; null for never."""

    last_used_at: str | None
    """To the minute."""

    capture_ends_at: str | None
    """Until when operators have written down what it sends and gets; null if they never did."""


class MadeKey(ShownKey):
    """A new key."""

    key: str
    """The key itself, shown this once."""


class RotatedKey(MadeKey):
    """A key with a new secret."""

    old_valid_until: str
    """When the old secret ends."""


class ShownKeys(Page):
    """A page of keys, oldest first."""

    data: list[ShownKey]


class ShownTenant(Shared):
    """A tenant."""

    id: str
    name: str


class ShownTenants(Page):
    """A page of tenants, oldest first; `default` in front."""

    data: list[ShownTenant]


class ShownUser(Shared):
    """A user."""

    id: str
    """Stands in logs, as `user-<id>`."""

    name: str
    tenant: str
    role: str
    permissions: list[str]
    """Those of the role."""

    models: list[str] | None
    """The models that it may use; null for all."""

    disabled: bool
    all_tenants: bool
    """Whether it acts for every tenant."""

    revision: str
    """Send it with a change that must not overwrite another's."""


class ShownUsers(Page):
    """A page of users, oldest first."""

    data: list[ShownUser]


class GivenToken(Shape):
    """A token to show as `Authorization: Bearer <token>`."""

    token: str
    token_type: Literal["Bearer"]
    expires_at: str
    """RFC 3339, UTC."""


class LimitLeft(Shape):
    """What is left of one limit."""

    limit: str
    """What it is called, e.g. `tokens_per_minute`."""

    scope: Literal["key", "key_model", "tenant", "tenant_model"]
    """Whom it binds: the caller or its tenant, on all models or on one."""

    model: str | None
    shadow: bool
    """Whether it refuses nobody and only says what it would have done."""

    allowed: float
    """Units a period, or at once; money in what the prices are in. 0 is never."""

    burst: float
    """Units at once."""

    remaining: float
    """Net of what still runs."""

    reset: str | None
    """Until it is whole again, e.g. `850ms` or `6m0s`; null is never."""

    resets_at: str | None
    """RFC 3339, UTC; null is never."""


class Myself(Shape):
    """Who the caller is and what it may do."""

    id: str
    credential: str
    """Where the credential stood."""

    tenant: str
    all_tenants: bool
    permissions: list[str]
    models: list[str] | None
    endpoints: list[str] | None
    allowed_addresses: list[str] | None
    class_: str = Field(alias="class")
    """The class that it waits in."""

    max_class: str | None
    weight: float | None
    expires_at: str | None
    over_limit: Literal["refuse", "wait"]
    limits: list[LimitLeft]


class AuditEntry(Shape):
    """Who did what."""

    id: str
    at: str
    """RFC 3339, UTC."""

    action: str
    result: str
    """`ok`, or the code of the refusal."""

    tenant: str
    actor: str
    """The public id of who did it; empty for a stranger."""

    address: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str


class AuditPage(Page):
    """A page of the audit."""

    data: list[AuditEntry]
