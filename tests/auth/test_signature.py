"""Which key a signature is by: every algorithm with every kind of key (CONTRACT §1.3)."""

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa

from serve_app.auth.tokens.signature import Key, fits, is_signed
from serve_app.auth.tokens.token import parse
from tests.auth.issuing import KINDS, claims, pem, private_key

SECRET = b"a secret of 32 bytes or a few more"
PRIVATE = {"HS256": SECRET, **{name: private_key(kind) for name, kind in KINDS.items()}}
PUBLIC = {
    name: key if isinstance(key, bytes) else key.public_key() for name, key in PRIVATE.items()
}
UNFIT = {
    "short secret": b"x" * 31,
    "weak RSA": rsa.generate_private_key(65_537, 1_024).public_key(),
    "P-384": ec.generate_private_key(ec.SECP384R1()).public_key(),
    "Ed448": ed448.Ed448PrivateKey.generate().public_key(),
    "private RSA": private_key("RSA"),
    "PEM as text": pem(private_key("RSA")).decode(),
    "nothing": None,
}
ALGORITHMS = ["HS256", *KINDS]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("key", PUBLIC)
def test_an_algorithm_judges_with_its_own_kind_of_key(algorithm: str, key: str) -> None:
    """A token is good under the key of its algorithm and under no other kind of key."""
    token = parse(jwt.encode(claims("x"), PRIVATE[algorithm], algorithm).encode())
    same_kind = {algorithm, key} == {"RS256", "PS256"} or algorithm == key
    assert fits(algorithm, PUBLIC[key]) is same_kind
    assert is_signed(token, [PUBLIC[key]]) is same_kind
    assert is_signed(token, [PUBLIC[key], PUBLIC[algorithm]])
    assert not is_signed(token, [])


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "none", "HS512", "RS512", "ES384", ""])
@pytest.mark.parametrize("key", UNFIT)
def test_a_key_that_fits_nothing(algorithm: str, key: str) -> None:
    """A weak key, another curve, a private key and a text fit no algorithm of ours."""
    assert not fits(algorithm, UNFIT[key])


@pytest.mark.parametrize("algorithm", ["none", "None", "HS384", "RS512", "ES512", "", "hs256"])
@pytest.mark.parametrize("key", PUBLIC.values(), ids=PUBLIC)
def test_an_algorithm_that_is_not_ours(algorithm: str, key: Key) -> None:
    """No key fits an algorithm that is not in the contract."""
    assert not fits(algorithm, key)
