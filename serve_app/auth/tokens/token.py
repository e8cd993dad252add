"""A JWT taken apart: what it says of itself, before anybody believes it. Pure.

    base64url(header).base64url(payload).base64url(signature)

Everything here is read before the signature is judged, so it is small, has one spelling and one
meaning: no padding, no second member of the same name, no number that is none.
"""

import binascii
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from serve_app.errors import InvalidToken, TokenExpired

MAX_CHARS = 8_192
LEEWAY_S = 60
"""How far the issuer's clock may be from ours, either way."""
_DOTS = 2
_YEAR_10000_S = 253_402_300_800
_SHAPE = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_BROUGHT = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64"})
_TO_BASE64 = bytes.maketrans(b"-_", b"+/")


@dataclass(frozen=True, slots=True)
class Token:
    """What a well-formed token says; nothing of it is believed yet.

    Attributes:
        algorithm: its header's ``alg``.
        kid: the name of the key that is said to have signed it.
        issuer: its ``iss``.
        signed: the bytes that ``signature`` is of.
    """

    algorithm: str
    kid: str | None
    issuer: str
    claims: Mapping[str, Any] = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Window:
    """When a token is good, seconds since the epoch, without the leeway.

    Attributes:
        issued_s: its ``iat``; None if it does not say.
        from_s: the later of ``nbf`` and ``iat``; 0 if it says neither.
    """

    issued_s: float | None
    from_s: float
    expires_s: float

    def includes(self, now_s: float) -> bool:
        """Return whether the token is good now, give or take ``LEEWAY_S``."""
        return self.from_s - LEEWAY_S <= now_s < self.expires_s + LEEWAY_S

    def must_include(self, now_s: float) -> None:
        """Return if the token is good now, give or take ``LEEWAY_S``.

        Raises:
            TokenExpired: not any more.
            InvalidToken: not yet.
        """
        if now_s >= self.expires_s + LEEWAY_S:
            raise TokenExpired("This token has expired; get a new one.")
        if now_s < self.from_s - LEEWAY_S:
            raise InvalidToken("This token is not valid yet; check the issuer's clock.")


def looks_like_jwt(text: str) -> bool:
    """Return whether ``text`` has a JWT's two dots; keys of ours have none."""
    return text.count(".") == _DOTS


def parse(text: bytes) -> Token:
    """Return what a token says of itself.

    Raises:
        InvalidToken: it is no JWT, or its header brings what must not come with a token.
    """
    shape = _SHAPE.fullmatch(text) if len(text) <= MAX_CHARS else None
    if shape is None:
        raise malformed()
    try:
        header, claims = _object(shape[1]), _object(shape[2])
        signature = _decoded(shape[3])
    except (ValueError, RecursionError):
        raise malformed() from None
    if not _BROUGHT.isdisjoint(header):
        raise InvalidToken("This token's header brings a key or an extension; neither is read.")
    algorithm, kid, issuer = header.get("alg"), header.get("kid", ""), claims.get("iss")
    if not (isinstance(algorithm, str) and isinstance(kid, str) and isinstance(issuer, str)):
        raise InvalidToken("This token lacks its algorithm or issuer, or has them in a wrong form.")
    return Token(
        algorithm,
        kid if "kid" in header else None,
        issuer,
        claims,
        text[: shape.end(2)],
        signature,
    )


def malformed() -> InvalidToken:
    """Return the refusal of what is no JWT."""
    return InvalidToken(
        f"This is not a well-formed JWT of at most {MAX_CHARS} characters; check that it was "
        "copied whole."
    )


def must_name(audiences: Collection[str], claims: Mapping[str, Any]) -> None:
    """Return if the token was made for one of ``audiences``.

    Raises:
        InvalidToken: it was made for others, or does not say for whom.
    """
    told = claims.get("aud")
    named = told if isinstance(told, list) else [told]
    if not all(isinstance(one, str) for one in named) or not set(named) & set(audiences):
        raise InvalidToken("This token was not made for this service (aud).")


def window(claims: Mapping[str, Any]) -> Window:
    """Return when the token is good.

    Raises:
        InvalidToken: it never expires, or one of its times is no time.
    """
    expires_s, not_before_s, issued_s = (_time(claims, name) for name in ("exp", "nbf", "iat"))
    if expires_s is None:
        raise InvalidToken("This token never expires (exp); none such is taken.")
    return Window(issued_s, max(not_before_s or 0, issued_s or 0), expires_s)


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    """Return a claim in seconds since the epoch, None if it is not there."""
    if name not in claims:
        return None
    told = claims[name]
    if isinstance(told, bool) or not isinstance(told, int | float):
        raise InvalidToken(f"This token's time '{name}' is not a number.")
    if not 0 <= told < _YEAR_10000_S:
        raise InvalidToken(f"This token's time '{name}' is out of range.")
    return told


def _object(segment: bytes) -> dict[str, Any]:
    """Return the JSON object in a segment.

    Raises:
        ValueError: it is none, or not plain.
        RecursionError: it is nested too deep.
    """
    found = _JSON.decode(_decoded(segment).decode())
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def _decoded(segment: bytes) -> bytes:
    """Return the bytes of a segment that is spelled in the one right way.

    The last character's spare bits are zero: otherwise one token had several spellings.

    Raises:
        ValueError: it is not.
    """
    plain = segment.translate(_TO_BASE64)
    found = binascii.a2b_base64(plain + b"=" * (-len(plain) % 4))
    if binascii.b2a_base64(found, newline=False).rstrip(b"=") != plain:
        raise ValueError("spare bits")
    return found


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a member twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_JSON = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_no_number)
