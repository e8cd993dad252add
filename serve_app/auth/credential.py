"""Find the one credential that a request shows, and who it is before the store is asked.

    Authorization: Bearer <key>     the scheme in any case
    X-API-Key: <key>

The first one present decides; a bad one is never rescued by another; two different ones are 400.
Never from the query string: it ends up in logs.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from serve_app.auth.caller import CALLER_PERMISSIONS, DEFAULT_TENANT, PERMISSIONS, Caller
from serve_app.auth.key import KEY_PREFIX, parse
from serve_app.errors import InvalidKey, InvalidRequest, MissingCredentials

_QUERY_NAMES = frozenset({"api_key", "apikey", "key", "token", "access_token"})
_HOW = "send 'Authorization: Bearer <key>' or 'X-API-Key: <key>'"


@dataclass(frozen=True, slots=True)
class Credential:
    """A well-formed credential.

    Attributes:
        sha256: of the secret, for the store to compare; empty if ``vouched`` names the caller.
        vouched: the caller, if this process knows it already (a static key).
    """

    tenant: str
    key_id: str
    sha256: str = field(default="", repr=False)
    vouched: Caller | None = None


class StaticKeys:
    """The keys that the environment holds, for the smallest set-up.

    Args:
        admin_keys: keys with every permission, from ``SLUICEGATE_ADMIN_KEY``.
        api_keys: keys that may read models and run inference, from ``SLUICEGATE_API_KEY``.
    """

    def __init__(self, admin_keys: Iterable[str], api_keys: Iterable[str]) -> None:
        self._callers: dict[bytes, Caller] = {}
        for kind, texts, permissions in (
            ("api", api_keys, CALLER_PERMISSIONS),
            ("admin", admin_keys, PERMISSIONS),
        ):
            for text in texts:
                digest = hashlib.sha256(text.encode()).digest()
                key_id = f"static-{kind}-{digest.hex()[:8]}"
                operator = kind == "admin"
                self._callers[digest] = Caller(
                    DEFAULT_TENANT, key_id, permissions, operator=operator
                )

    def __len__(self) -> int:
        return len(self._callers)

    def caller(self, text: str) -> Caller | None:
        """Return whose static key ``text`` is; compares hashes, in the same time for each."""
        shown = hashlib.sha256(text.encode(errors="replace")).digest()
        found = None
        for digest, caller in self._callers.items():
            if hmac.compare_digest(digest, shown):
                found = caller
        return found


def find(
    headers: Iterable[tuple[bytes, bytes]], query: Mapping[str, str], static: StaticKeys
) -> Credential:
    """Return the credential of a request; no store call.

    Raises:
        MissingCredentials: there is none, or only one in the query string.
        InvalidKey: it is malformed.
        InvalidRequest: there are two different ones.
    """
    shown = list(_shown(headers))
    if len(set(shown)) > 1:
        raise InvalidRequest("The request carries two different API keys; send one.")
    if not shown:
        if _QUERY_NAMES & {name.lower() for name in query}:
            raise MissingCredentials(
                f"A key in the query string ends up in logs and is not read; {_HOW}."
            )
        raise MissingCredentials(f"No API key given; {_HOW}.")
    if caller := static.caller(shown[0]):
        return Credential(caller.tenant, caller.key_id, vouched=caller)
    key = parse(shown[0])
    return Credential(key.tenant, key.key_id, key.sha256)


def _shown(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[str]:
    """Yield every key that the headers carry."""
    for name, value in headers:
        text = value.decode("latin-1").strip()
        if name == b"authorization":
            scheme, _, rest = text.partition(" ")
            if scheme.lower() != "bearer" or not rest.strip():
                raise InvalidKey(f"The Authorization header is not 'Bearer <key>'; {_HOW}.")
            yield rest.strip()
        elif name == b"x-api-key":
            if not text:
                raise InvalidKey(f"The X-API-Key header is empty; it begins with '{KEY_PREFIX}'.")
            yield text
