"""From what a request shows to a credential that the store can judge."""

import time

import pytest

from serve_app.auth import LOCAL, Authenticator, How, Issuers, Kind, Sessions, StaticKeys, make
from serve_app.auth.caller import CALLER_PERMISSIONS, PERMISSIONS, Caller
from serve_app.auth.tokens.sessions import new_secret
from serve_app.auth_settings import Auth
from serve_app.errors import InvalidKey, InvalidToken, MissingCredentials

STATIC = StaticKeys(["root key of mine", "both"], ["sk-one", "both"])
SESSIONS = Sessions(new_secret())
KEY = make("acme")
NOW_S = time.time()


def knowing(*, disabled: bool = False, **auth: object) -> Authenticator:
    issuers = Issuers([], {}, SESSIONS)
    return Authenticator(Auth.model_validate(auth), STATIC, issuers, disabled=disabled)


async def credential(told: Authenticator, key: str | None, address: str = "192.0.2.7"):
    headers = [(b"authorization", b"Bearer " + key.encode())] if key else []
    return await told.credential(headers, {}, address=address, now_s=NOW_S)


async def test_a_key_is_for_the_store_to_judge() -> None:
    """Only its hash goes on; nothing is known of its caller yet."""
    found = await credential(knowing(), KEY.text)
    assert (found.kind, found.tenant, found.key_id, found.bucket, found.proof) == (
        Kind.KEY,
        "acme",
        KEY.key.key_id,
        KEY.key.key_id,
        KEY.key.sha256,
    )
    assert found.vouched is None
    assert KEY.key.sha256 not in repr(found)


@pytest.mark.parametrize(
    ("text", "operator", "kind"),
    [
        pytest.param("sk-one", False, "api", id="API key"),
        pytest.param("root key of mine", True, "admin", id="admin key, any text"),
        pytest.param("both", True, "admin", id="listed as both"),
    ],
)
async def test_a_static_key_names_its_caller(text: str, operator: bool, kind: str) -> None:
    """The gateway vouches for it, so the store compares no hash; an admin key may do everything."""
    found = await credential(knowing(), text)
    assert (found.kind, found.proof) == (Kind.VOUCHED, "")
    assert found.vouched is not None
    assert found.vouched.operator == operator
    assert (found.vouched.permissions == PERMISSIONS) == operator
    assert found.key_id.startswith(f"static-{kind}-")
    assert text not in repr(found)


@pytest.mark.parametrize("text", ["sk-on", "sk-one1", "SK-ONE", "sk-one,both"])
async def test_what_is_no_static_key(text: str) -> None:
    """A static key is matched whole and exactly."""
    with pytest.raises(InvalidKey):
        await credential(knowing(), text)


def test_static_keys_are_counted_once() -> None:
    """A key listed twice is one; none at all is what asks for a first admin key."""
    assert len(STATIC) == 3
    assert not StaticKeys([], [])


async def test_what_looks_like_a_jwt_is_never_taken_for_a_key() -> None:
    """Two dots make a token, good or not."""
    for text in ("sk-one..", "a.b.c", KEY.text + "..", ".."):
        with pytest.raises(InvalidToken):
            await credential(knowing(), text)


async def test_a_session_is_judged_by_its_users_record() -> None:
    """The token says who; what it may do is not in it."""
    caller = Caller("acme", "user-1", frozenset())
    text, ends_s = SESSIONS.issue(caller, user="ada", ttl_s=60, now_s=NOW_S)
    found = await credential(knowing(), text)
    assert (found.kind, found.tenant, found.user, found.key_id) == (
        Kind.USER,
        "acme",
        "ada",
        "user-1",
    )
    assert abs(int(found.proof) - NOW_S * 1_000) < 2
    assert (found.vouched, found.token_expires_s) == (None, ends_s)
    assert found.token_id


async def test_a_visitors_token_says_all() -> None:
    """Nobody keeps a record of a visitor; its token carries class and limit."""
    caller = Caller("default", "visitor-1", CALLER_PERMISSIONS, class_="interactive")
    text, _ = SESSIONS.issue(caller, limits="r 7 7 0", ttl_s=60, now_s=NOW_S)
    found = await credential(knowing(), text)
    assert found.kind is Kind.VOUCHED
    assert found.limits == "r 7 7 0"
    assert found.vouched is not None
    assert found.vouched.class_ == "interactive"


@pytest.mark.parametrize(
    ("address", "bucket"),
    [
        ("192.0.2.7", "anonymous-192.0.2.7"),
        ("2001:db8:1:2:3::4", "anonymous-2001:db8:1:2::"),
        ("unknown", "anonymous-unknown"),
    ],
)
async def test_a_stranger_has_the_limit_of_its_address(address: str, bucket: str) -> None:
    """Where strangers are served: few permissions, their class, one limit per address or /64."""
    served = knowing(anonymous={"enabled": True, "limits": {"requests_per_minute": 3}})
    found = await credential(served, None, address)
    assert found.bucket.startswith(bucket)
    assert (found.key_id, found.limits, found.how) == ("anonymous", "r 3 3 0", How.NONE)
    assert found.vouched is not None
    assert found.vouched.permissions == CALLER_PERMISSIONS
    assert (found.vouched.class_, found.vouched.max_class) == ("anonymous", "anonymous")
    with pytest.raises(InvalidKey):
        await credential(served, "a bad key")


async def test_strangers_are_refused_by_default() -> None:
    """No credential is 401."""
    with pytest.raises(MissingCredentials):
        await credential(knowing(), None)


async def test_with_authentication_disabled_everyone_is_one_caller() -> None:
    """Whatever is shown is not looked at."""
    for key in (None, "nonsense", KEY.text):
        found = await credential(knowing(disabled=True), key)
        assert found.vouched is LOCAL
