"""Which key a signature is by. An algorithm judges with a key of its own kind only. Pure."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import (
    Algorithm,
    ECAlgorithm,
    HMACAlgorithm,
    OKPAlgorithm,
    RSAAlgorithm,
    RSAPSSAlgorithm,
)
from jwt.exceptions import InvalidKeyError

from serve_app.auth.tokens.token import Token

Key = bytes | RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
MIN_SECRET_BYTES = 32
RSA_BITS = range(2_048, 8_193)
"""Fewer can be broken; more make every verification slow."""
_ALGORITHMS: Final[dict[str, Algorithm]] = {
    "HS256": HMACAlgorithm(HMACAlgorithm.SHA256),
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
    "PS256": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256),
    "ES256": ECAlgorithm(ECAlgorithm.SHA256, SECP256R1),
    "EdDSA": OKPAlgorithm(),
}
_PUBLIC_MEMBERS = {
    "RSA": {"n": 1_400, "e": 12},
    "EC": {"crv": 8, "x": 48, "y": 48},
    "OKP": {"crv": 8, "x": 48},
}
"""What makes a public key, and its most characters: a long exponent costs 15 ms a signature."""
_READERS: Final[dict[str, Callable[[dict[str, Any]], object]]] = {
    "RSA": RSAAlgorithm.from_jwk,
    "EC": ECAlgorithm.from_jwk,
    "OKP": OKPAlgorithm.from_jwk,
}


class Keys(Protocol):
    """Where an issuer's keys come from."""

    @property
    def generation(self) -> int:
        """A number that grows when the keys have changed."""

    @property
    def known(self) -> bool:
        """Whether there ever were keys."""

    def fitting(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """Return the keys that may have signed a token with this header."""

    def used(self, now_s: float) -> None:
        """Note that a token of this issuer is being served; returns at once."""

    async def renewed(self, now_s: float) -> bool:
        """Look for newer keys, unless that was done lately; return whether there are."""

    async def close(self) -> None:
        """Stop looking."""


@dataclass(slots=True)
class OneKey:
    """A key that stands in the settings: it fits whatever ``kid`` a token names."""

    key: Key = field(repr=False)
    generation: int = 0
    known: bool = True

    def fitting(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """Return the key."""
        del algorithm, kid
        return (self.key,)

    def used(self, now_s: float) -> None:
        """Do nothing; it stays."""

    async def renewed(self, now_s: float) -> bool:
        """Return False; it stays."""
        del now_s
        return False

    async def close(self) -> None:
        """Do nothing."""


def fits(algorithm: str, key: object) -> bool:
    """Return whether ``key`` is of the kind and strength that ``algorithm`` needs."""
    match algorithm:
        case "HS256":
            return isinstance(key, bytes) and len(key) >= MIN_SECRET_BYTES
        case "RS256" | "PS256":
            return isinstance(key, RSAPublicKey) and key.key_size in RSA_BITS
        case "ES256":
            return isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
        case "EdDSA":
            return isinstance(key, Ed25519PublicKey)
    return False


def is_signed(token: Token, by: Iterable[Key]) -> bool:
    """Return whether one of the keys signed the token, with the algorithm that it names."""
    algorithm = token.algorithm
    return any(
        fits(algorithm, key) and _ALGORITHMS[algorithm].verify(token.signed, key, token.signature)
        for key in by
    )


def secret_key(secret: str) -> bytes:
    """Return the key that ``secret`` is for HS256.

    Raises:
        ValueError: it is too short, or is a public key that everybody knows.
    """
    key = secret.encode(errors="surrogateescape")
    if len(key) < MIN_SECRET_BYTES:
        raise ValueError(f"needs {MIN_SECRET_BYTES} bytes or more")
    try:
        return cast(bytes, _ALGORITHMS["HS256"].prepare_key(key))
    except InvalidKeyError:
        raise ValueError("is a public key or a certificate, not a secret") from None


def pem_key(pem: bytes, algorithms: Collection[str]) -> Key:
    """Return the public key in ``pem``.

    Raises:
        ValueError: it holds none, or one that one of ``algorithms`` cannot use.
    """
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("holds no PEM public key (BEGIN PUBLIC KEY)") from None
    for algorithm in algorithms:
        if not fits(algorithm, key):
            raise ValueError(f"holds a key that {algorithm} cannot use, or a weak one")
    return cast(Key, key)


@dataclass(frozen=True, slots=True)
class Entry:
    """One usable key of a set; two are equal if they say the same.

    Attributes:
        kid: its name; None if it has none.
        algorithms: those that it may be used with.
        said: its public members, as they stood in the set.
    """

    kid: str | None
    algorithms: frozenset[str]
    said: tuple[str, ...]
    key: Key = field(compare=False, repr=False)


def entry(jwk: object, algorithms: Iterable[str]) -> Entry | None:
    """Return the public key that ``jwk`` describes, None if it is not one we may use.

    A key whose private half is published, too, is nobody's.
    """
    if not isinstance(jwk, dict) or not _is_for_signatures(jwk):
        return None
    kid, key = jwk.get("kid"), _read(jwk)
    own = [name for name in algorithms if jwk.get("alg", name) == name and fits(name, key)]
    if key is None or not own or not isinstance(kid, str | None):
        return None
    said = tuple(jwk[name] for name in ("kty", *_PUBLIC_MEMBERS[jwk["kty"]]))
    return Entry(kid, frozenset(own), said, key)


def _is_for_signatures(jwk: dict[str, Any]) -> bool:
    operations = jwk.get("key_ops", ["verify"])
    meant = isinstance(operations, list) and "verify" in operations
    return meant and jwk.get("use", "sig") == "sig" and "d" not in jwk


def _read(jwk: dict[str, Any]) -> Key | None:
    """Return the key of a JWK from its public members alone, None if they make none."""
    kty = jwk.get("kty")
    if not isinstance(kty, str) or kty not in _PUBLIC_MEMBERS:
        return None
    public = {name: jwk.get(name) for name in _PUBLIC_MEMBERS[kty]}
    for name, most in _PUBLIC_MEMBERS[kty].items():
        told = public[name]
        if not isinstance(told, str) or not told.isascii() or len(told) > most:
            return None
    try:
        return cast(Key, _READERS[kty]({"kty": kty, **public}))
    except (InvalidKeyError, ValueError, UnsupportedAlgorithm):
        return None
