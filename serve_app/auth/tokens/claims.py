"""What the claims of a good token make of its bearer. Pure.

A claim that the settings map must be there to give anything: without its tenant a token is
refused, without its permissions it may do nothing, without its models it may use none. Words that
are not ours are passed over; a claim of a wrong kind is the issuer's mistake and refuses the token.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from serve_app.allowance import understood
from serve_app.auth.caller import PERMISSIONS, ROLES, Caller
from serve_app.auth.keys.key import TENANT
from serve_app.auth.tokens.token import Token, Window
from serve_app.auth_settings import Issuer
from serve_app.errors import InvalidToken
from serve_app.section import ClassName

MAX_MODELS = 256
_TENANT = re.compile(TENANT)
_CLASS: TypeAdapter[str] = TypeAdapter(ClassName)


@dataclass(frozen=True, slots=True)
class Verified:
    """A token that is good: signed by its issuer, made for us, in its time.

    Attributes:
        caller: who its claims say; of a user's session the tenant and key id only, the rest is
            in the user's record.
        token_id: names the mark in the store that the token was revoked.
        issued_ms: when it was made, ms since the epoch; 0 if it does not say.
        expires_s: its ``exp``; with the leeway, it may come a little later.
        user: the user whose session it is; None for every other token.
        limits: its own, as steps read them; None if it sets none.
    """

    caller: Caller
    token_id: str
    issued_ms: int
    expires_s: int
    user: str | None = field(default=None, repr=False)
    limits: str | None = None


def describe(issuer: Issuer, token: Token, window: Window) -> Verified:
    """Return whom a token of ``issuer`` is about.

    Raises:
        InvalidToken: a mapped claim is of a wrong kind, or the tenant's is missing.
    """
    told, mapped = token.claims, issuer.claims
    token_id = token_id_of(token)
    caller = Caller(
        _tenant(told, mapped.tenant) if mapped.tenant else issuer.tenant,
        _key_id(token, token_id),
        granted(_words(told, mapped.permissions) if mapped.permissions else issuer.permissions),
        _models(told, mapped.models) if mapped.models else None,
        class_=_class(told, mapped.class_) if mapped.class_ else None,
    )
    return Verified(
        caller,
        token_id,
        int((window.issued_s or 0) * 1_000),
        int(window.expires_s),
        limits=_limits(told, mapped.limits) if mapped.limits else None,
    )


def claim(claims: object, path: str) -> Any:
    """Return what stands at a dotted path, None if nothing does.

    A name that holds dots itself, such as ``https://example.com/roles``, is found as it is.
    """
    if not isinstance(claims, Mapping):
        return None
    if path in claims:
        return claims[path]
    first, _, rest = path.partition(".")
    return claim(claims.get(first), rest) if rest else None


def granted(words: Iterable[str]) -> frozenset[str]:
    """Return the permissions that ``words`` name, roles spelled out, others passed over."""
    found: set[str] = set()
    for word in words:
        found |= ROLES.get(word, PERMISSIONS & {word})
    return frozenset(found)


def token_id_of(token: Token) -> str:
    """Return what a token is called in the store: 32 hex digits of its issuer and its ``jti``.

    Without one, of all that was signed: a signature may have several spellings.

    Raises:
        InvalidToken: its ``jti`` is no text.
    """
    jti = token.claims.get("jti")
    if jti is None:
        return _digest("token", token.signed.decode())[:32]
    if not isinstance(jti, str):
        raise InvalidToken("This token's id (jti) is not a string.")
    return token_id(token.issuer, jti)


def token_id(issuer: str, jti: str) -> str:
    """Return what the token that ``issuer`` named ``jti`` is called in the store."""
    return _digest("jti", issuer, jti)[:32]


def _key_id(token: Token, token_id: str) -> str:
    """Return the public id of a token's subject: an e-mail address in it never reaches a log."""
    subject = token.claims.get("sub")
    if subject is None:
        return f"jwt-{_digest('token id', token_id)[:16]}"
    if not isinstance(subject, str):
        raise InvalidToken("This token's subject (sub) is not a string.")
    return f"jwt-{_digest('sub', token.issuer, subject)[:16]}"


def _digest(*parts: str) -> str:
    """Return the SHA-256 of several texts, none of which can pass for two; lone surrogates too."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _tenant(claims: Mapping[str, Any], path: str) -> str:
    told = claim(claims, path)
    if not isinstance(told, str) or _TENANT.fullmatch(told) is None:
        raise InvalidToken(f"This token's claim '{path}' names no tenant.")
    return told


def _class(claims: Mapping[str, Any], path: str) -> str | None:
    told = claim(claims, path)
    try:
        return None if told is None else _CLASS.validate_python(told, strict=True)
    except ValidationError:
        raise InvalidToken(f"This token's claim '{path}' names no class.") from None


def _models(claims: Mapping[str, Any], path: str) -> frozenset[str]:
    told = frozenset(_words(claims, path))
    if len(told) > MAX_MODELS or not all(word.isprintable() for word in told):
        raise InvalidToken(f"This token's claim '{path}' is no list of models.")
    return told


def _words(claims: Mapping[str, Any], path: str) -> list[str]:
    """Return the words of a claim, a list or a text with spaces; none if it is not there."""
    told = claim(claims, path)
    if isinstance(told, str):
        return told.split()
    if not isinstance(told, list | None):
        raise InvalidToken(f"This token's claim '{path}' is neither a list nor words.")
    return [word for word in told or () if isinstance(word, str)]


def _limits(claims: Mapping[str, Any], path: str) -> str | None:
    """Return a token's own limits as steps read them; None if it sets none.

    Nobody is exempt by token: who issues it is no operator.
    """
    told = claim(claims, path)
    if not isinstance(told, Mapping | None):
        raise InvalidToken(f"This token's claim '{path}' is no object of limits.")
    try:
        limits = understood(told or {})
    except (ValueError, RecursionError):
        raise InvalidToken(f"This token's claim '{path}' holds a limit that is none.") from None
    if limits.exempt:
        raise InvalidToken(f"This token's claim '{path}' exempts from limits; no token does.")
    return limits.text() or None
