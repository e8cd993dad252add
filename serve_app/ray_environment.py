"""The environment that ``serve run`` and all of Ray below it get from the launcher.

    HAProxy with its shim in front, everything else on loopback and closed

**Decided: loopback is the node's address.** Ray then listens nowhere else, with none of its
processes, and a laptop may change its network under a running gate. Ray calls the variable after
the systems on which it is the default.

**Decided: Ray's ports ask for a token.** Whoever reaches one otherwise may run code. It is made
anew for each run; Ray's own default would leave one in the user's home.

**Decided: Ray's own metrics are off.** Three of its ports tell them to anybody who asks, and the
gate's own are behind a permission. An operator who wants Ray's sets the variables otherwise.

**Decided: Ray's files lie with ours, and go with them.** Its usual folder lets every user of the
machine write, and every run leaves megabytes there.
"""

import os
import resource
import secrets
import sys
from pathlib import Path

from serve_app.certificate import Certificate
from serve_app.environment import Secrets
from serve_app.haproxy import CERT_ENV, HOST_ENV, KEY_ENV, PROXY_KEY_ENV
from serve_app.ports import free_port

MAX_CONNECTIONS = 20_000
NO_PORT = "65536"  # Ray cannot open it, notes so in its log, and goes on
SHORT = 32  # characters of a folder in which Ray's sockets still find room for their names


def environment(host: str, certificate: Certificate | None, scratch: Path) -> dict[str, str]:
    """Return the environment of ``serve run``.

    Args:
        host: where the front listens.
        certificate: what the front speaks TLS with.
        scratch: a folder that only this user may enter.
    """
    return {**_chosen(scratch), **os.environ, **_forced(host, certificate)}


def _chosen(scratch: Path) -> dict[str, str]:
    """Return what the caller's own environment may say otherwise."""
    shim = Path(sys.executable).with_name("sluicegate-haproxy")
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",  # behind HAProxy it is on all the same
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(shim),
        "RAY_SERVE_HAPROXY_MAXCONN": str(_connections()),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "120",  # for one who neither sends nor reads
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),  # else shared with other clusters
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(scratch / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(scratch / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(scratch / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(scratch),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(scratch / "server-state"),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.5",
        "RAY_DEDUP_LOGS": "0",  # else lines of the access log that look alike are dropped
        "RAY_worker_niceness": "0",  # Ray's 15 lets a stream wait for whatever else computes
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_enable_metrics_collection": "0",
        "AUTOSCALER_METRIC_PORT": NO_PORT,
        "DASHBOARD_METRIC_PORT": NO_PORT,
        **({"RAY_TMPDIR": str(scratch)} if len(str(scratch)) <= SHORT else {}),
    }


def _forced(host: str, certificate: Certificate | None) -> dict[str, str]:
    """Return what the caller's own environment may not say otherwise."""
    return {
        HOST_ENV: host,
        CERT_ENV: str(certificate.cert) if certificate else "",
        KEY_ENV: str(certificate.key) if certificate else "",
        PROXY_KEY_ENV: Secrets.from_environ().proxy_key or secrets.token_urlsafe(32),
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_app.proxy:middlewares",
        "FORWARDED_ALLOW_IPS": "",  # uvicorn believes no header about where a client is
    }


def _connections() -> int:
    """Return how many clients HAProxy may hold: it wants two and a half file descriptors each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the children inherit it
    return max(100, min(MAX_CONNECTIONS, (hard - 500) * 2 // 5))
