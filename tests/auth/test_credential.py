"""Which credential a request shows (CONTRACT §1)."""

import hashlib

import pytest

from serve_app.auth import PERMISSIONS, StaticKeys, find, make
from serve_app.errors import InvalidKey, InvalidRequest, MissingCredentials

ONE, TWO = make("default"), make("acme")
A, B = ONE.text.encode(), TWO.text.encode()
NOBODY = StaticKeys([], [])
Headers = list[tuple[bytes, bytes]]


def bearer(key: bytes, scheme: bytes = b"Bearer ") -> tuple[bytes, bytes]:
    return (b"authorization", scheme + key)


def x_api_key(key: bytes) -> tuple[bytes, bytes]:
    return (b"x-api-key", key)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([bearer(A)], id="Authorization"),
        pytest.param([bearer(A, b"bearer ")], id="scheme in small letters"),
        pytest.param([bearer(A, b"BEARER ")], id="scheme in capitals"),
        pytest.param([bearer(A, b" Bearer   ")], id="spaces around"),
        pytest.param([x_api_key(A)], id="X-API-Key"),
        pytest.param([x_api_key(b"  " + A + b" ")], id="X-API-Key with spaces"),
        pytest.param([bearer(A), x_api_key(A)], id="the same key twice"),
        pytest.param([bearer(A), bearer(A)], id="the same header twice"),
        pytest.param([(b"cookie", b"x-api-key=" + B), bearer(A)], id="a cookie is no credential"),
    ],
)
def test_a_key_is_found(headers: Headers) -> None:
    """Each place is read; the scheme in any case; the same key twice is one key."""
    found = find(headers, {}, NOBODY)
    assert (found.tenant, found.key_id, found.sha256) == (
        "default",
        ONE.key.key_id,
        hashlib.sha256(ONE.text[-49:-6].encode()).hexdigest(),
    )
    assert found.vouched is None


@pytest.mark.parametrize(
    ("headers", "refusal", "says"),
    [
        pytest.param([], MissingCredentials, "No API key given", id="none"),
        pytest.param([bearer(A), x_api_key(B)], InvalidRequest, "two different", id="two"),
        pytest.param([bearer(A), bearer(B)], InvalidRequest, "two different", id="two alike"),
        pytest.param([bearer(b"x"), x_api_key(A)], InvalidRequest, "two different", id="bad first"),
        pytest.param([x_api_key(A), bearer(b"")], InvalidKey, "Bearer <key>", id="empty second"),
        pytest.param([bearer(b"")], InvalidKey, "Bearer <key>", id="scheme alone"),
        pytest.param([bearer(b"", b"")], InvalidKey, "Bearer <key>", id="empty header"),
        pytest.param([bearer(A, b"")], InvalidKey, "Bearer <key>", id="no scheme"),
        pytest.param([bearer(A, b"Basic ")], InvalidKey, "Bearer <key>", id="another scheme"),
        pytest.param([bearer(A, b"Bearer")], InvalidKey, "Bearer <key>", id="no space"),
        pytest.param([x_api_key(b"")], InvalidKey, "X-API-Key header is empty", id="empty key"),
        pytest.param([x_api_key(b" \t ")], InvalidKey, "X-API-Key header is empty", id="blank key"),
        pytest.param(
            [x_api_key(b"Bearer " + A)], InvalidKey, "not valid", id="scheme in X-API-Key"
        ),
        pytest.param([bearer(A * 1_000)], InvalidKey, "not valid", id="oversized"),
        pytest.param([bearer(A[:-1] + b"\0")], InvalidKey, "not valid", id="NUL"),
        pytest.param([bearer(A + b"\x7f")], InvalidKey, "not valid", id="control byte"),
        pytest.param([bearer(A[:-1] + b"\xff")], InvalidKey, "not valid", id="not ASCII"),
        pytest.param([bearer("ключ".encode())], InvalidKey, "not valid", id="UTF-8"),
    ],
)
def test_a_request_without_one_good_key(headers: Headers, refusal, says) -> None:
    """A bad credential is never rescued by another; two different ones are the client's mistake."""
    with pytest.raises(refusal, match=says) as told:
        find(headers, {}, NOBODY)
    assert told.type is refusal


@pytest.mark.parametrize("name", ["api_key", "API_KEY", "apikey", "key", "token", "access_token"])
def test_a_key_in_the_query_string(name: str) -> None:
    """It is not read, and the 401 says that such keys end up in logs, without repeating it."""
    with pytest.raises(MissingCredentials, match="query string ends up in logs") as told:
        find([], {name: ONE.text}, NOBODY)
    assert ONE.text not in str(told.value)
    assert find([bearer(A)], {name: TWO.text}, NOBODY).key_id == ONE.key.key_id


def test_a_refusal_never_repeats_the_key() -> None:
    """What was shown is not in the message."""
    for headers in (
        [bearer(b"sk-secret-42")],
        [x_api_key(b"sk-secret-42")],
        [bearer(A, b"Basic ")],
    ):
        with pytest.raises(InvalidKey) as told:
            find(headers, {}, NOBODY)
        assert "secret-42" not in str(told.value)
        assert ONE.text not in str(told.value)


STATIC = StaticKeys(["root key of mine", "both"], ["sk-one", "both"])


@pytest.mark.parametrize(
    ("headers", "operator", "kind"),
    [
        pytest.param([bearer(b"sk-one")], False, "api", id="API key"),
        pytest.param([x_api_key(b"sk-one")], False, "api", id="API key in X-API-Key"),
        pytest.param([bearer(b"root key of mine")], True, "admin", id="admin key, any text"),
        pytest.param([bearer(b"both")], True, "admin", id="listed as both"),
    ],
)
def test_a_static_key_names_its_caller(headers: Headers, operator: bool, kind: str) -> None:
    """The gateway vouches for it, so the store compares no hash; an admin key may do everything."""
    found = find(headers, {}, STATIC)
    assert found.sha256 == ""
    assert found.vouched is not None
    assert found.vouched.operator == operator
    assert (found.vouched.permissions == PERMISSIONS) == operator
    assert (found.tenant, found.key_id) == ("default", found.vouched.key_id)
    assert found.key_id.startswith(f"static-{kind}-")


@pytest.mark.parametrize("text", ["sk-on", "sk-one1", "SK-ONE", "", "sk-one,both", "\ud800"])
def test_what_is_no_static_key(text: str) -> None:
    """A static key is matched whole and exactly."""
    assert STATIC.caller(text) is None


def test_static_keys_are_counted_once() -> None:
    """A key listed twice is one; none at all is what asks for a first admin key."""
    assert len(STATIC) == 3
    assert not StaticKeys([], [])


def test_a_credential_is_not_shown_by_accident() -> None:
    """No hash and no key is in what a log or a traceback would show."""
    for headers, static in ([bearer(A)], NOBODY), ([bearer(b"sk-one")], STATIC):
        shown = repr(find(headers, {}, static))
        assert ONE.key.sha256 not in shown
        assert ONE.text not in shown
        assert "sk-one" not in shown
