"""Callers without a credential (CONTRACT §1.4 to §1.6) and web pages (§7), from outside."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from tests.running import ADMIN_KEY, DEFAULT_PROXY, RunningGate, chat, simulated, until

PAGE, EVIL = "https://app.example", "https://evil.example"


class Captcha(BaseHTTPRequestHandler):
    """A siteverify service that knows one solution."""

    def do_POST(self) -> None:
        form = self.rfile.read(int(self.headers["content-length"])).decode()
        said = json.dumps({"success": "response=solved" in form and "secret=s3cret" in form})
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def captcha() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Captcha)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/siteverify"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module", params=["haproxy", "default proxy"])
def friendly(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, captcha: str
) -> Iterator[RunningGate]:
    """A gate that serves strangers, visitors, keys in bodies, and one web page's origin."""
    config = simulated()
    config["applications"][0]["args"] |= {
        "auth": {
            "body_api_key": True,
            "anonymous": {"enabled": True, "limits": {"requests_per_minute": 3}},
            "visitor": {"siteverify_url": captcha, "limits": {"requests_per_minute": 2}},
        },
        "cors": {"origins": [PAGE]},
    }
    env = {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY, "SLUICEGATE_CAPTCHA_SECRET": "s3cret"}
    env |= DEFAULT_PROXY if request.param == "default proxy" else {}
    running = RunningGate(tmp_path_factory.mktemp("friendly"), config, env).start()
    try:
        yield running.ready()
    finally:
        running.stop()


def test_a_stranger_is_served_under_the_limit_of_its_address(friendly: RunningGate) -> None:
    """Three a minute from one address, in its class; nothing but inference is open to it."""
    with friendly.client(None) as client:
        said = [client.post("/v1/chat/completions", json=chat()) for _ in range(4)]
        assert [one.status_code for one in said] == [200, 200, 200, 429]
        assert said[0].headers["x-served-class"] == "anonymous"
        assert client.get("/v1/auth/whoami").json()["id"] == "anonymous"
        for path in ("/v1/auth/api-keys", "/v1/audit", "/v1/tenants", "/v1/auth/users"):
            assert client.get(path).status_code == 403
    with friendly.client() as client:
        assert client.post("/v1/chat/completions", json=chat()).status_code == 200


def test_a_key_in_the_body(friendly: RunningGate) -> None:
    """Alpa's clients send it there; a bad one is refused, a header goes before it, twice is 400."""
    key = friendly.new_key(**{"class": "batch"})
    with friendly.client(None) as client:

        def sent(body: object, **headers: str) -> httpx.Response:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            kind = {"content-type": "application/json"}
            return client.post("/v1/chat/completions", content=raw, headers={**kind, **headers})

        good = sent({**chat(), "api_key": key})
        assert (good.status_code, good.headers["x-served-class"]) == (200, "batch")
        assert sent({**chat(), "api_key": "nonsense"}).status_code == 401
        assert sent({**chat(), "api_key": 7}).status_code == 401
        both = sent({**chat(), "api_key": key}, authorization=f"Bearer {ADMIN_KEY}")
        assert both.status_code == 400, "two different keys"
        same = sent({**chat(), "api_key": key}, authorization=f"Bearer {key}")
        assert same.headers["x-served-class"] == "batch"
        assert sent({"api_key": "x", "model": "\ud800"}).status_code == 401
        twice = json.dumps({**chat(), "api_key": key})[:-1] + f', "api_key": "{key}"}}'
        assert (sent(twice.encode()).status_code) == 400
        escaped = json.dumps({**chat(), "api_key": key}).replace("api_key", "api\\u005fkey")
        assert sent(escaped.encode()).headers["x-served-class"] == "batch"


def test_a_visitor_who_solved_the_captcha(friendly: RunningGate) -> None:
    """It gets a short token, in the interactive class and under its own limit."""
    with friendly.client(None) as client:
        failed = client.post("/v1/auth/visitor", json={"captcha_token": "guessed"})
        assert (failed.status_code, failed.json()["error"]["code"]) == (401, "invalid_login")
        told = client.post("/v1/auth/visitor", json={"captcha_token": "solved"})
        assert told.status_code == 200, told.text
    with friendly.client(told.json()["token"]) as visitor:
        said = [visitor.post("/v1/chat/completions", json=chat()) for _ in range(3)]
        assert [one.status_code for one in said] == [200, 200, 429]
        assert said[0].headers["x-served-class"] == "interactive"
        assert visitor.get("/v1/auth/api-keys").status_code == 403


def test_a_preflight_needs_no_credential_and_counts_for_nothing(friendly: RunningGate) -> None:
    """Also fifty of them, for any path; an origin that is not listed is told so."""
    ask = {"access-control-request-method": "POST", "access-control-request-headers": "x-stainless"}
    with friendly.client(None) as client:
        for _ in range(50):
            said = client.options("/v1/chat/completions", headers={"origin": PAGE, **ask})
            assert said.status_code == 200
            assert said.headers["access-control-allow-origin"] == PAGE
            assert said.headers["x-request-id"]
            assert "x-ratelimit-limit-requests" not in said.headers
        said = client.options("/v1/chat/completions", headers={"origin": EVIL, **ask})
    assert said.status_code == 400
    assert "access-control-allow-origin" not in said.headers


def test_refusals_carry_the_cors_headers_too(friendly: RunningGate) -> None:
    """A page reads why it was refused, and when to come again; another origin's page does not."""
    key = friendly.new_key(limits={"requests_per_minute": 0})
    for origin, allowed in ((PAGE, PAGE), (EVIL, None)):
        with friendly.client(key, event_hooks={}) as client:
            for path, body, status in (
                ("/v1/chat/completions", chat(), 429),
                ("/v1/chat/completions", {}, 400),
                ("/v1/auth/api-keys", {}, 403),
                ("/nowhere", {}, 404),
            ):
                said = client.post(path, json=body, headers={"origin": origin})
                assert said.status_code == status
                assert said.headers.get("access-control-allow-origin") == allowed
            assert "x-request-id" in said.headers.get("access-control-expose-headers", "")


def test_a_gate_that_lets_everyone_in_says_so(gates) -> None:
    """On loopback everyone is one operator; health and log tell; nowhere else does it start."""
    gate = gates(simulated(), {"DISABLE_AUTH": "true"}).start().ready()
    with gate.client(None) as client:
        assert client.get("/v1/auth/whoami").json()["id"] == "local"
        assert client.post("/v1/chat/completions", json=chat()).status_code == 200
        assert client.post("/v1/auth/api-keys", json={"name": "x"}).status_code == 201
        assert client.get("/health").json() == {"status": "ok", "auth": "disabled"}
    log = gate.data / "logs" / "serve.log"
    until(lambda: "AUTHENTICATION IS DISABLED" in log.read_text(), 20, "the warning")
    assert "Admin key" not in gate.said()
    elsewhere = gates(simulated(), {"DISABLE_AUTH": "true"})
    elsewhere.config["http_options"]["host"] = "0.0.0.0"
    elsewhere.start()
    assert elsewhere.process.wait(60) != 0
    assert "args.auth.i_know" in elsewhere.said()
