"""TLS, on whole gates behind both of Serve's proxies; and what is told before one starts."""

import contextlib
import copy
import os
import re
import socket
import ssl
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from serve_app.plan import CannotStartError, plan
from tests.certificates import pair
from tests.running import ADMIN_KEY, DEFAULT_PROXY, RunningGate, chat, simulated, until

NEW = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
OLD = [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1]


def with_tls(cert: Path, key: Path) -> dict[str, Any]:
    """The config of a gate that speaks TLS."""
    config = simulated()
    config["http_options"] |= {"ssl_certfile": str(cert), "ssl_keyfile": str(key)}
    return config


@pytest.fixture(scope="module", params=["haproxy", "default proxy"])
def gate(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGate]:
    """A gate that speaks TLS, behind each of Serve's proxies in turn."""
    folder = tmp_path_factory.mktemp("tls")
    proxy = {} if request.param == "haproxy" else DEFAULT_PROXY
    running = RunningGate(
        folder, with_tls(*pair(folder)), {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY, **proxy}
    )
    running.start()
    try:
        yield running.ready()
    finally:
        running.stop()


def only(version: ssl.TLSVersion, side: int = ssl.PROTOCOL_TLS_CLIENT) -> ssl.SSLContext:
    """A side of TLS that speaks this version alone, however weak; it asks for no name."""
    context = ssl.SSLContext(side)
    if side == ssl.PROTOCOL_TLS_CLIENT:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):  # Python frowns at the old ones, as we do
        context.minimum_version = context.maximum_version = version
    return context


def wire(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 10)


def shaken(port: int, version: ssl.TLSVersion) -> str | None:
    """Return the version that a handshake agreed on."""
    with wire(port) as plain, only(version).wrap_socket(plain) as wrapped:
        return wrapped.version()


@pytest.mark.parametrize("version", NEW, ids=str)
def test_new_versions_are_spoken(gate: RunningGate, version: ssl.TLSVersion) -> None:
    """TLS 1.2 and 1.3 both work; a client that can both gets 1.3."""
    assert shaken(gate.port, version) == f"TLSv1.{version.name[-1]}"
    both = ssl.create_default_context(cafile=gate.certificate)
    with wire(gate.port) as plain, both.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped:
        assert wrapped.version() == "TLSv1.3"


@pytest.mark.parametrize("version", OLD, ids=str)
def test_old_versions_are_refused(gate: RunningGate, version: ssl.TLSVersion) -> None:
    """TLS 1.0 and 1.1 end in the handshake."""
    with pytest.raises((ssl.SSLError, ConnectionError)):
        shaken(gate.port, version)


@pytest.mark.parametrize("version", OLD, ids=str)
def test_the_client_of_these_tests_could_speak_the_old(tmp_path: Path, version) -> None:
    """A server that allows them agrees on them: what refuses is the gate."""
    server = only(version, ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*pair(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            plain, _ = listening.accept()
            with server.wrap_socket(plain, server_side=True) as wrapped:
                wrapped.recv(1)

        threading.Thread(target=answer, daemon=True).start()
        assert shaken(listening.getsockname()[1], version) is not None


def test_plain_http_is_refused(gate: RunningGate) -> None:
    """Nobody is answered in the clear, not even to be sent elsewhere."""
    said = b""
    with wire(gate.port) as plain, contextlib.suppress(ConnectionError):
        plain.sendall(b"GET /health HTTP/1.1\r\nhost: gate\r\n\r\n")
        plain.settimeout(40)
        said = b"".join(iter(lambda: plain.recv(4_096), b""))
    assert not said.startswith(b"HTTP/")


def test_http_2_is_not_offered(gate: RunningGate) -> None:
    """A client that would rather have HTTP/2 gets HTTP/1.1, in which all is tried."""
    context = ssl.create_default_context(cafile=gate.certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    named = {"server_hostname": "127.0.0.1"}
    with wire(gate.port) as plain, context.wrap_socket(plain, **named) as wrapped:
        assert wrapped.selected_alpn_protocol() in ("http/1.1", None)
        wrapped.sendall(b"GET /health HTTP/1.1\r\nhost: gate\r\nconnection: close\r\n\r\n")
        assert wrapped.recv(4_096).startswith(b"HTTP/1.1 200")


def test_a_stranger_to_the_certificate_does_not_call(gate: RunningGate) -> None:
    """A client that does not trust it ends the handshake: nothing serves another certificate."""
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{gate.url}/health")


def test_a_chat_streams_to_its_end(gate: RunningGate) -> None:
    """Whole and streamed, as without TLS."""
    with gate.client() as client:
        assert client.post("/v1/chat/completions", json=chat()).status_code == 200
        body = chat(max_tokens=40, stream=True)
        with client.stream("POST", "/v1/chat/completions", json=body) as told:
            lines = [line for line in told.iter_lines() if line]
    assert told.status_code == 200
    assert len(lines) > 40
    assert lines[-1] == "data: [DONE]"


@pytest.mark.parametrize("before", [0, 3])
def test_a_hang_up_is_seen(gate: RunningGate, before: int) -> None:
    """Whoever leaves a stream frees the engine, also on a connection used before."""
    at = gate.engine()
    body = chat(max_tokens=1_500, stream=True)
    with gate.client() as client:
        for _ in range(before):
            client.get("/v1/models")
        with client.stream("POST", "/v1/chat/completions", json=body) as told:
            lines = told.iter_lines()  # kept: a forgotten iterator closes the reply
            next(lines)
            until(lambda: gate.gauge("num_requests_running", at) == 1, 10, "the work")
    until(lambda: gate.gauge("num_requests_running", at) == 0, 10, "the abort")


def test_the_line_to_paste_works(gate: RunningGate) -> None:
    """The launcher tells https, and a curl line that trusts this certificate."""
    assert f"Sluicegate is ready at https://127.0.0.1:{gate.port}\n" in gate.said()
    line = re.search(r"\n  (curl .*\n(?:    -.*\n)+)", gate.said())
    assert line
    done = subprocess.run(
        ["bash", "-c", line[1].replace("curl", "curl -sS", 1)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "SLUICEGATE_ADMIN_KEY": ADMIN_KEY},
    )  # fmt: skip
    assert '"finish_reason"' in done.stdout, done.stderr


# Told early


def encrypted(folder: Path) -> tuple[Path, Path]:
    return pair(folder, password=b"hunter2")


def strangers(folder: Path) -> tuple[Path, Path]:
    return pair(folder / "one")[0], pair(folder / "two")[1]


def nowhere(folder: Path) -> tuple[Path, Path]:
    return folder / "none.pem", pair(folder)[1]


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (encrypted, "http_options.ssl_keyfile: .*encrypted, which is not supported"),
        (strangers, "http_options.ssl_keyfile: .*is not the key of"),
        (nowhere, "http_options.ssl_certfile: .*none.pem: No such file"),
    ],
)
def test_a_wrong_certificate_is_no_start(
    gates, tmp_path: Path, made: Callable[[Path], tuple[Path, Path]], says: str
) -> None:
    """One line that names the field and the mend, exit code 1, nothing was started."""
    gate = gates(with_tls(*made(tmp_path / "given"))).start()
    assert gate.process.wait(20) == 1
    assert re.search(says, gate.said())
    assert gate.said().count("\n") == 1
    assert "hunter2" not in gate.said()
    assert not gate.data.exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"http_options": {"ssl_keyfile_password": "hunter2"}},
            "an encrypted key is not supported",
        ),
        ({"http_options": {"ssl_ca_certs": "/ca.pem"}}, "clients are known by key or token"),
        ({"http_options": {"ssl_keyfile": "/key.pem"}}, "ssl_certfile: missing"),
        ({"grpc_options": {"grpc_servicer_functions": ["a.b"]}}, "the gate speaks HTTP alone"),
    ],
)
def test_what_would_weaken_it_is_refused(tmp_path: Path, changes, says: str) -> None:
    """A setting that Serve would take, and that would not do what it seems to, is named."""
    config = copy.deepcopy(simulated())
    for name, told in changes.items():
        config[name] = {**config.get(name, {}), **told}
    path = tmp_path / "serve_config.yaml"
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(CannotStartError, match=says) as refused:
        plan(path)
    assert "hunter2" not in str(refused.value)
