"""A JWT taken apart (CONTRACT §1.3), and what its claims make of its bearer."""

import json
import math
from typing import Any

import pytest

from serve_app.auth.caller import CALLER_PERMISSIONS, PERMISSIONS, ROLES
from serve_app.auth.keys.key import make
from serve_app.auth.tokens.claims import Verified, claim, describe, granted
from serve_app.auth.tokens.token import (
    LEEWAY_S,
    MAX_CHARS,
    Window,
    looks_like_jwt,
    must_name,
    parse,
    window,
)
from serve_app.auth_settings import Issuer
from serve_app.errors import GateError, InvalidToken, TokenExpired
from tests.auth.issuing import AUDIENCE, NOW_S, base64url, claims, compact

ISSUER = "https://id.example"
HEADER = {"alg": "RS256", "kid": "one"}
GOOD = compact(HEADER, claims(ISSUER))


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        pytest.param(GOOD, True, id="a token"),
        pytest.param("..", True, id="two dots alone"),
        pytest.param("a.b.c", True, id="two dots"),
        pytest.param(make("default").text, False, id="a key"),
        pytest.param("client.access", False, id="Cloudflare's client id"),
        pytest.param("a.b.c.d.e", False, id="an encrypted token"),
        pytest.param("", False, id="nothing"),
    ],
)
def test_what_looks_like_a_token(text: str, is_one: bool) -> None:
    """Two dots make a token of a text; no key has any, so none is taken for the other."""
    assert looks_like_jwt(text) is is_one


def test_a_token_is_taken_apart() -> None:
    """Header, claims and what was signed come out as they went in."""
    token = parse(GOOD.encode())
    assert (token.algorithm, token.kid, token.issuer) == ("RS256", "one", ISSUER)
    assert token.claims == claims(ISSUER)
    assert token.signed.decode() == GOOD.rpartition(".")[0]
    assert token.signature == b"nobody's"
    assert parse(compact({"alg": "RS256"}, claims(ISSUER)).encode()).kid is None


def test_a_token_is_not_shown_by_accident() -> None:
    """No claim and no signature is in what a log or a traceback would show."""
    shown = repr(parse(GOOD.encode()))
    assert "ada@example.com" not in shown
    assert "nobody's" not in shown


HEAD, BODY, SIGNED = GOOD.split(".")
PLAIN = json.dumps(claims(ISSUER))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("..", id="dots alone"),
        pytest.param(f"{HEAD}.{BODY}", id="no signature"),
        pytest.param(f"{HEAD}.{BODY}.", id="empty signature"),
        pytest.param(f".{BODY}.{SIGNED}", id="empty header"),
        pytest.param(f"{HEAD}..{SIGNED}", id="empty payload"),
        pytest.param(GOOD + ".", id="a dot more at the end"),
        pytest.param("." + GOOD, id="a dot more at the start"),
        pytest.param(f"{HEAD}.{BODY}.{SIGNED}.{SIGNED}.{SIGNED}", id="five parts"),
        pytest.param(f"{HEAD}==.{BODY}.{SIGNED}", id="padding in the header"),
        pytest.param(f"{GOOD}=", id="padding at the end"),
        pytest.param(" " + GOOD, id="a space before"),
        pytest.param(GOOD + "\n", id="a line end after"),
        pytest.param(f"{HEAD}. {BODY}.{SIGNED}", id="a space within"),
        pytest.param(GOOD.replace(".", ".\0", 1), id="NUL"),
        pytest.param(f"{HEAD}.{BODY}.+/{SIGNED}", id="plain base64"),
        pytest.param(f"{HEAD}.{BODY}.{SIGNED}AA", id="impossible length"),
        pytest.param(f"{HEAD}.{BODY}.{SIGNED[:-1]}b", id="another spelling of its last byte"),
        pytest.param(GOOD.replace("e", "\u0435", 1), id="a Cyrillic letter"),
        pytest.param(GOOD.replace("e", "\uff45", 1), id="a fullwidth letter"),
        pytest.param(compact("[]", PLAIN), id="header a list"),
        pytest.param(compact("null", PLAIN), id="header null"),
        pytest.param(compact('"RS256"', PLAIN), id="header a text"),
        pytest.param(compact(HEADER, "[1]"), id="payload a list"),
        pytest.param(compact(HEADER, "ada"), id="payload no JSON"),
        pytest.param(compact(HEADER, PLAIN + "{}"), id="two payloads"),
        pytest.param(compact(HEADER, "\ufeff" + PLAIN), id="byte-order mark"),
        pytest.param(compact(HEADER, PLAIN.encode("utf-16")), id="payload in UTF-16"),
        pytest.param(compact(HEADER, PLAIN.encode() + b"\xff"), id="payload not UTF-8"),
        pytest.param(compact(HEADER, PLAIN[:-1] + ',"a":"\ud800"}'), id="lone surrogate, raw"),
        pytest.param(compact(HEADER, PLAIN[:-1] + ',"a":NaN}'), id="NaN"),
        pytest.param(compact(HEADER, PLAIN[:-1] + ',"a":-Infinity}'), id="Infinity"),
        pytest.param(compact(HEADER, PLAIN[:-1] + f',"a":{"9" * 5_000}}}'), id="5 000 digits"),
        pytest.param(compact(HEADER, PLAIN[:-1] + ',"iss":"x"}'), id="iss twice"),
        pytest.param(compact(HEADER, PLAIN[:-1] + ',"\\u0069ss":"x"}'), id="iss twice, escaped"),
        pytest.param(compact(HEADER, PLAIN[:-1] + ',"a":{"b":1,"b":2}}'), id="twice, further in"),
        pytest.param(compact('{"alg":"RS256","alg":"none"}', PLAIN), id="alg twice"),
        pytest.param(compact('{"alg":"none","kid":"a","kid":"b"}', PLAIN), id="kid twice"),
        pytest.param(compact("[" * 2_900, PLAIN), id="nested lists without end"),
        pytest.param(compact(HEADER, PLAIN[:-1] + ',"a":"' + "x" * 9_000 + '"}'), id="huge"),
    ],
)
def test_what_is_no_token(text: str) -> None:
    """What is not written in the one right way is refused in the same words, and never crashes."""
    with pytest.raises(InvalidToken, match="not a well-formed JWT"):
        parse(text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("depth", [1, 100, 500, 900, 1_100, 1_400])
@pytest.mark.parametrize("brackets", ["[]", '{"a":}'], ids=["lists", "objects"])
def test_nesting_never_crashes(depth: int, brackets: str) -> None:
    """However deep header or payload are nested, the token is read or refused, nothing else."""
    opening, closing = brackets[:-1], brackets[-1]
    deep = f'"a":{opening * depth}1{closing * depth}' + "}"
    for text in (
        compact('{"alg":"RS256",' + deep, PLAIN),
        compact(HEADER, PLAIN[:-1] + "," + deep),
    ):
        try:
            token = parse(text.encode())
        except InvalidToken:
            continue
        assert token.issuer == ISSUER


def test_the_largest_token() -> None:
    """A token of exactly 8 KB is read, of four characters more it is not."""
    head = f"{base64url(HEADER | {'kid': 'xyz'})}.{BODY}."
    largest = head + "A" * (MAX_CHARS - len(head))
    assert parse(largest.encode()).issuer == ISSUER
    with pytest.raises(InvalidToken):
        parse((largest + "AAAA").encode())


@pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c", "crit", "b64"])
@pytest.mark.parametrize("value", [None, False, "", [], "https://evil.example", {"kty": "oct"}])
def test_a_header_that_brings_its_own_key(member: str, value: Any) -> None:
    """What would tell us where a key is, or how to read on, is refused whatever it says."""
    with pytest.raises(InvalidToken, match="brings a key or an extension"):
        parse(compact(HEADER | {member: value}, claims(ISSUER)).encode())


@pytest.mark.parametrize("value", [None, 1, True, [], ["RS256"], {"a": 1}])
@pytest.mark.parametrize("member", ["alg", "kid", "iss"])
def test_names_are_texts(member: str, value: Any) -> None:
    """``alg``, ``kid`` and ``iss`` are texts: lists, numbers and null are refused."""
    header = HEADER | ({member: value} if member != "iss" else {})
    payload = claims(ISSUER) | ({"iss": value} if member == "iss" else {})
    with pytest.raises(InvalidToken, match="wrong form"):
        parse(compact(header, payload).encode())


def test_algorithm_and_issuer_must_be_there() -> None:
    """Without ``alg`` or ``iss`` nobody could judge the token."""
    for header, payload in (({"kid": "x"}, claims(ISSUER)), (HEADER, claims(ISSUER, iss=None))):
        with pytest.raises(InvalidToken, match="lacks its algorithm or issuer"):
            parse(compact(header, payload).encode())


@pytest.mark.parametrize(
    ("told", "at_s", "refusal"),
    [
        pytest.param({"exp": NOW_S}, -1, None, id="a second before its end"),
        pytest.param({"exp": NOW_S}, 59, None, id="expired by 59 s"),
        pytest.param({"exp": NOW_S}, LEEWAY_S, TokenExpired, id="expired by 60 s"),
        pytest.param({"exp": NOW_S}, 61, TokenExpired, id="expired by 61 s"),
        pytest.param({"exp": int(NOW_S)}, 61, TokenExpired, id="whole seconds"),
        pytest.param({"exp": NOW_S + 0.5}, 60.4, None, id="fractions count"),
        pytest.param({"exp": 0}, 0, TokenExpired, id="the epoch"),
        pytest.param({"exp": NOW_S + 900, "nbf": NOW_S + 59}, 0, None, id="from in 59 s"),
        pytest.param({"exp": NOW_S + 900, "nbf": NOW_S + 61}, 0, InvalidToken, id="from in 61 s"),
        pytest.param({"exp": NOW_S + 900, "iat": NOW_S + 59}, 0, None, id="made in 59 s"),
        pytest.param({"exp": NOW_S + 900, "iat": NOW_S + 61}, 0, InvalidToken, id="made in 61 s"),
        pytest.param(
            {"exp": NOW_S + 900, "iat": NOW_S + 1e8, "nbf": 0},
            0,
            InvalidToken,
            id="made in 3 years",
        ),
        pytest.param({"exp": NOW_S - 90, "nbf": NOW_S + 90}, 0, TokenExpired, id="neither"),
    ],
)
def test_when_a_token_is_good(told: dict[str, float], at_s: float, refusal) -> None:
    """A token is good from ``nbf`` and ``iat`` to ``exp``, give or take 60 s, by our clock."""
    lasts = window(told)
    assert lasts.includes(NOW_S + at_s) is (refusal is None)
    if refusal is None:
        lasts.must_include(NOW_S + at_s)
    else:
        with pytest.raises(GateError) as raised:
            lasts.must_include(NOW_S + at_s)
        assert raised.type is refusal


TIMES = [
    pytest.param("1800000000", id="text"),
    pytest.param(None, id="null"),
    pytest.param(True, id="true"),
    pytest.param(False, id="false"),
    pytest.param([NOW_S], id="list"),
    pytest.param({}, id="object"),
    pytest.param(-1, id="negative"),
    pytest.param(10**400, id="400 digits"),
    pytest.param(1e300, id="1e300"),
    pytest.param(NOW_S * 1_000, id="milliseconds"),
    pytest.param(math.inf, id="1e999, read as infinity"),
    pytest.param(math.nan, id="not a number"),
]


@pytest.mark.parametrize("value", TIMES)
@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
def test_what_is_no_time(name: str, value: Any) -> None:
    """A time is a number of seconds before the year 10000; all else is refused, not guessed."""
    with pytest.raises(InvalidToken, match=f"'{name}' is"):
        window({"exp": NOW_S} | {name: value})


def test_a_token_must_end() -> None:
    """Without ``exp`` it would be good for ever."""
    with pytest.raises(InvalidToken, match="never expires"):
        window({"iat": NOW_S})


@pytest.mark.parametrize(
    ("told", "is_ours"),
    [
        pytest.param("a", True, id="one of ours"),
        pytest.param("b", True, id="the other"),
        pytest.param(["x", "b"], True, id="a list that names one"),
        pytest.param(["a", "a"], True, id="the same twice"),
        pytest.param("x", False, id="another's"),
        pytest.param("a ", False, id="nearly ours"),
        pytest.param("A", False, id="other letters"),
        pytest.param("a b", False, id="words"),
        pytest.param([], False, id="nobody"),
        pytest.param(["x", "y"], False, id="others"),
        pytest.param(["a", 1], False, id="a number among them"),
        pytest.param(["a", None], False, id="null among them"),
        pytest.param([["a"]], False, id="a list in a list"),
        pytest.param({"a": 1}, False, id="an object"),
        pytest.param(None, False, id="null"),
        pytest.param(1, False, id="a number"),
        pytest.param("", False, id="empty"),
    ],
)
def test_for_whom_a_token_is(told: Any, is_ours: bool) -> None:
    """``aud`` is a text or a list of texts, and one of them is ours to the letter."""
    if is_ours:
        must_name({"a", "b"}, {"aud": told})
    else:
        with pytest.raises(InvalidToken, match="not made for this service"):
            must_name({"a", "b"}, {"aud": told})


def test_a_token_says_for_whom_it_is() -> None:
    """Without ``aud`` it could be anybody's."""
    with pytest.raises(InvalidToken, match="not made for this service"):
        must_name({"a"}, {})


def described(told: dict[str, Any], **mapped: str) -> Verified:
    """Return whom a token with these claims is about."""
    issuer = Issuer.model_validate(
        {
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "algorithms": ["RS256"],
            "jwks_url": "https://id.example/keys",
            "tenant": "acme",
            "claims": mapped,
        }
    )
    payload = claims(ISSUER) | told
    return describe(issuer, parse(compact(HEADER, payload).encode()), window(payload))


def test_without_mapped_claims_the_issuer_decides() -> None:
    """An issuer whose claims map nothing gives its tenant, its permissions and every model."""
    found = described({"permissions": ["manage_users"], "tenant": "x"})
    caller = found.caller
    assert (caller.tenant, caller.permissions, caller.models) == ("acme", CALLER_PERMISSIONS, None)
    assert (caller.class_, caller.max_class, found.limits) == (None, None, None)
    assert found.expires_s == int(NOW_S + 300)
    assert caller.expires_ms == 0, "the token ends, not the right of who shows it"
    assert found.issued_ms == int(NOW_S) * 1_000
    assert found.user is None


@pytest.mark.parametrize(
    ("told", "path", "found"),
    [
        pytest.param({"a": 1}, "a", 1, id="a name"),
        pytest.param({"a": {"b": {"c": 1}}}, "a.b.c", 1, id="a path"),
        pytest.param({"https://x.y/roles": 1}, "https://x.y/roles", 1, id="a name with dots"),
        pytest.param({"a": {"b.c": 1}}, "a.b.c", 1, id="dots further in"),
        pytest.param({"a.b": 1, "a": {"b": 2}}, "a.b", 1, id="the whole name first"),
        pytest.param({"a": {"b": None}}, "a.b", None, id="null"),
        pytest.param({"a": "b"}, "a.b", None, id="a text on the way"),
        pytest.param({"a": [{"b": 1}]}, "a.b", None, id="a list on the way"),
        pytest.param({"a": {"": 1}}, "a.", None, id="nothing after the dot"),
        pytest.param({}, "a", None, id="nothing there"),
    ],
)
def test_a_dotted_path(told: Any, path: str, found: Any) -> None:
    """A path leads through objects; a name that has dots itself is found as it is."""
    assert claim(told, path) == found


@pytest.mark.parametrize(
    ("words", "found"),
    [
        pytest.param(["run_inference", "x"], {"run_inference"}, id="unknown words are passed over"),
        pytest.param(["viewer"], ROLES["viewer"], id="a role"),
        pytest.param(["viewer", "run_inference"], ROLES["viewer"] | {"run_inference"}, id="both"),
        pytest.param(["admin"], PERMISSIONS, id="every permission"),
        pytest.param(["Admin", "ADMIN", "root"], set(), id="names are to the letter"),
        pytest.param([], set(), id="none"),
    ],
)
def test_permissions_and_roles(words: list[str], found: set[str]) -> None:
    """A word is a permission, the name of a role, or nothing."""
    assert granted(words) == found
    told = described({"roles": words}, permissions="roles").caller
    assert told.permissions == found
    assert told.operator is False


@pytest.mark.parametrize(
    ("told", "found"),
    [
        pytest.param("openid read_models  email run_inference", {"read_models", "run_inference"}),
        pytest.param("", set()),
        pytest.param([1, None, ["admin"], "read_models"], {"read_models"}),
        pytest.param(None, set()),
    ],
    ids=["words", "no words", "a list of anything", "null"],
)
def test_permissions_come_as_words_or_list(told: Any, found: set[str]) -> None:
    """``scope`` is words, ``roles`` a list; what is not there gives nothing."""
    assert described({"scope": told}, permissions="scope").caller.permissions == found


@pytest.mark.parametrize(
    ("mapped", "told", "gives"),
    [
        pytest.param("tenant", "beta-1", "beta-1", id="tenant"),
        pytest.param("class", "batch", "batch", id="class"),
        pytest.param("class", None, None, id="no class"),
        pytest.param("models", ["m", "n"], {"m", "n"}, id="models"),
        pytest.param("models", "m n", {"m", "n"}, id="models in words"),
        pytest.param("models", None, set(), id="no models"),
        pytest.param("limits", {"requests_per_minute": 7}, "r 7 7 0", id="a limit"),
        pytest.param("limits", {"requests_per_minute": 0}, "r 0 0 0", id="never"),
        pytest.param("limits", {"tokens_per_day": {"limit": 9}}, "T 9 9 0", id="written out"),
        pytest.param(
            "limits",
            {"requests_per_minute": {"limit": 9, "burst": 2, "colour": 1}, "colour": {"limit": -1}},
            "r 9 2 0",
            id="words that are not ours",
        ),
        pytest.param(
            "limits",
            {
                "models": {"m": {"concurrency": 2, "hue": 1}},
                "shadow": {"cost_per_day": 1, "hue": 1},
            },
            "D 1000000000 1000000000 1\nm\tc 2 2 0",
            id="of a model, and in the shadow",
        ),
        pytest.param("limits", {"exempt": False}, None, id="not exempt"),
        pytest.param("limits", {"colour": 7}, None, id="no limit of ours"),
        pytest.param("limits", None, None, id="no limits"),
    ],
)
def test_a_mapped_claim_gives(mapped: str, told: Any, gives: Any) -> None:
    """Tenant, class, models and limits come from where the settings say."""
    found = described({"x": {"y": told}}, **{mapped: "x.y"})
    caller = found.caller
    assert {
        "tenant": caller.tenant,
        "class": caller.class_,
        "models": caller.models,
        "limits": found.limits,
    }[mapped] == gives


@pytest.mark.parametrize(
    ("mapped", "told"),
    [
        pytest.param("tenant", None, id="no tenant"),
        pytest.param("tenant", "", id="empty tenant"),
        pytest.param("tenant", "Acme", id="tenant in capitals"),
        pytest.param("tenant", "a}:key:x", id="tenant that leaves its hash tag"),
        pytest.param("tenant", "acme\n", id="tenant with a line end"),
        pytest.param("tenant", "x" * 64, id="long tenant"),
        pytest.param("tenant", ["acme"], id="tenants"),
        pytest.param("tenant", 7, id="numbered tenant"),
        pytest.param("class", "In teractive", id="class with a space"),
        pytest.param("class", 1, id="numbered class"),
        pytest.param("class", "a" * 33, id="long class"),
        pytest.param("permissions", 7, id="numbered permissions"),
        pytest.param("permissions", {"admin": True}, id="object of permissions"),
        pytest.param("models", {"m": 1}, id="object of models"),
        pytest.param("models", [f"m{n}" for n in range(257)], id="many models"),
        pytest.param("models", ["m\ud800"], id="model with a lone surrogate"),
        pytest.param("limits", 7, id="limits without a name"),
        pytest.param("limits", [], id="list of limits"),
        pytest.param("limits", {"requests_per_minute": True}, id="limit true"),
        pytest.param("limits", {"requests_per_minute": "7"}, id="limit a text"),
        pytest.param("limits", {"requests_per_minute": -1}, id="limit below nothing"),
        pytest.param("limits", {"requests_per_minute": 10**30}, id="limit without end"),
        pytest.param("limits", {"requests_per_minute": {"limit": []}}, id="limit a list"),
        pytest.param("limits", {"requests_per_minute": 1.5}, id="half a request"),
        pytest.param("limits", {"tokens_per_day": {"limit": 9, "burst": 2}}, id="burst of a day"),
        pytest.param("limits", {"models": ["m"]}, id="limits of a list of models"),
        pytest.param("limits", {"models": {"m": {"concurrency": "x"}}}, id="a model's wrong limit"),
        pytest.param("limits", {"exempt": True}, id="exempt by token"),
        pytest.param("limits", {"exempt": True, "colour": 1}, id="exempt by token, and more"),
        pytest.param("limits", {"requests_per_minute": -1, "colour": 1}, id="wrong among unknown"),
    ],
)
def test_a_claim_of_a_wrong_kind(mapped: str, told: Any) -> None:
    """What the issuer means cannot be told, so the token is refused rather than half believed."""
    with pytest.raises(InvalidToken, match="This token's claim 'x'"):
        described({"x": told}, **{mapped: "x"})


def test_a_mapped_tenant_must_be_there() -> None:
    """A token without its tenant's claim is not let into the issuer's default tenant."""
    with pytest.raises(InvalidToken, match="'org' names no tenant"):
        described({}, tenant="org")


def test_whose_token_it_is_stands_in_no_log() -> None:
    """The key id is a hash of issuer and subject: stable, and no e-mail address."""
    ids = {
        name: described(told).caller.key_id
        for name, told in {
            "ada": {"sub": "ada@example.com"},
            "ada later": {"sub": "ada@example.com", "jti": "2", "iat": NOW_S - 5},
            "eve": {"sub": "eve@example.com"},
            "surrogate": {"sub": "\ud800"},
            "no sub": {"sub": None},
            "no sub, other token": {"sub": None, "jti": "x"},
        }.items()
    }
    assert ids["ada"] == ids["ada later"]
    assert len(set(ids.values())) == 5
    for key_id in ids.values():
        assert key_id.startswith("jwt-")
        assert len(key_id) == 20
        assert key_id[4:].isalnum()


def test_what_revokes_a_token() -> None:
    """The token id follows issuer and ``jti``; without a ``jti``, all that was signed.

    The signature does not count: ES256 has two for the same text.
    """
    ids = [described(told).token_id for told in ({"jti": "a"}, {"jti": "a", "x": 1}, {"jti": "b"})]
    assert ids[0] == ids[1] != ids[2]
    one, other = claims(ISSUER), claims(ISSUER, x=1)
    texts = [compact(HEADER, one), compact(HEADER, one, lambda _: b"!"), compact(HEADER, other)]
    issuer = Issuer(
        issuer=ISSUER, audience="a", algorithms=["RS256"], jwks_url="https://id.example/keys"
    )
    lasts = Window(None, 0, NOW_S)
    bare = [describe(issuer, parse(text.encode()), lasts).token_id for text in texts]
    assert bare[0] == bare[1] != bare[2]
    assert all(len(one) == 32 and one.isalnum() for one in ids + bare)


@pytest.mark.parametrize("name", ["sub", "jti"])
def test_subject_and_id_are_texts(name: str) -> None:
    """A number or a list as ``sub`` or ``jti`` is refused: two spellings would be two callers."""
    for value in (1, True, ["a"], {}):
        with pytest.raises(InvalidToken, match="is not a string"):
            described({name: value})
