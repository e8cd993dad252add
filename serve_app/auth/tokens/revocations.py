"""Tokens that ended before their time: a mark each, read by the hold of every request."""

from pydantic import Field

from serve_app.auth.caller import Caller
from serve_app.auth.grant import Strict
from serve_app.auth.keys.key import TENANT
from serve_app.auth.tokens.claims import token_id
from serve_app.errors import InvalidRequest, UnknownTenant
from serve_app.store import Store, keys

LEEWAY_S = 120
"""Seconds that a mark outlives its token, whatever the clocks say."""


class RevocationRequest(Strict):
    """The body of ``POST /v1/auth/revocations``."""

    issuer: str = Field(min_length=1, max_length=512, examples=["https://login.example"])
    jti: str = Field(min_length=1, max_length=512, examples=["9b2e…"])
    tenant: str | None = Field(
        default=None,
        pattern=rf"^{TENANT}$",
        description="The tenant that the token's claims name; operators must say which.",
    )
    expires_in_s: int = Field(default=2_592_000, ge=1, le=31_536_000)


class Revocations:
    """The marks."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def revoke(self, tenant: str, token_id: str, *, ttl_s: int) -> None:
        """End a token of ``tenant``; its next request is refused.

        Raises:
            StoreUnavailable: it may or may not have ended; call again.
        """
        await self._store.run("token_revoke", [keys.revoked(tenant, token_id)], [ttl_s + LEEWAY_S])

    async def revoke_named(self, request: RevocationRequest, *, by: Caller) -> str:
        """End the token that an issuer gave the name ``jti``; return its tenant.

        Raises:
            InvalidRequest: ``by`` acts for all tenants and does not say for which.
            UnknownTenant: ``by`` may not act for that tenant.
            StoreUnavailable: it may or may not have ended; call again.
        """
        if by.operator and request.tenant is None:
            raise InvalidRequest(
                "'tenant': name the tenant that the token's claims name.", param="tenant"
            )
        tenant = request.tenant or by.tenant
        if tenant != by.tenant and not by.operator:
            raise UnknownTenant(f"There is no tenant '{tenant}'.", param="tenant")
        name = token_id(request.issuer, request.jti)
        await self.revoke(tenant, name, ttl_s=request.expires_in_s)
        return tenant
