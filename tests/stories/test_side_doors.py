"""No side door: every port and socket of a whole gate is named here, and refuses strangers."""

import contextlib
import ipaddress
import json
import re
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest

from serve_app.haproxy import PROXY_KEY_ENV, PROXY_KEY_HEADER, STEERING
from serve_app.ingress import TABLE
from tests.running import ADMIN_KEY, RunningGate, chat, simulated, until

# One method of each service that Ray serves by gRPC; who may call it, may call them all.
SERVICES = {
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo": "GCS",
    "/ray.rpc.InternalKVGcsService/InternalKVGet": "GCS",
    "/ray.rpc.ActorInfoGcsService/GetAllActorInfo": "GCS",
    "/ray.rpc.JobInfoGcsService/GetAllJobInfo": "GCS",
    "/ray.rpc.autoscaler.AutoscalerStateService/GetClusterStatus": "GCS",
    "/ray.rpc.NodeManagerService/GetNodeStats": "raylet",
    "/ray.rpc.ObjectManagerService/Pull": "objects",
    "/ray.rpc.CoreWorkerService/PushTask": "worker",
    "/ray.rpc.CoreWorkerService/GetCoreWorkerStats": "worker",
    "/ray.rpc.ReporterService/GetTraceback": "agent",
    "/ray.rpc.LogService/ListLogs": "agent",
    "/ray.serve.ASGIService/HandleRequest": "replica",
    "/ray.serve.ASGIService/HandleRequestStreaming": "replica",
}
PEERS = {
    "gcs_server": {"GCS": 1},
    "raylet": {"raylet": 1, "objects": 1},
    "serve_app.serving": {"worker": 1},
    "ray::DashboardAgent": {"agent": 1, "agent's HTTP": 1},
    "ray::RuntimeEnvAgent": {"environments": 1},
    "ray::ServeController": {"worker": 1},
    "ray::ProxyActor": {"worker": 1, "front": 1},
    "ray::ServeReplica:sluicegate:Gateway": {"worker": 1, "replica": 1},
    "ray::ServeReplica:sluicegate:model-": {"worker": 1, "replica": 1},
    "ray::_Keeper": {"worker": 1},
    "valkey-server": {"store": 1},
    "serve_app.engine.simulated": {"engine": 1},
}
"""Which ports each process may have, in both modes; a new one must be named here first."""

BEHIND_HAPROXY = {
    "ray::ProxyActor": {"worker": 1, "fallback": 1},
    "ray::ServeReplica:sluicegate:Gateway": {"worker": 1, "replica": 1, "gateway": 1},
    "ray::HAProxyManager": {"worker": 1},
    "/haproxy": {"front": 1, "statistics": 1, "metrics": 1},
}
ALIVE = {
    "agent's HTTP": {"/api/healthz", "/api/local_raylet_healthz"},
    "front": {"/health", "/health/live", "/health/ready", "/openapi.json", "/docs"},
}
"""What may be asked without a credential: whether it lives, and what the API is."""

CHAT = "/v1/chat/completions"
PATHS = (
    "/", "/-/routes", "/-/healthz", "/%2d/routes", "/metrics", "/stats", "/docs", "/health",
    "/healthz", "/openapi.json", "/version", "/v1/models", "/v1/chat/completions", "/invocations",
    "/api/healthz", "/api/local_raylet_healthz", "/api/jobs/", "/api/version", "/nodes", "/events",
    "/get_or_create_runtime_env", "/health/ready", "/server_info", "/ping",
)  # fmt: skip
OPEN_BY_CONTRACT = {
    ("GET", "/health"), ("GET", "/health/live"), ("GET", "/health/ready"), ("GET", "/openapi.json"),
    ("GET", "/docs"), ("POST", "/v1/auth/login"), ("POST", "/v1/auth/visitor"),
}  # fmt: skip


@dataclass(frozen=True)
class Door:
    """One listening port: whose, and what it is."""

    process: str
    host: str
    port: int
    what: str

    def __str__(self) -> str:
        return f"{self.what} of {self.process} at {self.host}:{self.port}"


@dataclass(frozen=True)
class House:
    """A running gate and all its doors."""

    gate: RunningGate
    doors: tuple[Door, ...]
    env: dict[str, str]
    haproxy: bool

    def the(self, *what: str) -> list[Door]:
        return [door for door in self.doors if door.what in what]


def processes(gate: RunningGate) -> Iterator[tuple[str, psutil.Process]]:
    """Every process of a gate's family, by its command line."""
    for pid in gate.family():
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            yield " ".join(process.cmdline()), process


def listening(process: psutil.Process) -> list[tuple[str, int]]:
    found = process.net_connections("tcp")
    return [(one.laddr.ip, one.laddr.port) for one in found if one.status == psutil.CONN_LISTEN]


def house(gate: RunningGate) -> House:
    """Return every listening port of a gate, named."""
    until(gate.replicas, 30, "a replica")
    found = list(processes(gate))
    env = next(one.environ() for line, one in found if "-m serve_app.serving" in line)
    haproxy = env["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    numbers = {
        gate.port: "front",
        int(env["RAY_SERVE_HAPROXY_STATS_PORT"]): "statistics",
        int(env["RAY_SERVE_HAPROXY_METRICS_PORT"]): "metrics",
        int(env["RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"]): "fallback",
        int(gate.store_url().rpartition(":")[2].partition("/")[0]): "store",
        **{int(at.url.rpartition(":")[2]): "engine" for at in gate.replicas().values()},
    }
    doors = [
        Door(process_name(line), host, port, numbers.get(port) or spoken(process_name(line), port))
        for line, process in found
        for host, port in listening(process)
    ]
    return House(gate, tuple(doors), env, haproxy)


def process_name(line: str) -> str:
    names = [name for name in {**PEERS, **BEHIND_HAPROXY} if name in line.partition(" --")[0]]
    return max(names, key=len, default=line)


def spoken(process: str, port: int) -> str:
    """Return what a port is by the gRPC service that it knows, or else by its HTTP."""
    for method, what in SERVICES.items():
        if called(port, method) not in ("UNIMPLEMENTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"):
            return what
    by_http = {
        "ray::DashboardAgent": "agent's HTTP",
        "ray::RuntimeEnvAgent": "environments",
        "ray::ServeReplica:sluicegate:Gateway": "gateway",
    }
    return by_http.get(process, "unknown") if asked(port, "GET / HTTP/1.1") else "unknown"


def called(port: int, method: str, token: str | None = None) -> str:
    """Return how a gRPC call with an empty message ends: the name of its status."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(method, lambda raw: raw, lambda raw: raw)
        try:
            call(b"", timeout=3, metadata=[("authorization", f"Bearer {token}")] if token else [])
        except grpc.RpcError as err:
            return str(err.code().name)
        return "OK"


def sent(port: int, raw: bytes, limit_s: float = 5) -> bytes:
    """Return all that a port says to raw bytes, until it closes or is silent."""
    said = b""
    unheard = contextlib.suppress(ConnectionError, TimeoutError)
    with unheard, socket.create_connection(("127.0.0.1", port), limit_s) as wire:
        wire.settimeout(limit_s)
        wire.sendall(raw)
        while chunk := wire.recv(65_536):
            said += chunk
    return said


def asked(port: int, line: str, *lines: str) -> int | None:
    """Return the status of the reply to raw lines; None if it is no HTTP."""
    request = "\r\n".join([line, "host: gate", "connection: close", *lines, "", ""])
    found = re.match(rb"HTTP/1\.[01] (\d{3})", sent(port, request.encode("latin-1")))
    return int(found[1]) if found else None


@pytest.fixture(scope="module")
def walked(any_gate: RunningGate) -> House:
    """A whole gate, behind each of Serve's proxies in turn, with its doors."""
    return house(any_gate)


# Which doors there are


def test_every_port_is_named(walked: House) -> None:
    """A port that nobody named here is a door that nobody has looked at."""
    allowed = {**PEERS, **(BEHIND_HAPROXY if walked.haproxy else {})}
    seen: dict[str, dict[str, int]] = {}
    for door in walked.doors:
        ports = seen.setdefault(door.process, {})
        ports[door.what] = ports.get(door.what, 0) + 1
    if "agent's HTTP" not in seen.get(
        "ray::DashboardAgent", {}
    ):  # its port is fixed: another Ray has it
        allowed["ray::DashboardAgent"] = {"agent": 1}
    assert seen == allowed


def test_nothing_listens_beyond_this_machine(walked: House) -> None:
    """With the gate on loopback all of it is."""
    away = [str(door) for door in walked.doors if not is_loopback(door.host)]
    assert away == []


def is_loopback(host: str) -> bool:
    address = ipaddress.ip_address(host)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


@pytest.mark.parametrize("env", [{}, {"RAY_SERVE_ENABLE_HA_PROXY": "0"}], ids=["haproxy", "plain"])
def test_the_front_alone_listens_where_it_was_told(gates, env: dict[str, str]) -> None:
    """With the gate on another address, its gateways and Ray stay on loopback."""
    config = simulated()
    config["http_options"]["host"] = "127.0.0.2"
    gate = gates(config, {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY, **env}).start()
    until(lambda: "is ready at" in gate.said(), 120, "ready")
    doors = [at for _, process in processes(gate) for at in listening(process)]
    assert [port for host, port in doors if host == "127.0.0.2"] == [gate.port]
    others = {host for host, port in doors if port != gate.port}
    assert others <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_no_socket_file_is_for_others(walked: House) -> None:
    """Every Unix socket lies behind a folder, or has a mode, that keeps other users out."""
    open_to_all = []
    for _, process in processes(walked.gate):
        with contextlib.suppress(psutil.Error):
            names = [str(one.laddr) for one in process.net_connections("unix") if one.laddr]
            assert not [name for name in names if name.startswith(("\0", "@"))], (
                "no name without a file"
            )
            # HAProxy binds its socket by another name and then moves it
            paths = {Path(re.sub(r"\.\d+\.tmp$", "", name)) for name in names}
            open_to_all += [str(path) for path in paths if path.exists() and not is_private(path)]
    assert open_to_all == []


def is_private(path: Path) -> bool:
    """Whether no other user may connect: writing is for the owner, or a folder is closed."""
    if not path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return True
    return any(not parent.stat().st_mode & 0o077 for parent in path.parents)


# What they say to a stranger


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_no_port_answers_http(walked: House, method: str) -> None:
    """Without a credential every path of every port is refused, or is no HTTP at all."""
    answered = []
    for door in walked.doors:
        for path in PATHS:
            status = asked(door.port, f"{method} {path} HTTP/1.1", "content-length: 0")
            if status is None:
                assert door.what not in ("front", "engine", "gateway", "fallback"), str(door)
                break  # it does not speak HTTP: the other paths are as good
            if status not in (401, 403) and path not in ALIVE.get(door.what, ()):
                answered.append(f"{door}: {method} {path} {status}")
    assert answered == []


def test_what_is_open_says_no_more_than_alive(walked: House) -> None:
    """The agent's own health, which Ray keeps open for probes, is a word."""
    asks = [(each.port, path) for each in walked.the("agent's HTTP") for path in ALIVE[each.what]]
    for port, path in asks:
        told = httpx.get(f"http://127.0.0.1:{port}{path}")
        assert re.fullmatch(r"((raylet|gcs): )?success(\n(raylet|gcs): success)?", told.text)


def test_no_port_opens_a_websocket(walked: House) -> None:
    """Nobody gets a 101."""
    lines = [
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    for door in walked.doors:
        for path in ("/", CHAT, "/health"):
            request = "\r\n".join(
                [f"GET {path} HTTP/1.1", "host: x", "connection: upgrade", *lines]
            )
            said = sent(door.port, f"{request}\r\n\r\n".encode(), limit_s=1)
            assert b" 101 " not in said.partition(b"\r\n")[0], str(door)


@pytest.mark.parametrize("command", ["PING", "INFO", "CONFIG GET requirepass", "KEYS *", "HELLO 3"])
def test_no_port_speaks_redis(walked: House, command: str) -> None:
    """The store wants its password first; nobody else knows the protocol."""
    for door in walked.doors:
        said = sent(door.port, f"{command}\r\n".encode(), limit_s=1)
        assert not said.startswith((b"+", b"$", b"*", b"%")), str(door)
        if door.what == "store":
            assert said.startswith(b"-NOAUTH"), said


def test_rays_ports_want_the_token(walked: House) -> None:
    """Every gRPC service refuses a call without it, and with a wrong one; with it, it answers."""
    token = walked.env["RAY_AUTH_TOKEN"]
    for door in walked.the(*SERVICES.values()):
        mine = [method for method, what in SERVICES.items() if what == door.what]
        for method in mine:
            assert called(door.port, method) == "UNAUTHENTICATED", f"{door}: {method}"
            assert called(door.port, method, "0" * 64) == "UNAUTHENTICATED", f"{door}: {method}"
        known = {called(door.port, method, token) for method in mine}
        assert not known & {"UNAUTHENTICATED", "UNIMPLEMENTED"}, str(door)


def test_a_port_does_not_speak_another_ports_language(walked: House) -> None:
    """Ports that are no Ray server answer no gRPC call."""
    theirs = walked.the(*SERVICES.values())
    for door in walked.doors:
        if door not in theirs:
            for method in SERVICES:
                assert called(door.port, method) != "OK", str(door)


def test_the_gateways_own_port_is_haproxys(gate: RunningGate) -> None:
    """Past the front not even a good key helps; the proxy's secret does, and a key is still due."""
    walked = house(gate)
    bearer = f"authorization: Bearer {ADMIN_KEY}"
    shown = f"{PROXY_KEY_HEADER}: {walked.env[PROXY_KEY_ENV]}"
    for door in walked.the("gateway", "fallback"):
        line = "GET /v1/models HTTP/1.1"
        assert asked(door.port, line, bearer) == 401, str(door)
        assert asked(door.port, line, shown) == 401, str(door)
        assert asked(door.port, line, shown, bearer) == 200, str(door)
        assert asked(door.port, "GET /-/routes HTTP/1.1", shown) == 401, str(door)


def test_what_vllm_opens_is_mute(real_gate: RunningGate) -> None:
    """Its workers' ports are on loopback, speak to nobody, and are not hurt by being spoken to."""
    doors = [
        at
        for line, process in processes(real_gate)
        if "VLLM::" in line or "vllm.entrypoints" in line
        for at in listening(process)
    ]
    api = int(real_gate.engine().url.rpartition(":")[2])
    assert api in [port for _, port in doors]
    for host, port in doors:
        assert is_loopback(host), port
        assert asked(port, "GET /health HTTP/1.1") == (401 if port == api else None)
        assert not sent(port, b"PING\r\n", limit_s=1).startswith(b"+")
        assert called(port, "/ray.rpc.CoreWorkerService/PushTask") != "OK"
    with real_gate.client() as client:
        assert client.post(CHAT, json=chat()).status_code == 200


# The front


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
REFUSED = {method: {401} for method in METHODS} | {"CONNECT": {400, 401}}
"""How a stranger is refused; a CONNECT to a path is no valid request to HAProxy."""

SPELT = (
    "//v1/models", "/v1//models", "/v1/models/", "/V1/MODELS", "/v1/../health", "/v1/%2e%2e/health",
    "/health/../v1/models", "/./health", "/health/", "/HEALTH", "/health%20", "/health;x", "/docs/",
    "/health%00", "/%2fhealth", "/health%2f", "/health/live/x", "/api", "/api/", "/api/-/routes",
    "/api/api/v1/models", "/nope", "/v1/nope", "/v1/models%2f..%2f..%2fhealth", "/metrics", "/-",
    "/static/app.js", "/favicon.ico", "/.env", "/redoc", "//", "/v1/models?api_key=x",
)  # fmt: skip


def filled(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "x", path)


def test_the_open_routes_are_those_of_the_contract() -> None:
    """§1.7: exactly these need no caller."""
    assert {(each.method, each.path) for each in TABLE if not each.permission} <= OPEN_BY_CONTRACT


@pytest.mark.parametrize("prefix", ["", "/api"])
@pytest.mark.parametrize("method", METHODS)
def test_every_route_wants_a_caller(any_gate: RunningGate, method: str, prefix: str) -> None:
    """§1.7: every path with every method, without a credential; only the open ones answer."""
    wrong = []
    for path in sorted({filled(each.path) for each in TABLE}):
        asks = "GET" if method == "HEAD" else method
        is_open = (asks, path) in OPEN_BY_CONTRACT
        status = asked(any_gate.port, f"{method} {prefix}{path} HTTP/1.1", "content-length: 0")
        if (status in REFUSED[method]) is is_open or status is None:
            wrong.append(f"{method} {prefix}{path} {status}")
    assert wrong == []


@pytest.mark.parametrize("method", METHODS)
def test_every_other_spelling_wants_a_caller(any_gate: RunningGate, method: str) -> None:
    """A path that is like an open one, or unknown, is 401 without a caller, and tells nothing."""
    lines = {path: f"{method} {path} HTTP/1.1" for path in SPELT}
    told = {path: asked(any_gate.port, line, "content-length: 0") for path, line in lines.items()}
    assert {path: told[path] for path in SPELT if told[path] not in REFUSED[method]} == {}


@pytest.mark.parametrize("line", ["OPTIONS * HTTP/1.1", "CONNECT gate:443 HTTP/1.1"])
def test_what_is_no_path_is_refused(any_gate: RunningGate, line: str) -> None:
    """Nobody is tunnelled, or told what there is."""
    assert asked(any_gate.port, line) in (400, 401, 404, 405)


def test_a_refusal_at_the_front_has_the_gates_shape(any_gate: RunningGate) -> None:
    """Also where a proxy says it: code, how to authenticate, one request id."""
    for path in ("/v1/models", "/-/routes", "/-/healthz"):
        told = httpx.get(f"{any_gate.url}{path}")
        assert told.status_code == 401
        assert told.json()["error"]["code"] == "missing_credentials"
        assert set(told.json()["error"]) == {"message", "type", "code", "param", "details"}
        assert told.headers["www-authenticate"].startswith("Bearer")
        assert len(told.headers.get_list("x-request-id")) == 1


@pytest.mark.parametrize("rubbish", ["<script>", "a" * 129, "two words"])
def test_a_rubbish_id_does_not_come_back(any_gate: RunningGate, rubbish: str) -> None:
    """Behind either proxy: one id in the reply, and not that; a safe one is kept."""
    with any_gate.client() as client:
        told = client.get("/v1/models", headers={"x-request-id": rubbish})
        kept = client.get("/v1/models", headers={"x-request-id": "mine-1"})
    (replaced,) = told.headers.get_list("x-request-id")
    assert rubbish not in replaced
    assert kept.headers.get_list("x-request-id") == ["mine-1"]


@pytest.mark.parametrize("forged", ["6.6.6.6", "6.6.6.6:1234", "6.6.6.6, 127.0.0.1", "[::6]:9"])
def test_the_log_names_the_tcp_peer(any_gate: RunningGate, forged: str) -> None:
    """Behind either proxy, whatever a client claims."""
    mine = f"forged-{forged.encode().hex()}"
    headers = {"x-forwarded-for": forged, "x-request-id": mine, PROXY_KEY_HEADER: "forged"}
    with any_gate.client() as client:
        client.get("/v1/models", headers=headers)

    def seen() -> list[Any]:
        lines = any_gate.access_lines()
        return [line["address"] for line in lines if line["request_id"] == mine]

    until(seen, 20, "the log line")
    assert seen() == ["127.0.0.1"]


@pytest.mark.parametrize("name", STEERING)
def test_no_header_turns_off_the_hang_up(any_gate: RunningGate, name: str) -> None:
    """Serve would let a caller have its work go on without it, or be cut off."""
    at = any_gate.engine()
    body = json.dumps(chat(max_tokens=1_500, stream=True))
    headers = {name: "?1" if "disconnect" in name else "0.1", "content-type": "application/json"}
    asks = {"content": body, "headers": headers}
    with any_gate.client() as client, client.stream("POST", CHAT, **asks) as told:
        assert told.status_code == 200
        lines = told.iter_lines()  # kept: a forgotten iterator closes the reply
        for _ in range(20):  # longer than a tenth of a second
            next(lines)
        until(lambda: any_gate.gauge("num_requests_running", at) == 1, 10, "the work")
    until(lambda: any_gate.gauge("num_requests_running", at) == 0, 10, "the abort")
