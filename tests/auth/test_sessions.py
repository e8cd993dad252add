"""The gate's own tokens (CONTRACT §1.4)."""

from ipaddress import ip_network

import jwt
import pytest

from serve_app.auth.caller import CALLER_PERMISSIONS, PERMISSIONS, Caller
from serve_app.auth.tokens.issuers import Issuers
from serve_app.auth.tokens.sessions import ISSUER, Sessions, new_secret
from serve_app.errors import InvalidToken, StoreUnavailable, TokenExpired
from tests.auth.issuing import NOW_S

SECRET = new_secret()
SESSIONS = Sessions(SECRET)
ADA = Caller("acme", "user-ada", PERMISSIONS, operator=True)
VISITOR = Caller("default", "visitor-7f", CALLER_PERMISSIONS, class_="interactive")


def gate(secret: str = SECRET) -> Issuers:
    """Return a gateway that believes the sessions of ``secret``."""
    return Issuers([], {}, Sessions(secret))


async def test_a_users_session_names_the_user_only() -> None:
    """It says whose record decides; the permissions of the day of the login are not in it."""
    text, expires_s = SESSIONS.issue(ADA, user="ada", ttl_s=600, now_s=NOW_S + 0.25)
    found = await gate().verify(text, now_s=NOW_S + 1)
    assert found.user == "ada"
    assert found.caller == Caller(
        "acme", "user-ada", frozenset(), expires_ms=int(NOW_S + 600) * 1_000
    )
    assert found.expires_s == expires_s == NOW_S + 600
    assert "ada" not in repr(found).replace("user-ada", "")


async def test_a_session_knows_its_millisecond() -> None:
    """A password changed in the same second ends older sessions and not the new one."""
    for at_s in (NOW_S + 0.001, NOW_S + 0.999):
        text, _ = SESSIONS.issue(ADA, user="ada", ttl_s=60, now_s=at_s)
        assert (await gate().verify(text, now_s=at_s)).issued_ms == int(at_s * 1_000)


@pytest.mark.parametrize(
    "caller",
    [
        pytest.param(VISITOR, id="a visitor"),
        pytest.param(Caller("t", "visitor-1", frozenset()), id="who may do nothing"),
        pytest.param(
            Caller(
                "t",
                "visitor-2",
                CALLER_PERMISSIONS,
                frozenset({"m"}),
                endpoints=frozenset({"/v1/models"}),
                networks=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")),
                class_="batch",
                max_class="standard",
                weight=2.5,
            ),
            id="with everything",
        ),
        pytest.param(
            Caller("t", "visitor-3", frozenset(), frozenset(), endpoints=frozenset(), networks=()),
            id="who may use no model from nowhere",
        ),
    ],
)
async def test_a_visitors_session_is_all_there_is(caller: Caller) -> None:
    """No record knows a visitor: tenant, permissions, class and limits come back as they were."""
    text, expires_s = SESSIONS.issue(caller, ttl_s=60, now_s=NOW_S, limits="r 3 3 0")
    found = await gate().verify(text, now_s=NOW_S)
    wanted = {name: getattr(caller, name) for name in Caller.__slots__}
    assert found.caller == Caller(**wanted | {"expires_ms": expires_s * 1_000})
    assert found.limits == "r 3 3 0"
    assert found.user is None


async def test_nobody_is_an_operator_by_token() -> None:
    """A session made of an operator's caller acts for its own tenant only."""
    for user in ("ada", None):
        text, _ = SESSIONS.issue(ADA, user=user, ttl_s=60, now_s=NOW_S)
        assert not (await gate().verify(text, now_s=NOW_S)).caller.operator


async def test_no_two_sessions_are_alike() -> None:
    """Each has a name of its own, so that logging out of one leaves the other."""
    texts = [SESSIONS.issue(ADA, user="ada", ttl_s=60, now_s=NOW_S)[0] for _ in range(20)]
    ids = [(await gate().verify(text, now_s=NOW_S)).token_id for text in texts]
    assert len(set(texts)) == len(set(ids)) == 20


async def test_a_session_ends() -> None:
    """After its time and the leeway it has expired."""
    text, expires_s = SESSIONS.issue(ADA, user="ada", ttl_s=60, now_s=NOW_S)
    await gate().verify(text, now_s=expires_s + 59)
    with pytest.raises(TokenExpired):
        await gate().verify(text, now_s=expires_s + 61)


async def test_gateways_share_the_secret() -> None:
    """One gateway reads what another made; a gateway with another secret does not."""
    text, _ = SESSIONS.issue(VISITOR, ttl_s=60, now_s=NOW_S)
    assert (await gate().verify(text, now_s=NOW_S)).caller.key_id == "visitor-7f"
    with pytest.raises(InvalidToken, match="signature"):
        await gate(new_secret()).verify(text, now_s=NOW_S)


async def test_sessions_are_admitted_later() -> None:
    """A gateway that has no secret yet says so, and believes sessions once it has."""
    text, _ = SESSIONS.issue(VISITOR, ttl_s=60, now_s=NOW_S)
    issuers = Issuers([], {})
    with pytest.raises(StoreUnavailable):
        await issuers.verify(text, now_s=NOW_S)
    issuers.admit(SESSIONS)
    assert await issuers.verify(text, now_s=NOW_S)


async def test_a_new_secret_ends_older_sessions() -> None:
    """A session under the secret before is refused, also one that was seen before."""
    text, _ = SESSIONS.issue(VISITOR, ttl_s=60, now_s=NOW_S)
    issuers = gate()
    await issuers.verify(text, now_s=NOW_S)
    issuers.admit(Sessions(new_secret()))
    with pytest.raises(InvalidToken, match="signature"):
        await issuers.verify(text, now_s=NOW_S)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"tenant": None}, id="no tenant"),
        pytest.param({"key_id": 7}, id="numbered key"),
        pytest.param({"ims": "now"}, id="no time made"),
        pytest.param({"permissions": "all"}, id="permissions in words"),
        pytest.param({"networks": ["everywhere"]}, id="no network"),
    ],
)
async def test_a_session_in_other_words(changes: dict[str, object]) -> None:
    """What a gateway of another version signed is refused, not half understood."""
    told = {
        "iss": ISSUER,
        "aud": ISSUER,
        "exp": NOW_S + 9,
        "tenant": "t",
        "key_id": "k",
        "ims": 1,
    } | changes
    text = jwt.encode(told, SECRET, "HS256")
    with pytest.raises(InvalidToken, match="log in again"):
        await gate().verify(text, now_s=NOW_S)


async def test_a_permission_from_a_newer_gateway() -> None:
    """What this gateway does not know it does not give."""
    caller = Caller("t", "visitor-1", frozenset({"run_inference", "fly"}))
    text, _ = SESSIONS.issue(caller, ttl_s=60, now_s=NOW_S)
    found = await gate().verify(text, now_s=NOW_S)
    assert found.caller.permissions == {"run_inference"}


def test_a_secret_is_long() -> None:
    """A secret that could be guessed is refused where it is set; no two new ones are alike."""
    with pytest.raises(ValueError, match="32 bytes"):
        Sessions("x" * 31)
    assert len({new_secret() for _ in range(20)}) == 20
