"""What all of Ray gets from the launcher, and the config that Serve gets beside it."""

from pathlib import Path

import pytest
import yaml

from serve_app.certificate import Certificate
from serve_app.haproxy import CERT_ENV, HOST_ENV, KEY_ENV, PROXY_KEY_ENV, usable
from serve_app.plan import plan
from serve_app.ray_environment import environment
from tests.certificates import pair
from tests.running import simulated

SCRATCH = Path("/tmp/sluicegate-abcdefgh")


def test_a_secret_is_made_anew_for_each_run() -> None:
    """Neither Ray's token nor the proxy's secret is the last run's, and HAProxy can read it."""
    one, two = (environment("127.0.0.1", None, SCRATCH) for _ in range(2))
    for name in ("RAY_AUTH_TOKEN", PROXY_KEY_ENV):
        assert one[name] != two[name]
        assert len(one[name]) >= 32
    assert usable(one[PROXY_KEY_ENV])


def test_the_proxys_secret_may_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one is none."""
    monkeypatch.setenv(PROXY_KEY_ENV, "given-given-given")
    assert environment("127.0.0.1", None, SCRATCH)[PROXY_KEY_ENV] == "given-given-given"
    monkeypatch.setenv(PROXY_KEY_ENV, "")
    assert usable(environment("127.0.0.1", None, SCRATCH)[PROXY_KEY_ENV])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (HOST_ENV, "0.0.0.0"),
        ("FORWARDED_ALLOW_IPS", "*"),
        ("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "mine:middlewares"),
        (CERT_ENV, "/other.pem"),
    ],
)
def test_no_environment_opens_a_door(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """What keeps strangers out is not taken from wherever the launcher was started."""
    monkeypatch.setenv(name, value)
    assert environment("127.0.0.1", None, SCRATCH)[name] != value


def test_an_operator_may_choose_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve's default proxy, Ray's metrics, Ray's folder."""
    chosen = {"RAY_SERVE_ENABLE_HA_PROXY": "0", "RAY_enable_metrics_collection": "1"}
    chosen |= {"RAY_TMPDIR": "/var/tmp", "DASHBOARD_METRIC_PORT": "44227"}
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    assert chosen.items() <= environment("127.0.0.1", None, SCRATCH).items()


def test_rays_files_lie_with_ours_if_their_names_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Unix socket's path ends after 107 characters; in a deep folder Ray keeps its own."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    assert environment("127.0.0.1", None, SCRATCH)["RAY_TMPDIR"] == str(SCRATCH)
    session = "ray/session_2026-11-22_08-47-49_912392_1234567/sockets/plasma_store"
    assert len(str(SCRATCH / session)) <= 107
    assert "RAY_TMPDIR" not in environment("127.0.0.1", None, SCRATCH / ("deep" * 5))


def written(folder: Path, **http: object) -> Path:
    config = simulated()
    config["http_options"] |= http
    path = folder / "serve_config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the config, with the data folder of no other gate."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.delenv("SLUICEGATE_STORE_URL", raising=False)
    return tmp_path


def test_behind_haproxy_serve_is_on_loopback_and_plain(share: Path) -> None:
    """Address and TLS are the front's; Serve in front itself gets both, in its own names."""
    cert, key = pair(share)
    names = {"ssl_certfile": str(cert), "ssl_keyfile": str(key)}
    planned = plan(written(share, **names), host="0.0.0.0", port=8443)
    assert planned.url == "https://127.0.0.1:8443"
    assert planned.config_for(haproxy=True)["http_options"] == {"host": "127.0.0.1", "port": 8443}
    assert planned.config_for(haproxy=False)["http_options"] == {
        "host": "0.0.0.0", "port": 8443, **names
    }  # fmt: skip
    told = environment(planned.host, planned.certificate, SCRATCH)
    assert (told[HOST_ENV], told[CERT_ENV], told[KEY_ENV]) == ("0.0.0.0", str(cert), str(key))


def test_the_environment_may_tell_the_certificate(share: Path, monkeypatch) -> None:
    """With the names that the shim reads; those of the file come first."""
    cert, key = pair(share / "given")
    monkeypatch.setenv(CERT_ENV, str(cert))
    monkeypatch.setenv(KEY_ENV, str(key))
    planned = plan(written(share), port=8443)
    assert planned.certificate == Certificate(cert, key, ("localhost", "127.0.0.1"))
    http = planned.config_for(haproxy=False)["http_options"]
    assert (http["ssl_certfile"], http["ssl_keyfile"]) == (str(cert), str(key))
