"""The key format: made, printed once, parsed. No store, no clock.

    sg-<tenant id>-<key id>-<secret><checksum>

    tenant id  1-63 of a-z 0-9 _ -, first a letter or digit; names the hash tag in the store
    key id     12 base-62 characters; public, stands in logs
    secret     43 base-62 characters, 256 bits
    checksum   6 base-62 characters: CRC-32 of all before it

A key that parses is well formed, not yet known: the store decides that.
"""

import hashlib
import re
import secrets
import string
import zlib
from dataclasses import dataclass, field

from serve_app.errors import InvalidKey

KEY_PREFIX = "sg-"
TENANT = r"[a-z0-9][a-z0-9_-]{0,62}"
MAX_CHARS = 160
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SHAPE = re.compile(rf"sg-({TENANT})-([0-9A-Za-z]{{12}})-([0-9A-Za-z]{{43}})([0-9A-Za-z]{{6}})")


@dataclass(frozen=True, slots=True)
class Key:
    """What a well-formed key says of itself."""

    tenant: str
    key_id: str
    sha256: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A new key; ``text`` is shown once and never stored."""

    key: Key
    text: str = field(repr=False)


def make(tenant: str, key_id: str | None = None) -> MadeKey:
    """Return a new key of ``tenant``, from the system's random source; ``key_id`` keeps its id."""
    key_id = key_id or "".join(secrets.choice(_ALPHABET) for _ in range(12))
    secret = _base62(secrets.randbits(256), 43)
    body = f"sg-{tenant}-{key_id}-{secret}"
    return MadeKey(Key(tenant, key_id, _sha256(secret)), body + _checksum(body))


def parse(text: str) -> Key:
    """Return what ``text`` says of itself, if it is well formed.

    Raises:
        InvalidKey: it is not one of our keys, or a character is wrong; nothing was asked.
    """
    shape = _SHAPE.fullmatch(text) if len(text) <= MAX_CHARS else None
    if shape is None or _checksum(text[:-6]) != shape[4]:
        raise InvalidKey(
            "This API key is not valid. Check that it was copied whole; it begins with "
            f"'{KEY_PREFIX}'."
        )
    return Key(shape[1], shape[2], _sha256(shape[3]))


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), 6)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
