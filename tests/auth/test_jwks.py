"""An issuer's key set over HTTP (CONTRACT §1.3): fetched, rotated, down, slow, hostile."""

import asyncio
import gzip
import json
import logging
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.auth.tokens.issuers import Issuers
from serve_app.auth.tokens.jwks import (
    FIRST_RETRY_S,
    FRESH_S,
    MAX_BYTES,
    MAX_KEYS,
    RETRY_S,
    FetchedKeys,
    KeySet,
    UnfitSetError,
)
from serve_app.errors import InvalidToken, IssuerUnavailable
from tests.auth.issuing import (
    KINDS,
    NOW_S,
    Answer,
    LocalIssuer,
    base64url,
    claims,
    jwk,
    private_key,
    until,
)

ALL = tuple(KINDS)


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    """An issuer with one RSA key."""
    with LocalIssuer() as one:
        yield one


@pytest.fixture
async def gate(issuer: LocalIssuer) -> AsyncIterator[Issuers]:
    """A gateway that believes it."""
    issuers = Issuers([issuer.settings()], {})
    yield issuers
    await issuers.close()


@pytest.fixture
async def keys(issuer: LocalIssuer) -> AsyncIterator[FetchedKeys]:
    """Its key set, as a gateway fetches it; one that is slow is given up after 0.3 s."""
    fetched = FetchedKeys(issuer.url, ["RS256"], issuer=issuer.name, timeout_s=0.3)
    yield fetched
    await fetched.close()


async def refused(gate: Issuers, text: str, now_s: float = NOW_S) -> InvalidToken:
    """Return why a token is refused."""
    with pytest.raises(InvalidToken) as told:
        await gate.verify(text, now_s=now_s)
    return told.value


def forged(issuer: LocalIssuer, number: int) -> str:
    """Return a token under a key that nobody knows."""
    return issuer.sign(claims(issuer.name, jti=str(number)), kid=f"forged-{number}")


async def test_a_set_is_fetched_when_it_is_needed(gate: Issuers, issuer: LocalIssuer) -> None:
    """Nobody is asked before the first token, and once for all that follow."""
    assert issuer.requests == 0
    for number in range(20):
        await gate.verify(issuer.token(jti=str(number)), now_s=NOW_S)
    assert issuer.requests == 1


async def test_a_rotation_is_noticed_at_once(gate: Issuers, issuer: LocalIssuer) -> None:
    """A token under a new key is good on its first request, a minute after the last look."""
    await gate.verify(issuer.token(), now_s=NOW_S)
    for round_ in range(1, 4):
        issuer.rotate()
        assert await gate.verify(issuer.token(), now_s=NOW_S + RETRY_S * round_)
        assert issuer.requests == 1 + round_


async def test_an_issuer_that_names_no_keys_may_rotate(gate: Issuers, issuer: LocalIssuer) -> None:
    """A set of one key without a name: a token that it did not sign is reason to look again."""
    for at_s in (NOW_S, NOW_S + RETRY_S):
        issuer.published = [jwk(private_key("RSA", issuer.requests + 1))]
        assert await gate.verify(issuer.sign(claims(issuer.name), kid=None), now_s=at_s)
        issuer.rotate()
    assert issuer.requests == 2


async def test_ten_thousand_forged_keys(gate: Issuers, issuer: LocalIssuer) -> None:
    """However many tokens name keys that do not exist, the issuer is asked once a minute."""
    await gate.verify(issuer.token(), now_s=NOW_S)
    _, payload, signature = forged(issuer, 0).split(".")
    for number in range(10_000):
        text = f"{base64url({'alg': 'RS256', 'kid': str(number)})}.{payload}.{signature}"
        await refused(gate, text, NOW_S + 119.9 * number / 10_000)
    assert issuer.requests == 2
    await refused(gate, forged(issuer, 1), NOW_S + 130)
    assert issuer.requests == 3


async def test_a_thousand_at_once_share_one_fetch(gate: Issuers, issuer: LocalIssuer) -> None:
    """Requests that arrive while a set is fetched wait for it; good ones pass, forged ones not."""
    issuer.open.clear()
    good = [issuer.token(jti=str(number)) for number in range(30)]
    bad = [forged(issuer, number) for number in range(30)] * 30
    judged = [asyncio.create_task(gate.verify(text, now_s=NOW_S)) for text in good + bad]
    await asyncio.sleep(0)  # each has begun
    issuer.open.set()
    told = await asyncio.gather(*judged, return_exceptions=True)
    assert all(one.caller.tenant == "default" for one in told[:30])
    assert {type(one) for one in told[30:]} == {InvalidToken}
    assert issuer.requests == 1


async def test_a_fetch_under_way_is_not_begun_again(keys: FetchedKeys, issuer: LocalIssuer) -> None:
    """Who comes a minute later, while the fetch still runs, waits for that one."""
    issuer.open.clear()
    waiting = [asyncio.create_task(keys.renewed(NOW_S + RETRY_S * late)) for late in range(3)]
    await asyncio.sleep(0)  # each has begun
    issuer.open.set()
    assert await asyncio.gather(*waiting) == [True] * 3
    assert issuer.requests == 1


async def test_who_hangs_up_leaves_the_fetch_to_the_others(
    gate: Issuers, issuer: LocalIssuer
) -> None:
    """The first to ask began the fetch; that it is gone costs the second nothing."""
    issuer.open.clear()
    gone, stays = [
        asyncio.create_task(gate.verify(issuer.token(jti=name), now_s=NOW_S)) for name in "ab"
    ]
    await asyncio.sleep(0)  # both have begun
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    issuer.open.set()
    assert await stays
    assert issuer.requests == 1


async def test_an_old_set_is_renewed_beside_the_requests(
    gate: Issuers, issuer: LocalIssuer
) -> None:
    """After ten minutes the set is asked for again; the request that notices does not wait."""
    late = issuer.token(exp=int(NOW_S) + 2 * FRESH_S)
    for age_s in (0, FRESH_S - 1):
        await gate.verify(late, now_s=NOW_S + age_s)
    assert issuer.requests == 1
    issuer.open.clear()
    for _ in range(3):
        assert await gate.verify(late, now_s=NOW_S + FRESH_S)
    await until(lambda: issuer.requests == 2)
    issuer.open.set()


async def test_a_clock_that_was_set_back(gate: Issuers, issuer: LocalIssuer) -> None:
    """A fetch that lies in the future does not keep the next one away."""
    await gate.verify(issuer.token(exp=NOW_S + 90_000), now_s=NOW_S + 86_400)
    issuer.rotate()
    assert await gate.verify(issuer.token(), now_s=NOW_S)


OUTAGES = {
    "500": Answer(500),
    "404": Answer(404, b'{"keys": []}'),
    "204": Answer(204),
    "a redirect": Answer(302, headers={"location": "http://127.0.0.1:1/keys"}),
    "a permanent redirect": Answer(308, headers={"location": "/elsewhere"}),
    "an HTML page": Answer(200, b"<html>We will be back soon.</html>"),
    "nothing": Answer(200, b""),
    "no keys": Answer(200, b"{}"),
    "keys that are no list": Answer(200, b'{"keys": {"a": 1}}'),
    "a list": Answer(200, b"[]"),
    "not UTF-8": Answer(200, b'{"keys": "\xff"}'),
    "nested": Answer(200, b"[" * 100_000),
    "compressed": Answer(200, gzip.compress(b'{"keys": []}'), {"content-encoding": "gzip"}),
    "too many keys": Answer(200, json.dumps({"keys": [{}] * (MAX_KEYS + 1)}).encode()),
    "too large": Answer(200, b'{"keys": [], "x": "' + b"x" * MAX_BYTES + b'"}'),
}


@pytest.mark.parametrize("name", OUTAGES)
async def test_the_last_set_outlives_an_outage(
    gate: Issuers, issuer: LocalIssuer, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the URL answers instead of a set, known keys go on working; the log says why."""
    await gate.verify(issuer.token(), now_s=NOW_S)
    issuer.answer = OUTAGES[name]
    for minute in range(1, 4):
        at_s = NOW_S + RETRY_S * minute
        assert "signature" in str(await refused(gate, forged(issuer, minute), at_s))
        assert await gate.verify(issuer.token(jti=str(minute)), now_s=at_s)
    assert issuer.requests == 4
    assert {one.levelname for one in caplog.records} == {"WARNING"}
    assert "the last one stays in use" in caplog.text
    issuer.answer = None
    issuer.rotate()
    assert await gate.verify(issuer.token(), now_s=NOW_S + RETRY_S * 4)
    assert "is here again" in caplog.text


async def test_a_server_that_is_gone(gate: Issuers, issuer: LocalIssuer) -> None:
    """With nobody at the URL, known keys go on working and unknown ones are refused."""
    await gate.verify(issuer.token(), now_s=NOW_S)
    issuer.stop()
    await refused(gate, forged(issuer, 1), NOW_S + RETRY_S)
    assert await gate.verify(issuer.token(jti="a"), now_s=NOW_S + 299)


async def test_keys_that_never_came(
    gate: Issuers, issuer: LocalIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody can judge the token, and that is said, with when to come again; not that it is bad."""
    issuer.answer = Answer(503)
    for number in range(50):
        with pytest.raises(IssuerUnavailable, match="cannot be fetched now") as told:
            await gate.verify(issuer.token(jti=str(number)), now_s=NOW_S)
        assert told.value.retry_after_s == FIRST_RETRY_S
    assert issuer.requests == 1
    assert len(caplog.records) == 1
    assert "its tokens are refused" in caplog.text
    issuer.answer = None
    assert await gate.verify(issuer.token(), now_s=NOW_S + FIRST_RETRY_S)
    await refused(gate, forged(issuer, 1))


async def test_an_outage_is_logged_once_a_minute(
    gate: Issuers, issuer: LocalIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    """A URL that is down for long fills no disk: one line a minute, and it shows no answer."""
    issuer.answer = Answer(200, b"s3cret from somewhere else")
    for tick in range(24):
        with pytest.raises(IssuerUnavailable):
            await gate.verify(issuer.token(), now_s=NOW_S + FIRST_RETRY_S * tick)
    assert issuer.requests == 24
    assert len(caplog.records) == 2
    assert "s3cret" not in caplog.text


async def test_a_slow_server(keys: FetchedKeys, issuer: LocalIssuer) -> None:
    """A fetch is given up after its time, and everything else goes on meanwhile."""
    issuer.open.clear()
    fetch = asyncio.create_task(keys.renewed(NOW_S))
    ticks = 0
    began_s = time.monotonic()
    while not fetch.done():
        await asyncio.sleep(0.01)  # the loop is free to do this
        ticks += 1
    assert not await fetch
    assert time.monotonic() - began_s < 5
    assert ticks > 5
    assert not keys.known


async def test_a_fetch_can_be_stopped(issuer: LocalIssuer) -> None:
    """Closing ends a fetch under way, and leaves none behind."""
    issuer.open.clear()
    fetched = FetchedKeys(issuer.url, ["RS256"], issuer=issuer.name)
    waiting = asyncio.create_task(fetched.renewed(NOW_S))
    await until(lambda: issuer.requests == 1)
    await fetched.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_the_environment_names_no_proxy(
    keys: FetchedKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy in the environment is not asked for keys."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert await keys.renewed(NOW_S)


async def test_a_certificate_that_nobody_vouches_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever stands at the address with a certificate of his own making is not asked for keys."""
    with LocalIssuer(tls=self_made(tmp_path)) as issuer:
        gate = Issuers([issuer.settings()], {})
        with pytest.raises(IssuerUnavailable, match="cannot be fetched"):
            await gate.verify(issuer.token(), now_s=NOW_S)
        assert issuer.requests == 0
        assert "ClientConnectorCertificateError" in caplog.text
        await gate.close()


def self_made(folder: Path) -> ssl.SSLContext:
    """Return what serves with a certificate for 127.0.0.1 that signs itself."""
    key = private_key("EC", 9)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    host = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(host, critical=False)
        .sign(key, SHA256())
    )
    file = folder / "server.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + made.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


async def test_a_set_that_is_withdrawn(
    gate: Issuers, issuer: LocalIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    """An issuer that publishes a set without keys means it: its tokens end, and the log says so."""
    await gate.verify(issuer.token(), now_s=NOW_S)
    issuer.published.clear()
    await refused(gate, forged(issuer, 1), NOW_S + RETRY_S)
    told = await refused(gate, issuer.token(), NOW_S + RETRY_S)
    assert "signature" in str(told)
    assert "has 0 keys to use" in caplog.text


RSA = jwk(private_key("RSA"), kid="a")
EC = jwk(private_key("EC"), kid="a")
ED = jwk(private_key("OKP"), kid="a")


@pytest.mark.parametrize(
    ("entry", "usable"),
    [
        pytest.param(RSA, ["RS256", "PS256"], id="RSA"),
        pytest.param(EC, ["ES256"], id="P-256"),
        pytest.param(ED, ["EdDSA"], id="Ed25519"),
        pytest.param(RSA | {"alg": "PS256"}, ["PS256"], id="RSA for PS256 alone"),
        pytest.param(RSA | {"use": "sig", "key_ops": ["verify"]}, ["RS256", "PS256"], id="verify"),
        pytest.param(RSA | {"x5c": ["MIIB"], "x5t": "abc"}, ["RS256", "PS256"], id="certificate"),
        pytest.param(RSA | {"use": "enc"}, [], id="for encryption"),
        pytest.param(RSA | {"key_ops": ["sign"]}, [], id="for signing"),
        pytest.param(RSA | {"key_ops": "verify"}, [], id="operations in words"),
        pytest.param(RSA | {"alg": "RS512"}, [], id="another algorithm"),
        pytest.param(RSA | {"alg": "ES256"}, [], id="an algorithm that does not fit"),
        pytest.param(RSA | {"alg": ["RS256"]}, [], id="a list of algorithms"),
        pytest.param(RSA | {"kid": 1}, [], id="a number for a name"),
        pytest.param(RSA | {"d": "AQAB"}, [], id="its private half, too"),
        pytest.param(RSA | {"kty": "oct", "k": "AAAA"}, [], id="a shared secret"),
        pytest.param(RSA | {"kty": ["RSA"]}, [], id="a list of kinds"),
        pytest.param(RSA | {"kty": "DSA"}, [], id="an unknown kind"),
        pytest.param(RSA | {"n": 7}, [], id="a number for a modulus"),
        pytest.param(RSA | {"n": "!!"}, [], id="no base64"),
        pytest.param(RSA | {"n": ""}, [], id="no modulus"),
        pytest.param(RSA | {"n": "_" * 1_401}, [], id="an endless modulus"),
        pytest.param(RSA | {"e": "AQ"}, [], id="exponent 1"),
        pytest.param(RSA | {"e": "_" * 300}, [], id="an endless exponent"),
        pytest.param(RSA | {"e": "Ag"}, [], id="exponent 2"),
        pytest.param({"kty": "RSA", "kid": "a"}, [], id="a name alone"),
        pytest.param(jwk(rsa.generate_private_key(65_537, 1_024), kid="a"), [], id="weak RSA"),
        pytest.param(jwk(ec.generate_private_key(ec.SECP384R1()), kid="a"), [], id="P-384"),
        pytest.param(jwk(ec.generate_private_key(ec.SECP256K1()), kid="a"), [], id="secp256k1"),
        pytest.param(EC | {"crv": "P-384"}, [], id="the wrong curve's name"),
        pytest.param(EC | {"x": EC["y"], "y": EC["x"]}, [], id="a point off the curve"),
        pytest.param(EC | {"x": "AAAA"}, [], id="a short point"),
        pytest.param(ED | {"x": "AAAA"}, [], id="a short Ed25519 key"),
        pytest.param(ED | {"crv": "X25519"}, [], id="a key for agreement"),
        pytest.param(
            {"kty": "OKP", "crv": "Ed448", "x": base64url(b"x" * 57), "kid": "a"}, [], id="Ed448"
        ),
        pytest.param([], [], id="a list"),
        pytest.param(None, [], id="null"),
        pytest.param("RSA", [], id="a text"),
    ],
)
def test_what_a_set_holds(entry: Any, usable: list[str]) -> None:
    """A key is used for what it fits; rubbish beside it spoils nothing."""
    good = jwk(private_key("RSA", 3), kid="good")
    found = KeySet.read(json.dumps({"keys": [entry, good, entry]}).encode(), ALL)
    assert [name for name in ALL if found.fitting(name, "a")] == [
        name for name in ALL if name in usable
    ]
    assert len(found.fitting("RS256", "good")) == 1
    assert found.unused == (0 if usable else 2)


def test_keys_are_only_for_what_the_issuer_signs_with() -> None:
    """An EC key in the set of an issuer that signs with RS256 is no key of its tokens."""
    found = KeySet.read(json.dumps({"keys": [RSA, EC | {"kid": "b"}]}).encode(), ["RS256"])
    assert found.fitting("RS256", "a")
    assert not found.fitting("PS256", "a")
    assert not found.fitting("ES256", "b")


def bare(number: int, **members: Any) -> dict[str, Any]:
    return jwk(private_key("RSA", number), **members)


@pytest.mark.parametrize(
    ("entries", "kid", "fitting"),
    [
        pytest.param([bare(1)], None, 1, id="neither has a name"),
        pytest.param([bare(1), EC], None, 1, id="the only one that fits"),
        pytest.param([bare(1), bare(2)], None, 0, id="two fit"),
        pytest.param([bare(1), bare(1)], None, 1, id="the same one twice"),
        pytest.param([bare(1, kid="a")], None, 1, id="only the key has a name"),
        pytest.param([bare(1)], "a", 0, id="only the token has a name"),
        pytest.param([bare(1)], "", 0, id="an empty name"),
        pytest.param([bare(1, kid="a"), bare(2, kid="b")], "b", 1, id="by name"),
        pytest.param([bare(1, kid="a"), bare(2, kid="a")], "a", 2, id="two of one name"),
        pytest.param([bare(1, kid="a"), EC], "a", 1, id="two of one name, one fits"),
    ],
)
def test_which_key_is_meant(entries: list[Any], kid: str | None, fitting: int) -> None:
    """A name finds its keys and no others; without one, the set must leave no choice."""
    found = KeySet.read(json.dumps({"keys": entries}).encode(), ALL)
    assert len(found.fitting("RS256", kid)) == fitting


async def test_two_keys_of_one_name(gate: Issuers, issuer: LocalIssuer) -> None:
    """An issuer that gives every key the same name is understood: each of them is tried."""
    texts = []
    for _ in range(2):
        issuer.rotate(keep=True)
        texts.append(issuer.sign(claims(issuer.name), kid="same"))
    for one in issuer.published:
        one["kid"] = "same"
    for text in texts:
        assert await gate.verify(text, now_s=NOW_S)


def test_the_largest_set_is_read() -> None:
    """A hundred keys are read; one more and the set is refused, for each could be tried."""
    keys = [bare(1, kid=str(number)) for number in range(MAX_KEYS)]
    assert len(KeySet.read(json.dumps({"keys": keys}).encode(), ALL).entries) == MAX_KEYS
    with pytest.raises(UnfitSetError, match="more than 100"):
        KeySet.read(json.dumps({"keys": [*keys, {}]}).encode(), ALL)


UNHURRIED = settings(deadline=None)  # the machine may be busy
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
MEMBERS = ["kty", "n", "e", "x", "y", "crv", "alg", "use", "kid", "key_ops", "d"]
KNOWN = st.sampled_from(["RSA", "EC", "OKP", "P-256", "Ed25519", "AQAB", "sig", RSA["n"], EC["x"]])


@UNHURRIED
@given(keys=st.lists(st.dictionaries(st.sampled_from(MEMBERS), KNOWN | JSON)) | JSON)
def test_any_set_is_read_or_refused(keys: Any) -> None:
    """Whatever stands in a set, reading it ends in keys or in one refusal."""
    try:
        KeySet.read(json.dumps({"keys": keys}).encode(), ALL)
    except UnfitSetError:
        assert not isinstance(keys, list) or len(keys) > MAX_KEYS


@UNHURRIED
@given(body=st.binary())
def test_any_body_is_read_or_refused(body: bytes) -> None:
    """Whatever bytes come instead of a set, the refusal is the one the fetch expects."""
    with pytest.raises(UnfitSetError):
        KeySet.read(body, ALL)


async def test_the_log_is_quiet_about_a_good_set(
    gate: Issuers, issuer: LocalIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    """A set without rubbish is nobody's news; one with some is told when it changes, not before."""
    caplog.set_level(logging.DEBUG, "sluicegate.auth")
    await gate.verify(issuer.token(), now_s=NOW_S)
    assert caplog.records == []
    issuer.published.append({"kty": "oct"})
    await refused(gate, forged(issuer, 1), NOW_S + RETRY_S)
    assert caplog.records == []
    issuer.rotate()
    for minute in (2, 3):
        await refused(gate, forged(issuer, minute), NOW_S + RETRY_S * minute)
    assert [one.getMessage().partition(" has ")[2] for one in caplog.records] == [
        "1 keys to use and 1 that cannot be used"
    ]
