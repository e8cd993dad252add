"""Every known way to forge a JWT (CONTRACT §1.3), by name, against a gate that believes three."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serve_app.auth.tokens.claims import Verified
from serve_app.auth.tokens.issuers import Issuers
from serve_app.auth.tokens.sessions import ISSUER, Sessions, new_secret
from serve_app.auth_settings import Issuer
from serve_app.errors import InvalidToken, TokenExpired
from tests.auth.issuing import (
    AUDIENCE,
    NOW_S,
    LocalIssuer,
    base64url,
    claims,
    compact,
    jwk,
    pem,
    private_key,
    signer,
)

FILE, SHARED = "https://file.example", "https://shared.example"
SECRET = "a secret of 32 bytes or a few more"
KEY = private_key("RSA", 7)
RS256 = signer("RS256", KEY)
LIMITS = ["requests_per_minute", "cost_per_day", "models", "shadow", "exempt", "colour"]
SESSIONS = Sessions(new_secret())
Judge = Callable[[str], Verified]


@pytest.fixture(scope="module")
def issuer() -> Iterator[LocalIssuer]:
    """The issuer whose keys are fetched: an RSA and an EC key."""
    with LocalIssuer("RS256", "ES256") as one:
        yield one


def issuers_of(pem_file: Path, fetched: Issuer | None = None) -> Issuers:
    """Return a gate that believes a key file, a shared secret, its own sessions, and ``fetched``.

    What a token of theirs may do comes from its claims.
    """
    pem_file.write_bytes(pem(KEY))
    mapped = {"permissions": "scope", "tenant": "tenant", "models": "models", "limits": "limits"}
    told: list[dict[str, Any]] = [
        {"issuer": FILE, "algorithms": ["RS256"], "public_key_file": str(pem_file)},
        {"issuer": SHARED, "algorithms": ["HS256"], "secret_env": "MINE", "claims": mapped},
    ]
    blocks = [Issuer.model_validate({"audience": [AUDIENCE, "gate"]} | one) for one in told]
    return Issuers([*blocks, *([fetched] if fetched else [])], {"MINE": SECRET}, SESSIONS)


@pytest.fixture(scope="module")
def judge(issuer: LocalIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """What a gate makes of a token."""
    with asyncio.Runner() as runner:
        gate = issuers_of(tmp_path_factory.mktemp("keys") / "key.pem", issuer.settings())

        def run(one: Coroutine[Any, Any, Verified]) -> Verified:
            return runner.run(one)

        yield lambda text: run(gate.verify(text, now_s=NOW_S))
        runner.run(gate.close())


def hs256(secret: bytes) -> Callable[[bytes], bytes]:
    """Return what signs with HS256, whatever the secret is."""
    return lambda signed: hmac.digest(secret, signed, hashlib.sha256)


def refused(judge: Judge, text: str, says: str = "This token|JWT") -> None:
    """Hold that ``text`` is refused in words that have ``says`` in them."""
    with pytest.raises(InvalidToken, match=says):
        judge(text)


def test_the_gate_under_attack_lets_good_tokens_in(judge: Judge, issuer: LocalIssuer) -> None:
    """What follows is refused for its one fault, for without it each of these passes."""
    headers: list[dict[str, Any]] = [{}, {"kid": "any"}, {"typ": "JWT"}, {"typ": "at+jwt"}]
    for header in headers:
        assert judge(compact({"alg": "RS256"} | header, claims(FILE), RS256))
    assert judge(issuer.token("RS256"))
    assert judge(issuer.token("ES256"))
    told = claims(SHARED, tenant="acme", scope="run_inference")
    assert judge(compact({"alg": "HS256"}, told, hs256(SECRET.encode()))).caller.tenant == "acme"


NONE_SPELLINGS = ["none", "None", "NONE", "nOnE", "", " none", "none ", "n\u043ene", "NonE\0"]


@pytest.mark.parametrize("algorithm", NONE_SPELLINGS)
@pytest.mark.parametrize("name", [FILE, SHARED, ISSUER])
def test_alg_none(judge: Judge, algorithm: str, name: str) -> None:
    """A token that says it is not signed is refused in every spelling, signed or not."""
    header = {"alg": algorithm, "typ": "JWT"}
    told = claims(name)
    refused(judge, compact(header, told, lambda _: b""), "well-formed")
    refused(judge, compact(header, told), "algorithm")
    refused(judge, compact(header, told, RS256), "algorithm")


@pytest.mark.parametrize("header", [{}, {"alg": None}, {"alg": ["none"]}, {"alg": 0}, {"ALG": "x"}])
def test_alg_missing(judge: Judge, header: dict[str, Any]) -> None:
    """A token that does not say how it is signed is refused."""
    refused(judge, compact(header, claims(FILE), RS256), "algorithm")


def public_spellings() -> dict[str, bytes]:
    """Return every text an attacker may take for the secret, knowing the public key."""
    public = KEY.public_key()
    pkcs1 = public.public_bytes(Encoding.PEM, PublicFormat.PKCS1)
    return {
        "PEM": pem(KEY),
        "PEM without its last line end": pem(KEY).strip(),
        "PEM with other line ends": pem(KEY).replace(b"\n", b"\r\n"),
        "DER": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "PKCS1 PEM": pkcs1,
        "PKCS1 DER": public.public_bytes(Encoding.DER, PublicFormat.PKCS1),
        "SSH": public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        "JWK": json.dumps(jwk(KEY)).encode(),
        "modulus": jwk(KEY)["n"].encode(),
        "nothing": b"",
        "a NUL": b"\0",
    }


@pytest.mark.parametrize("spelling", public_spellings())
def test_hs256_under_the_public_key(judge: Judge, issuer: LocalIssuer, spelling: str) -> None:
    """The public key is no secret: HS256 is not for an issuer that signs with RSA."""
    secret = public_spellings()[spelling]
    for name in (FILE, issuer.name):
        for algorithm in ("HS256", "HS384", "HS512"):
            header = {"alg": algorithm, "kid": "key-1"}
            refused(judge, compact(header, claims(name), hs256(secret)), "algorithm")
    refused(judge, compact({"alg": "RS256"}, claims(FILE), hs256(secret)), "signature")


@pytest.mark.parametrize(
    "algorithm", ["HS256", "PS256", "ES256", "EdDSA", "RS384", "RS512", "rs256"]
)
def test_an_algorithm_that_is_not_the_issuers(judge: Judge, algorithm: str) -> None:
    """An issuer's list is fixed: its own key under another algorithm is refused."""
    refused(judge, compact({"alg": algorithm}, claims(FILE), RS256), "algorithm")
    pss = jwt.encode(claims(FILE), KEY, "PS256")
    refused(judge, pss, "algorithm")


def test_one_issuers_algorithms_under_another_kind_of_key(
    judge: Judge, issuer: LocalIssuer
) -> None:
    """Of an issuer with an RSA and an EC key, neither judges with the other's algorithm."""
    for algorithm, other in (("RS256", "ES256"), ("ES256", "RS256")):
        kid, _ = issuer.signing[other]
        refused(judge, issuer.sign(claims(issuer.name), algorithm, kid=kid), "signature")


BROUGHT = {
    "jwk": jwk(private_key("RSA", 8)),
    "jku": "https://evil.example/jwks.json",
    "x5u": "https://evil.example/cert.pem",
    "x5c": ["MIIB"],
    "crit": ["exp"],
    "b64": False,
}


@pytest.mark.parametrize("member", BROUGHT)
def test_a_token_that_brings_its_key(judge: Judge, issuer: LocalIssuer, member: str) -> None:
    """A key or an address in the header is never used, not even with a good signature."""
    header = {"alg": "RS256", "kid": "key-1", member: BROUGHT[member]}
    forger = signer("RS256", private_key("RSA", 8))
    asked = issuer.requests
    refused(judge, compact(header, claims(FILE), forger), "brings a key")
    refused(judge, compact(header, claims(FILE), RS256), "brings a key")
    refused(judge, compact(header, claims(issuer.name), forger), "brings a key")
    assert issuer.requests == asked


def test_b64_false(judge: Judge) -> None:
    """An unencoded payload, declared as RFC 7797 wants it, is refused."""
    header = {"alg": "RS256", "b64": False, "crit": ["b64"]}
    refused(judge, compact(header, claims(FILE), RS256), "brings a key")
    head, plain = base64url(header), json.dumps(claims(FILE))
    signature = base64url(RS256(f"{head}.{plain}".encode()))
    refused(judge, f"{head}.{plain}.{signature}", "well-formed")
    refused(judge, f"{head}..{signature}", "well-formed")


KIDS = {
    "path traversal": "../../../../dev/null",
    "a file": "/etc/hostname",
    "a file's URL": "file:///etc/hostname",
    "a URL": "http://127.0.0.1:1/keys",
    "SQL": "x' UNION SELECT 'secret' --",
    "a command": "$(id)|id",
    "a store key": "sg:session-secret",
    "a format": "%s%n{0}",
    "NUL": "key-1\0",
    "a space after": "key-1 ",
    "a surrogate": "\ud800",
    "huge": "k" * 5_000,
    "empty": "",
}


@pytest.mark.parametrize("kid", KIDS)
def test_kid_injection(judge: Judge, issuer: LocalIssuer, kid: str) -> None:
    """``kid`` is looked up in the set and nowhere else: no file, no URL, no query."""
    forger = private_key("RSA", 8)
    for sign in (signer("RS256", forger), hs256(b""), hs256(b"secret")):
        header = {"alg": "RS256", "kid": KIDS[kid]}
        refused(judge, compact(header, claims(issuer.name), sign), "signature")


@pytest.mark.parametrize("kid", [None, 1, True, [], ["key-1"], {"key-1": 1}])
def test_kid_of_another_kind(judge: Judge, issuer: LocalIssuer, kid: Any) -> None:
    """A ``kid`` that is no text is refused, with a good signature too."""
    _, key = issuer.signing["RS256"]
    told = compact({"alg": "RS256", "kid": kid}, claims(issuer.name), signer("RS256", key))
    refused(judge, told, "wrong form")


def test_a_bad_signature_and_an_unknown_key_read_alike(judge: Judge, issuer: LocalIssuer) -> None:
    """A forger does not learn which keys exist."""
    good = issuer.token()
    sentences = set()
    for text in (
        issuer.sign(claims(issuer.name), kid="nobody's"),
        good.rpartition(".")[0] + "." + base64url(b"x" * 256),
        issuer.sign(claims(issuer.name), kid=None).rpartition(".")[0] + ".AAAA",
        compact({"alg": "RS256"}, claims(FILE)),
    ):
        with pytest.raises(InvalidToken) as told:
            judge(text)
        sentences.add(str(told.value))
    assert len(sentences) == 1


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"exp": None}, id="no exp"),
        pytest.param({"exp": str(int(NOW_S) + 9)}, id="exp a text"),
        pytest.param({"exp": True}, id="exp true"),
        pytest.param({"exp": [NOW_S + 9]}, id="exp a list"),
        pytest.param({"exp": 10**300}, id="exp huge"),
        pytest.param({"exp": 1e300}, id="exp a huge float"),
        pytest.param({"exp": float("nan")}, id="exp NaN"),
        pytest.param({"exp": float("inf")}, id="exp Infinity"),
        pytest.param({"nbf": NOW_S + 61}, id="nbf in 61 s"),
        pytest.param({"nbf": NOW_S + 1e7}, id="nbf far off"),
        pytest.param({"nbf": "now"}, id="nbf a text"),
        pytest.param({"iat": NOW_S + 61}, id="iat in 61 s"),
        pytest.param({"iat": NOW_S + 1e7}, id="iat far off"),
        pytest.param({"iat": float("-inf")}, id="iat -Infinity"),
        pytest.param({"aud": None}, id="no aud"),
        pytest.param({"aud": "another service"}, id="aud another's"),
        pytest.param({"aud": []}, id="aud empty"),
        pytest.param({"aud": [AUDIENCE, 7]}, id="aud with a number"),
        pytest.param({"aud": {AUDIENCE: True}}, id="aud an object"),
        pytest.param({"aud": [[AUDIENCE]]}, id="aud nested"),
        pytest.param({"aud": AUDIENCE + "/"}, id="aud with a slash"),
        pytest.param({"sub": 7}, id="sub a number"),
        pytest.param({"jti": ["a"]}, id="jti a list"),
    ],
)
def test_well_signed_and_still_not_good(judge: Judge, change: dict[str, Any]) -> None:
    """A good signature makes no time, audience or name of what is none."""
    refused(judge, compact({"alg": "RS256"}, claims(FILE, **change), RS256))


@pytest.mark.parametrize(
    "change", [{"aud": "gate"}, {"aud": ["x", AUDIENCE]}, {"exp": NOW_S + 0.5}]
)
def test_well_signed_and_good(judge: Judge, change: dict[str, Any]) -> None:
    """Of several audiences one is enough, on either side; a time may have a fraction."""
    assert judge(compact({"alg": "RS256"}, claims(FILE, **change), RS256))


@pytest.mark.parametrize("name", ["iss", "aud", "exp", "tenant"])
def test_a_claim_twice(judge: Judge, name: str) -> None:
    """Two readers would read two tokens, so none is read; a good signature changes nothing."""
    plain = json.dumps(claims(FILE, tenant="a"))
    twice = plain[:-1] + f', "{name}": {json.dumps(claims(FILE, tenant="b")[name])}}}'
    refused(judge, compact({"alg": "RS256"}, twice, RS256), "well-formed")


def test_expiry(judge: Judge) -> None:
    """Expired by 59 s it still passes, by 61 s it has expired."""
    assert judge(compact({"alg": "RS256"}, claims(FILE, exp=NOW_S - 59), RS256))
    with pytest.raises(TokenExpired):
        judge(compact({"alg": "RS256"}, claims(FILE, exp=NOW_S - 61), RS256))


def test_deep_and_huge(judge: Judge) -> None:
    """Nested and oversized tokens are refused or read; the gate does not fall over."""
    for depth in (500, 1_400):
        deep = json.dumps(claims(FILE, aud="x"))[:-1] + f',"a":{"[" * depth}{"]" * depth}' + "}"
        refused(judge, compact({"alg": "RS256"}, deep, RS256), "well-formed|not made for")
    refused(judge, compact({"alg": "RS256"}, claims(FILE, x="x" * 7_000), RS256), "well-formed")
    refused(judge, "a." * 1_000_000, "well-formed")
    refused(judge, f"{'A' * 4_000_000}.AAAA.AAAA", "well-formed")


@pytest.mark.parametrize(
    "spelled",
    [
        pytest.param("{}=", id="padding"),
        pytest.param("{}.", id="a dot after"),
        pytest.param(".{}", id="a dot before"),
        pytest.param("{} ", id="a space after"),
        pytest.param("\t{}", id="a tab before"),
        pytest.param("{}\n", id="a line end"),
        pytest.param("{}\0", id="NUL"),
        pytest.param("{}\u00e9", id="not ASCII"),
        pytest.param("{}\u200b", id="a zero-width space"),
        pytest.param("{}\ud800", id="a lone surrogate"),
        pytest.param("Bearer {}", id="its scheme"),
        pytest.param('"{}"', id="in quotes"),
        pytest.param("{},{}", id="twice"),
    ],
)
def test_a_good_token_spelled_otherwise(judge: Judge, spelled: str) -> None:
    """A token has one spelling; the same with something around it is not it."""
    good = compact({"alg": "RS256"}, claims(FILE), RS256)
    assert judge(good)
    refused(judge, spelled.replace("{}", good), "well-formed")


def test_every_other_last_character(judge: Judge) -> None:
    """The spare bits of a segment's last character are no room for a second spelling."""
    good = compact({"alg": "RS256"}, claims(FILE), RS256)
    for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
        if last != good[-1]:
            refused(judge, good[:-1] + last, "well-formed|signature")


def test_psychic_signatures(judge: Judge, issuer: LocalIssuer) -> None:
    """An ECDSA signature of zeros, of the order, or of another length signs nothing."""
    kid, _ = issuer.signing["ES256"]
    order = bytes.fromhex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551")
    signatures = [b"\0" * 64, order * 2, b"\0" * 63 + b"\1", b"\0", b"\xff" * 64, b"\0" * 128]
    for raw in signatures:
        header = {"alg": "ES256", "kid": kid}
        refused(judge, compact(header, claims(issuer.name), lambda _, s=raw: s), "signature")


def test_a_session_cannot_be_forged(judge: Judge) -> None:
    """The gate's own name opens nothing: not under another's secret, nor under another's key."""
    told = claims(ISSUER, aud=ISSUER, tenant="default", key_id="k", ims=1, user="admin")
    for header, sign in (
        ({"alg": "HS256"}, hs256(SECRET.encode())),
        ({"alg": "HS256"}, hs256(b"")),
        ({"alg": "HS256"}, hs256(pem(KEY))),
    ):
        refused(judge, compact(header, told, sign), "signature")
    refused(judge, compact({"alg": "RS256"}, told, RS256), "algorithm")


def test_another_issuer_cannot_make_sessions(judge: Judge) -> None:
    """Claims that mean something in a session mean nothing in another's token."""
    told = claims(FILE, user="admin", key_id="static-admin-1", operator=True, tenant="acme", ims=1)
    found = judge(compact({"alg": "RS256"}, told, RS256))
    assert (found.user, found.caller.operator, found.caller.tenant) == (None, False, "default")
    assert found.caller.key_id.startswith("jwt-")


def test_a_refusal_repeats_nothing(judge: Judge) -> None:
    """What was in a token is not in the sentence that refuses it, nor in what it came from."""
    planted = "s3cret-in-a-token"
    for text in (
        planted,
        f"{planted}.{planted}.{planted}",
        compact({"alg": planted}, claims(FILE), RS256),
        compact({"alg": "RS256", "kid": planted}, claims(FILE)),
        compact({"alg": "RS256"}, claims(planted), RS256),
        compact({"alg": "RS256"}, claims(FILE, aud=planted), RS256),
        compact({"alg": "RS256"}, claims(FILE, exp=planted), RS256),
        compact({"alg": "RS256"}, claims(FILE, sub=[planted]), RS256),
        compact({"alg": "HS256"}, claims(SHARED, tenant=planted * 9), hs256(SECRET.encode())),
    ):
        with pytest.raises(InvalidToken) as told:
            judge(text)
        assert planted not in str(told.value)
        assert told.value.__cause__ is None
        assert told.value.__suppress_context__ or told.value.__context__ is None


GOOD = compact({"alg": "RS256"}, claims(FILE), RS256)
UNHURRIED = settings(deadline=None)  # the machine may be busy
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
ODD = st.sampled_from([AUDIENCE, "gate", NOW_S, SHARED, "admin", 10**400, "\ud800", -0.0, 1e-320])


@UNHURRIED
@given(text=st.text() | st.text("ab.=-_\ud800\0", max_size=40) | st.from_regex(r"e[\w.-]*"))
@example("..")
@example("e30.e30.e30")
@example("bnVsbA.bnVsbA.bnVsbA")
def test_any_text_is_refused(judge: Judge, text: str) -> None:
    """Whatever text comes, it is refused as a token, and nothing else happens."""
    refused(judge, text)


@UNHURRIED
@given(at=st.integers(0, len(GOOD)), by=st.text(max_size=3), less=st.integers(0, 3))
def test_a_mutated_token_is_refused(judge: Judge, at: int, by: str, less: int) -> None:
    """A good token with characters changed, lost or added is refused; only itself passes."""
    text = GOOD[:at] + by + GOOD[at + less :]
    if text == GOOD:
        assert judge(text)
    else:
        refused(judge, text)


@UNHURRIED
@given(
    header=st.just({})
    | st.dictionaries(st.sampled_from(["alg", "kid", "typ", "jwk", "crit", "x"]), JSON | ODD),
    changes=st.dictionaries(
        st.sampled_from(["exp", "nbf", "iat", "aud", "sub", "jti", "scope", "tenant", "models"]),
        JSON | ODD,
    ),
    limits=JSON | st.dictionaries(st.sampled_from(LIMITS), JSON | ODD),
)
def test_any_well_signed_claims(
    judge: Judge, header: dict[str, Any], changes: dict[str, Any], limits: Any
) -> None:
    """Whatever an issuer signs names a caller that is no operator, or is refused as a token."""
    told = claims(SHARED, tenant="acme", limits=limits) | changes
    text = compact(header | {"alg": "HS256"}, told, hs256(SECRET.encode()))
    try:
        found = judge(text)
    except (InvalidToken, TokenExpired):
        return
    assert not found.caller.operator
    assert found.user is None
    json.dumps(sorted(found.caller.models or ())).encode()
    repr(found).encode()


@UNHURRIED
@given(payload=st.binary(max_size=60), signature=st.binary(max_size=300))
def test_any_bytes_in_a_token(judge: Judge, payload: bytes, signature: bytes) -> None:
    """Whatever bytes stand in a payload or a signature, the token is refused."""
    refused(judge, compact({"alg": "RS256"}, payload, RS256))
    refused(judge, compact({"alg": "RS256"}, claims(FILE), lambda _: signature))
