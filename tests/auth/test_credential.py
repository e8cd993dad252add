"""Which credential a request shows (CONTRACT §1)."""

from collections.abc import Iterable
from itertools import product

import pytest

from serve_app.auth import How, find, in_body, make, missing, parse
from serve_app.errors import InvalidKey, InvalidRequest, MissingCredentials

ONE, TWO = make("default"), make("acme")
A, B = ONE.text.encode(), TWO.text.encode()
ID, SECRET = ONE.key.key_id.encode(), ONE.text.rpartition("-")[2].encode()
JWT, OTHER_JWT = b"eyJhbGciOiJIUzI1NiJ9.e30.c2ln", b"eyJhbGciOiJIUzI1NiJ9.e30.b3RoZXI"
Headers = list[tuple[bytes, bytes]]


def bearer(key: bytes, scheme: bytes = b"Bearer ") -> Headers:
    return [(b"authorization", scheme + key)]


def x_api_key(key: bytes) -> Headers:
    return [(b"x-api-key", key)]


def apikey(key: bytes) -> Headers:
    return [(b"apikey", key)]


def cloudflare(key_id: bytes, secret: bytes) -> Headers:
    return [(b"cf-access-client-id", key_id), (b"cf-access-client-secret", secret)]


def assertion(token: bytes) -> Headers:
    return [(b"cf-access-jwt-assertion", token)]


@pytest.mark.parametrize(
    ("headers", "how", "text"),
    [
        pytest.param(bearer(A), How.BEARER, A, id="Authorization"),
        pytest.param(bearer(JWT), How.BEARER, JWT, id="a JWT as bearer"),
        pytest.param(bearer(A, b"bearer "), How.BEARER, A, id="scheme in small letters"),
        pytest.param(bearer(A, b"BEARER "), How.BEARER, A, id="scheme in capitals"),
        pytest.param(bearer(A, b" Bearer   "), How.BEARER, A, id="spaces around"),
        pytest.param(bearer(JWT, b""), How.AUTHORIZATION, JWT, id="a JWT without a scheme"),
        pytest.param(x_api_key(A), How.X_API_KEY, A, id="X-API-Key"),
        pytest.param(x_api_key(b"  " + A + b" "), How.X_API_KEY, A, id="X-API-Key with spaces"),
        pytest.param(apikey(A), How.APIKEY, A, id="apikey"),
        pytest.param(cloudflare(ID + b".access", A), How.CF_ACCESS, A, id="Cloudflare, whole key"),
        pytest.param(cloudflare(ID + b".access", SECRET), How.CF_ACCESS, A, id="Cloudflare"),
        pytest.param(
            cloudflare(b"acme-" + TWO.key.key_id.encode() + b".access", B[-49:]),
            How.CF_ACCESS,
            B,
            id="Cloudflare with a tenant",
        ),
        pytest.param(assertion(JWT), How.CF_ACCESS_JWT, JWT, id="Cloudflare's JWT"),
        pytest.param(bearer(A) + bearer(A), How.BEARER, A, id="the same header twice"),
        pytest.param([(b"cookie", b"x-api-key=" + B), *bearer(A)], How.BEARER, A, id="a cookie"),
        pytest.param(
            [("\N{SMALL ROMAN NUMERAL TEN}-api-key".encode(), B), *apikey(A)],
            How.APIKEY,
            A,
            id="a look-alike header name",
        ),
    ],
)
def test_a_credential_is_found(headers: Headers, how: How, text: bytes) -> None:
    """Each place is read; the same key twice is one key; nothing else is a place."""
    found = find(headers)
    assert found is not None
    assert (found.how, found.text) == (how, text.decode())


PLACES = {
    How.BEARER: bearer(A),
    How.X_API_KEY: x_api_key(A),
    How.APIKEY: apikey(A),
    How.CF_ACCESS: cloudflare(ID + b".access", SECRET),
    How.CF_ACCESS_JWT: assertion(JWT),
}


@pytest.mark.parametrize(("one", "other"), list(product(PLACES, PLACES)))
def test_of_two_places_the_first_of_the_table_decides(one: How, other: How) -> None:
    """Whatever order the headers come in; a JWT beside a key is no second key."""
    found = find(PLACES[other] + PLACES[one])
    order = list(PLACES)
    assert found is not None
    assert found.how == min(one, other, key=order.index)


@pytest.mark.parametrize("one", PLACES)
@pytest.mark.parametrize("bad", [b"", b"x", b"\0", b"\xff" * 9, b"a" * 65_536], ids=repr)
def test_a_bad_one_in_front_is_not_rescued(one: How, bad: bytes) -> None:
    """The first place decides, also when what stands there is no credential."""
    second = assertion(JWT) if one is How.BEARER else PLACES[one]

    def read() -> None:
        found = find(bearer(bad) + second)
        assert found is not None
        assert found.how is How.BEARER
        parse(found.text)

    with pytest.raises((InvalidKey, InvalidRequest, MissingCredentials)):
        read()


@pytest.mark.parametrize("later", [How.X_API_KEY, How.APIKEY, How.CF_ACCESS, How.CF_ACCESS_JWT])
def test_an_empty_one_behind_does_not_matter(later: How) -> None:
    """A header that holds nothing is no second credential."""
    empty = [(name, b"") for name, _ in PLACES[later]]
    found = find(bearer(A) + empty)
    assert found is not None
    assert found.how is How.BEARER


@pytest.mark.parametrize(
    ("headers", "refusal", "says"),
    [
        pytest.param(bearer(A) + x_api_key(B), InvalidRequest, "two different", id="two keys"),
        pytest.param(x_api_key(A) + apikey(B), InvalidRequest, "two different", id="two others"),
        pytest.param(bearer(A) + bearer(B), InvalidRequest, "two different", id="one header twice"),
        pytest.param(
            assertion(JWT) + assertion(OTHER_JWT), InvalidRequest, "two different", id="two JWTs"
        ),
        pytest.param(bearer(b"x") + x_api_key(A), InvalidRequest, "two different", id="bad first"),
        pytest.param(
            cloudflare(ID + b".access", SECRET) + cloudflare(b"x" * 12 + b".access", SECRET),
            InvalidRequest,
            "two different",
            id="two service tokens",
        ),
        pytest.param(
            x_api_key(A) + bearer(b""), MissingCredentials, "Bearer <key>", id="empty second"
        ),
        pytest.param(bearer(b""), MissingCredentials, "Bearer <key>", id="scheme alone"),
        pytest.param(bearer(b"", b""), MissingCredentials, "Bearer <key>", id="empty header"),
        pytest.param(bearer(A, b""), InvalidKey, "Bearer <key>", id="a key without its scheme"),
        pytest.param(bearer(A, b"Basic "), InvalidKey, "Bearer <key>", id="another scheme"),
        pytest.param(bearer(A, b"Bearer"), InvalidKey, "Bearer <key>", id="no space"),
        pytest.param(
            x_api_key(b""), MissingCredentials, "x-api-key header is empty", id="empty key"
        ),
        pytest.param(
            x_api_key(b" \t "), MissingCredentials, "x-api-key header is empty", id="blank key"
        ),
        pytest.param(apikey(b""), MissingCredentials, "apikey header is empty", id="empty apikey"),
        pytest.param(assertion(A), InvalidKey, "holds no JWT", id="a key as assertion"),
        pytest.param(
            cloudflare(ID + b".access", SECRET)[:1], InvalidKey, "service token is", id="id alone"
        ),
        pytest.param(
            cloudflare(ID + b".access", SECRET)[1:], InvalidKey, "service token is", id="no id"
        ),
        pytest.param(cloudflare(ID, SECRET), InvalidKey, "service token is", id="no .access"),
        pytest.param(
            cloudflare(b"AAAAAAAAAAAA.access", A), InvalidKey, "not that of the key", id="other id"
        ),
        pytest.param(
            cloudflare(b"acme-" + ID + b".access", A), InvalidKey, "not that of", id="other tenant"
        ),
    ],
)
def test_a_request_without_one_good_credential(headers: Headers, refusal, says) -> None:
    """A bad credential is never rescued by another, nor an empty one; two different are 400."""
    with pytest.raises(refusal, match=says) as told:
        find(headers)
    assert told.type is refusal


def test_none_is_none() -> None:
    """A request without any is told so by who knows whether strangers are served."""
    assert find([(b"host", b"x")]) is None
    assert missing({"model": "x"}).code == "missing_credentials"


@pytest.mark.parametrize("name", ["api_key", "API_KEY", "apikey", "key", "token", "access_token"])
def test_a_key_in_the_query_string(name: str) -> None:
    """It is not read, and the 401 says that such keys end up in logs, without repeating it."""
    told = missing({name: ONE.text})
    assert "query string ends up in logs" in str(told)
    assert ONE.text not in str(told)


@pytest.mark.parametrize("value", ["", None, 1, ["x"], {}])
def test_a_body_whose_key_is_none(value: object) -> None:
    """``api_key`` is a string or the request is refused."""
    with pytest.raises(InvalidKey, match="must be a string"):
        in_body(value)


def texts() -> Iterable[Headers]:
    """Every place with a secret that is no key of ours."""
    secret = b"sk-secret-42"
    yield bearer(secret)
    yield bearer(secret, b"Basic ")
    yield x_api_key(secret) + apikey(secret + b"3")
    yield cloudflare(secret, secret)
    yield assertion(secret)


def test_a_refusal_never_repeats_what_was_shown() -> None:
    """It is not in the message, and not in what a log or a traceback would show."""
    for headers in texts():
        try:
            found = find(headers)
            assert found is not None
            assert "secret-42" not in repr(found)
            parse(found.text)
        except (InvalidKey, InvalidRequest) as err:
            assert "secret-42" not in str(err)  # noqa: PT017 - either step may refuse
