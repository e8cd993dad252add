"""The knobs of *who may call* (CONTRACT §8): a wrong one stops the start and names itself."""

from typing import Any

import pytest

from serve_app.auth_settings import is_safe_url
from serve_app.settings import Settings, SettingsError

ISSUER = {"issuer": "https://id", "audience": "gate", "algorithms": ["RS256"]}
JWKS = {**ISSUER, "jwks_url": "https://id/jwks"}


def issuers(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"auth": {"issuers": list(blocks)}}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        pytest.param(issuers(ISSUER), "exactly one of secret_env, public_key_file", id="no key"),
        pytest.param(
            issuers({**JWKS, "public_key_file": "x.pem"}), "exactly one of", id="two keys"
        ),
        pytest.param(
            issuers({**JWKS, "algorithms": ["HS256", "RS256"]}), "cannot be mixed", id="confusion"
        ),
        pytest.param(
            issuers({**JWKS, "algorithms": ["HS256"]}), "HS256 needs secret_env", id="HS and JWKS"
        ),
        pytest.param(
            issuers({**ISSUER, "secret_env": "A"}), "secret_env needs HS256", id="RS and a secret"
        ),
        pytest.param(issuers({**JWKS, "algorithms": ["none"]}), "algorithms.0", id="none"),
        pytest.param(issuers({**JWKS, "algorithms": []}), "algorithms", id="no algorithm"),
        pytest.param(issuers({**JWKS, "audience": []}), "audience is empty", id="no audience"),
        pytest.param(
            issuers({**JWKS, "jwks_url": "http://id/jwks"}), "must be an https:// URL", id="http"
        ),
        pytest.param(issuers(JWKS, JWKS), "stands here twice", id="twice"),
        pytest.param(
            issuers({**JWKS, "claims": {"clas": "x"}}), "did you mean class?", id="a claim misspelt"
        ),
        pytest.param(
            issuers({**JWKS, "secret_env": "not a name"}), "secret_env", id="no variable's name"
        ),
        pytest.param(
            {"auth": {"anonymous": {"enabled": True, "class": "gold"}}},
            "auth.anonymous.class: there is no class 'gold'",
            id="strangers in no class",
        ),
        pytest.param(
            {"auth": {"visitor": {"siteverify_url": "https://c", "class": "gold"}}},
            "auth.visitor.class: there is no class 'gold'",
            id="visitors in no class",
        ),
        pytest.param(
            {"auth": {"visitor": {"siteverify_url": "http://captcha.example"}}},
            "must be an https:// URL",
            id="captcha in the clear",
        ),
        pytest.param({"auth": {"trusted_proxies": ["10.0.0.1/8"]}}, "host bits set", id="no CIDR"),
        pytest.param(
            {"auth": {"brute_force": {"max_failed_attempts": 0}}}, "max_failed_attempts", id="zero"
        ),
        pytest.param({"auth": {"keys": ["sg-…"]}}, "args.auth.keys: unknown", id="keys in a file"),
        pytest.param(
            {"cors": {"origins": ["*"], "credentials": True}}, "name the origins", id="all cookies"
        ),
        pytest.param({"cors": {"origins": ["app.example"]}}, "cors.origins.0", id="no scheme"),
        pytest.param({"cors": {"origins": ["https://a/b"]}}, "cors.origins.0", id="a path"),
    ],
)
def test_a_wrong_setting_stops_the_start(args: dict[str, Any], says: str) -> None:
    """The refusal names the path and the mend."""
    with pytest.raises(SettingsError) as told:
        Settings.from_args(args)
    assert says in str(told.value)


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://id.example/jwks", True),
        ("http://127.0.0.1:9000/jwks", True),
        ("http://[::1]:9000/jwks", True),
        ("http://localhost/jwks", True),
        ("http://id.example/jwks", False),
        ("http://127.0.0.1.example/jwks", False),
        ("file:///etc/passwd", False),
        ("https://", False),
        ("https://id:port/", False),
        ("", False),
    ],
)
def test_what_nobody_on_the_way_can_read(url: str, safe: bool) -> None:
    """HTTPS anywhere, HTTP on this machine."""
    assert is_safe_url(url) == safe


def test_strangers_classes_are_checked_only_if_they_are_served() -> None:
    """A gate with one class of its own and no strangers needs no class for them."""
    Settings.from_args({"queue": {"classes": [{"name": "only"}]}})
