"""Find the one credential that a request shows. Pure; no store, no clock.

    Authorization: Bearer <key or JWT>      the scheme in any case
    Authorization: <JWT>                    APISIX's jwt-auth callers
    X-API-Key: <key>
    apikey: <key>                           APISIX's key-auth callers
    CF-Access-Client-Id: <key id>.access    Cloudflare's service tokens, with
    CF-Access-Client-Secret: <secret>
    Cf-Access-Jwt-Assertion: <JWT>          put there by Cloudflare Access
    {"api_key": <key>}                      in the body, if that is allowed

Read in this order. The first one present decides; a bad one is never rescued by another; two
different keys are 400. Never from the query string: it ends up in logs.

A Cloudflare pair's secret is the whole key, or what follows the key's last dash; its id may carry
the tenant, ``<tenant>-<key id>.access``, and without it means the tenant ``default``.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from serve_app.auth.caller import DEFAULT_TENANT, Caller
from serve_app.auth.keys.key import KEY_PREFIX
from serve_app.auth.tokens.token import looks_like_jwt
from serve_app.errors import InvalidKey, InvalidRequest, MissingCredentials

QUERY_NAMES = frozenset(
    {"api_key", "apikey", "api-key", "x-api-key", "key", "token", "access_token"}
)
_HOW = "send 'Authorization: Bearer <key>' or 'X-API-Key: <key>'"
_CLOUDFLARE_ID = re.compile(r"(?:(.+)-)?([0-9A-Za-z]{12})\.access")


class How(StrEnum):
    """Where a credential stood; for the access log."""

    BEARER = "bearer"
    AUTHORIZATION = "authorization"
    X_API_KEY = "x-api-key"
    APIKEY = "apikey"
    CF_ACCESS = "cf-access"
    CF_ACCESS_JWT = "cf-access-jwt"
    BODY = "body"
    NONE = "none"


class Kind(StrEnum):
    """What proves who a caller is."""

    KEY = "key"
    """A key's record with the SHA-256 of its secret."""

    USER = "user"
    """A user's record, and a session that is not older than it allows."""

    VOUCHED = "vouched"
    """The gateway itself, which knows the caller already."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a request shows.

    Attributes:
        how: where it stood.
        text: the credential; empty if what stood there is none.
        problem: what is wrong with it then.
        empty: whether nothing stood there at all.
    """

    how: How
    text: str = field(default="", repr=False)
    problem: str = ""
    empty: bool = False


@dataclass(frozen=True, slots=True)
class Credential:
    """A well-formed credential, for the store to judge.

    Attributes:
        how: where it stood.
        tenant: the tenant it names.
        key_id: the caller's public id; stands in logs and usage.
        bucket: names its limit.
        kind: what proves it.
        proof: the SHA-256 of the secret shown, or when a session was issued, ms.
        vouched: the caller, if the gateway knows it already.
        user: the user's name, if its record decides.
        token_id: names the mark that the token was revoked; empty if it is none.
        token_expires_s: when the token ends, s since the epoch; 0 if it is none.
        limits: the caller's, as steps read them, if no record names any; None for none.
        tenant_must_exist: whether a tenant without a record is a refusal.
    """

    how: How
    tenant: str
    key_id: str
    bucket: str
    kind: Kind = Kind.VOUCHED
    proof: str = field(default="", repr=False)
    vouched: Caller | None = None
    user: str | None = None
    token_id: str = ""
    token_expires_s: int = 0
    limits: str | None = None
    tenant_must_exist: bool = False


def find(headers: Iterable[tuple[bytes, bytes]], last: Shown | None = None) -> Shown | None:
    """Return what the headers show, or else ``last``, what the body shows; None if nothing.

    Raises:
        MissingCredentials: the first place that should hold a credential is empty.
        InvalidKey: it holds something else.
        InvalidRequest: there are two different keys, or one header twice with different values.
    """
    found = [*_in_order(headers), *([] if last is None else [last])]
    for how in {shown.how for shown in found}:
        if len({shown.text for shown in found if shown.how is how}) > 1:
            raise InvalidRequest(f"The request carries two different credentials as '{how}'.")
    texts = {shown.text for shown in found if shown.text and not looks_like_jwt(shown.text)}
    if len(texts) > 1:
        raise InvalidRequest("The request carries two different API keys; send one.")
    if found and found[0].problem:
        raise (MissingCredentials if found[0].empty else InvalidKey)(found[0].problem)
    return found[0] if found else None


def in_query(query: Mapping[str, str]) -> bool:
    """Return whether a query holds what should not stand in one: a credential."""
    named = QUERY_NAMES & {name.lower() for name in query}
    return bool(named) or any(value.startswith(KEY_PREFIX) for value in query.values())


def missing(query: Mapping[str, str]) -> MissingCredentials:
    """Return the refusal of a request that shows nothing."""
    if in_query(query):
        return MissingCredentials(
            f"A key in the query string ends up in logs and is not read; {_HOW}."
        )
    return MissingCredentials(f"No API key given; {_HOW}.")


def in_body(value: object) -> Shown:
    """Return the credential in a body's ``api_key``.

    Raises:
        InvalidKey: it is none.
    """
    if not isinstance(value, str) or not value:
        raise InvalidKey(f"'api_key' must be a string that begins with '{KEY_PREFIX}'.")
    return Shown(How.BODY, value)


def _in_order(headers: Iterable[tuple[bytes, bytes]]) -> list[Shown]:
    """Return every credential of the headers, in the order in which they count."""
    lines: dict[bytes, list[str]] = {}
    for name, value in headers:
        if name in _NAMES:
            lines.setdefault(name, []).append(value.decode("latin-1").strip(" \t"))
    found = [_authorization(text) for text in lines.get(b"authorization", ())]
    found += [_plain(How.X_API_KEY, text) for text in lines.get(b"x-api-key", ())]
    found += [_plain(How.APIKEY, text) for text in lines.get(b"apikey", ())]
    if _CLOUDFLARE & lines.keys():
        found.append(_cloudflare(*(set(lines.get(name, ())) for name in sorted(_CLOUDFLARE))))
    return found + [_assertion(text) for text in lines.get(b"cf-access-jwt-assertion", ())]


_CLOUDFLARE = frozenset({b"cf-access-client-id", b"cf-access-client-secret"})
_NAMES = _CLOUDFLARE | {b"authorization", b"x-api-key", b"apikey", b"cf-access-jwt-assertion"}


def _authorization(text: str) -> Shown:
    scheme, _, rest = text.partition(" ")
    rest = rest.strip(" \t")
    if scheme.lower() == "bearer" and rest:
        return Shown(How.BEARER, rest)
    if not rest and looks_like_jwt(scheme):
        return Shown(How.AUTHORIZATION, scheme)
    empty = not rest and scheme.lower() in ("", "bearer")
    return Shown(How.BEARER, "", f"The Authorization header is not 'Bearer <key>'; {_HOW}.", empty)


def _plain(how: How, text: str) -> Shown:
    empty = f"The {how} header is empty; a key begins with '{KEY_PREFIX}'."
    return Shown(how, text, "" if text else empty, not text)


def _assertion(text: str) -> Shown:
    if looks_like_jwt(text):
        return Shown(How.CF_ACCESS_JWT, text)
    return Shown(How.CF_ACCESS_JWT, "", "The Cf-Access-Jwt-Assertion header holds no JWT.")


def _cloudflare(ids: set[str], secrets: set[str]) -> Shown:
    """Return the key that a service token's two halves are."""
    if len(ids) > 1 or len(secrets) > 1:
        raise InvalidRequest("The request carries two different Cloudflare service tokens.")
    named = _CLOUDFLARE_ID.fullmatch("".join(ids))
    if named is None or not secrets:
        return Shown(
            How.CF_ACCESS,
            "",
            "A Cloudflare service token is 'CF-Access-Client-Id: <key id>.access' and "
            "'CF-Access-Client-Secret: <secret>'.",
        )
    head, (secret,) = f"{KEY_PREFIX}{named[1] or DEFAULT_TENANT}-{named[2]}-", secrets
    if not secret.startswith(KEY_PREFIX):
        return Shown(How.CF_ACCESS, head + secret)
    if f"-{named[2]}-" in secret and (secret.startswith(head) or not named[1]):
        return Shown(How.CF_ACCESS, secret)
    return Shown(How.CF_ACCESS, "", "The CF-Access-Client-Id is not that of the key beside it.")
