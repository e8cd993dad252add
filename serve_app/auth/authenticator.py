"""Turn what a request shows into a credential that the store can judge, and that into a caller."""

from collections.abc import Iterable, Mapping

from serve_app.auth.blocking import subject
from serve_app.auth.caller import CALLER_PERMISSIONS, DEFAULT_TENANT, PERMISSIONS, Caller
from serve_app.auth.credential import Credential, How, Kind, Shown, find, in_query, missing
from serve_app.auth.keys.key import parse
from serve_app.auth.keys.key_record import identify
from serve_app.auth.keys.static import StaticKeys
from serve_app.auth.tokens.issuers import Issuers
from serve_app.auth.tokens.token import looks_like_jwt
from serve_app.auth.users.user import identify_user
from serve_app.auth_settings import Anonymous, Auth

LOCAL = Caller(DEFAULT_TENANT, "local", PERMISSIONS, operator=True)
"""Everyone, when authentication is disabled."""


class Authenticator:
    """Knows every kind of credential; asks no store.

    Args:
        settings: who may call.
        static: the keys of the environment.
        issuers: whose tokens are believed.
        disabled: whether everyone is :data:`LOCAL`.
    """

    def __init__(
        self, settings: Auth, static: StaticKeys, issuers: Issuers, *, disabled: bool = False
    ) -> None:
        self._anonymous = settings.anonymous
        self._static, self._issuers = static, issuers
        self.disabled = disabled
        self.reads_bodies = settings.body_api_key and not disabled

    async def credential(
        self,
        headers: Iterable[tuple[bytes, bytes]],
        query: Mapping[str, str],
        *,
        address: str,
        now_s: float,
    ) -> Credential:
        """Return the credential of a request.

        Raises:
            MissingCredentials: there is none, and strangers are not served.
            Unauthenticated: it is malformed, or a token that is not good.
            InvalidRequest: there are two different ones.
        """
        if self.disabled:
            return _vouched(How.NONE, LOCAL)
        shown = find(headers)
        if shown is not None:
            return await self.read(shown, now_s=now_s)
        if self._anonymous.enabled and not in_query(query):
            return _anonymous(self._anonymous, address)
        raise missing(query)

    async def read(self, shown: Shown, *, now_s: float) -> Credential:
        """Return the credential that ``shown`` is; what looks like a JWT is never taken for a key.

        Raises:
            InvalidKey: it is no key.
            InvalidToken: it is a token, and not good.
            TokenExpired: it was good once.
        """
        if looks_like_jwt(shown.text):
            return await self._token(shown, now_s)
        if caller := self._static.caller(shown.text):
            return _vouched(shown.how, caller)
        key = parse(shown.text)
        return Credential(
            shown.how, key.tenant, key.key_id, key.key_id, kind=Kind.KEY, proof=key.sha256
        )

    async def _token(self, shown: Shown, now_s: float) -> Credential:
        verified = await self._issuers.verify(shown.text, now_s=now_s)
        caller = verified.caller
        ours = verified.user is not None
        return Credential(
            shown.how,
            caller.tenant,
            caller.key_id,
            caller.key_id,
            kind=Kind.USER if ours else Kind.VOUCHED,
            proof=str(verified.issued_ms) if ours else "",
            vouched=None if ours else caller,
            user=verified.user,
            token_id=verified.token_id,
            token_expires_s=verified.expires_s,
            limits=verified.limits,
            tenant_must_exist=caller.tenant != DEFAULT_TENANT,
        )


def identified(credential: Credential, attributes: str) -> Caller:
    """Return who ``credential`` is, by the ``attributes`` of its record."""
    if credential.vouched is not None:
        return credential.vouched
    return identify_user(attributes) if credential.kind is Kind.USER else identify(attributes)


def _vouched(how: How, caller: Caller) -> Credential:
    return Credential(how, caller.tenant, caller.key_id, caller.key_id, vouched=caller)


def _anonymous(settings: Anonymous, address: str) -> Credential:
    """Return the credential of a stranger, who has the limits of its address."""
    caller = Caller(
        DEFAULT_TENANT,
        "anonymous",
        CALLER_PERMISSIONS,
        class_=settings.class_,
        max_class=settings.class_,
    )
    return Credential(
        How.NONE,
        caller.tenant,
        caller.key_id,
        f"anonymous-{subject(address)}",
        vouched=caller,
        limits=settings.limits.text(),
    )
