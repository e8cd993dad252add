"""What the environment alone may say."""

from pathlib import Path

import pytest

from serve_app.environment import Secrets, data_dir
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
