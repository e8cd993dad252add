"""What the environment alone may say."""

from pathlib import Path

import pytest

from serve_app.auth_settings import Auth
from serve_app.environment import Secrets, data_dir, must_be_local
from serve_app.settings import SettingsError, Store


def test_secrets_come_from_the_environment() -> None:
    """Several keys are separated by commas; blanks and empty ones do not count."""
    environ = {
        "SLUICEGATE_STORE_URL": "redis://:pw@host",
        "SLUICEGATE_ADMIN_KEY": "one, two ,,",
        "SLUICEGATE_API_KEY": " three",
        "SLUICEGATE_PROXY_KEY": "four-four-four-four",
    }
    secrets = Secrets.from_environ(environ)
    assert secrets.store_url == "redis://:pw@host"
    assert secrets.admin_keys == ["one", "two"]
    assert secrets.api_keys == ["three"]
    assert secrets.proxy_key == "four-four-four-four"
    empty = Secrets.from_environ(dict.fromkeys(environ, ""))
    assert empty == Secrets.from_environ({}) == Secrets()


def test_secrets_are_not_shown_by_accident() -> None:
    """None of them is in what a log or a traceback would show."""
    secrets = Secrets(store_url="hunter2", admin_keys=["hunter2"], api_keys=["hunter2"])
    assert "hunter2" not in repr(secrets) + str(secrets)
    assert "hunter2" not in repr(Secrets(proxy_key="hunter2"))


@pytest.mark.parametrize(
    ("folder", "environ", "path"),
    [
        ("/data", {"XDG_DATA_HOME": "/share"}, Path("/data")),
        ("data", {}, Path.cwd() / "data"),
        ("~/data", {}, Path.home() / "data"),
        (None, {"XDG_DATA_HOME": "/share"}, Path("/share/sluicegate")),
        (None, {"XDG_DATA_HOME": ""}, Path.home() / ".local/share/sluicegate"),
        (None, {}, Path.home() / ".local/share/sluicegate"),
    ],
)
def test_the_data_folder(folder: str | None, environ: dict[str, str], path: Path) -> None:
    """The setting counts first, then XDG's variable, then its default; always a whole path."""
    assert data_dir(Store(data_dir=folder), environ) == path


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("SLUICEGATE_ADMIN_KEY", "two words", id="a space"),
        pytest.param("SLUICEGATE_API_KEY", "schlüssel", id="not ASCII: no client could send it"),
        pytest.param("SLUICEGATE_PROXY_KEY", "tooshort", id="short"),
        pytest.param("SLUICEGATE_PROXY_KEY", "sixteen-chars-%25", id="HAProxy would read the %"),
    ],
)
def test_an_unusable_secret_stops_the_start_unshown(name: str, value: str) -> None:
    """The variable is named, its value is not."""
    with pytest.raises(SettingsError, match=name) as told:
        Secrets.from_environ({name: value})
    assert value not in str(told.value)


@pytest.mark.parametrize(
    ("url", "is_one"),
    [
        ("redis://u:hunter2@host:6379/0", True),
        ("rediss+cluster://u:hunter2@a:1,b:2/", True),
        ("redis+sentinel://u:hunter2@a:1,b:2/main?sentinel_password=hunter2", True),
        ("redis://u:hunter2/@host", False),
        ("redis+sentinel://u:hunter2@a:1", False),
        ("http://hunter2", False),
    ],
)
def test_the_stores_url_may_hold_passwords(url: str, is_one: bool) -> None:
    """One server, a cluster or sentinels; what is none stops the start and is not shown."""
    environ = {"SLUICEGATE_STORE_URL": url}
    if is_one:
        assert Secrets.from_environ(environ).store_url == url
        return
    with pytest.raises(SettingsError, match="SLUICEGATE_STORE_URL") as told:
        Secrets.from_environ(environ)
    assert "hunter2" not in str(told.value)


@pytest.mark.parametrize("name", ["SLUICEGATE_ADMIN_KEY", "SLUICEGATE_API_KEY"])
def test_a_static_key_that_looks_like_a_jwt(name: str) -> None:
    """What looks like a JWT is never compared with keys, so such a key could not be used."""
    with pytest.raises(SettingsError, match="two dots") as told:
        Secrets.from_environ({name: "fine,a.b.c"})
    assert "a.b.c" not in str(told.value)


@pytest.mark.parametrize(
    ("said", "disabled"),
    [("true", True), ("1", True), ("YES", True), ("false", False), ("0", False), ("", False)],
)
def test_disable_auth(said: str, disabled: bool) -> None:
    """Yes or no, in the usual words."""
    assert Secrets.from_environ({"DISABLE_AUTH": said}).disable_auth == disabled


def test_disable_auth_in_doubt() -> None:
    """A word that is neither stops the start; a typing mistake opens nothing."""
    with pytest.raises(SettingsError, match="DISABLE_AUTH"):
        Secrets.from_environ({"DISABLE_AUTH": "ture"})


@pytest.mark.parametrize(
    ("host", "i_know", "may"),
    [
        ("127.0.0.1", False, True),
        ("127.1.2.3", False, True),
        ("localhost", False, True),
        ("::1", False, True),
        ("0.0.0.0", False, False),
        ("10.0.0.7", False, False),
        ("gate.example", False, False),
        ("0.0.0.0", True, True),
    ],
)
def test_where_authentication_may_be_disabled(host: str, i_know: bool, may: bool) -> None:
    """On loopback, or where somebody says that it is meant."""
    if may:
        must_be_local(host, Auth(i_know=i_know))
    else:
        with pytest.raises(SettingsError, match="i_know"):
            must_be_local(host, Auth(i_know=i_know))
