"""``serve run serve_config.yaml`` by itself: no launcher, Serve's default proxy or HAProxy."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from serve_app import reaper
from serve_app.ports import free_port
from tests.running import ADMIN_KEY, ROOT, chat, simulated, until
from tests.stories.test_start_stop import alive

HAPROXY = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}


def hear_ctrl_c() -> None:
    """A shell in the background ignores SIGINT for its children; a terminal does not."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize(
    "env",
    [pytest.param({}, id="default proxy"), pytest.param(HAPROXY, id="haproxy")],
)
def test_serve_run_serves_and_ctrl_c_leaves_nothing(tmp_path: Path, env: dict[str, str]) -> None:
    """Serve's own command is enough; the store is embedded all the same."""
    config, port = simulated(), free_port()
    config["http_options"]["port"] = port
    path = tmp_path / "serve_config.yaml"
    path.write_text(yaml.safe_dump(config))
    with (tmp_path / "printed").open("wb") as out:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("serve"), "run", str(path)],
            stdout=out,
            stderr=out,
            cwd=ROOT,
            preexec_fn=hear_ctrl_c,  # noqa: PLW1509 - no other thread runs here
            env={
                **os.environ,
                "XDG_DATA_HOME": str(tmp_path / "share"),
                "SLUICEGATE_ADMIN_KEY": ADMIN_KEY,
                "RAY_ADDRESS": "local",
                "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
                "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
                "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
                "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
                **env,
            },
        )
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None, (tmp_path / "printed").read_text()[-3_000:]
        try:
            return httpx.get(f"{url}/health/ready").status_code == 200
        except httpx.HTTPError:
            return False

    try:
        until(ready, 120, "ready")
        bearer = {"authorization": f"Bearer {ADMIN_KEY}"}
        told = httpx.post(f"{url}/v1/chat/completions", json=chat(), headers=bearer)
        assert told.status_code == 200
    finally:
        family = reaper.descendants(process.pid)
        process.send_signal(signal.SIGINT)
        process.wait(90)
    until(lambda: not alive(family), 30, "the end of all")
