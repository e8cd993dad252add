"""No secret leaves the house (CONTRACT §6): planted everywhere, sought in all that a run wrote."""

import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest

from serve_app import auth
from tests.running import ADMIN_KEY, DEFAULT_PROXY, RunningGate, chat, simulated

EMAIL = f"grace.{secrets.token_hex(4)}@example.org"
PASSWORD = f"pass-{secrets.token_hex(12)}"
WRONG_PASSWORD = f"wrong-{secrets.token_hex(12)}"
PROMPT = f"prompt-{secrets.token_hex(12)}"
CAPTCHA = f"captcha-{secrets.token_hex(12)}"
PROVIDER = f"sk-proj-{secrets.token_hex(24)}"
FOREIGN = jwt.encode({"iss": "nobody", "sub": EMAIL}, secrets.token_hex(32), "HS256")


@pytest.fixture(params=["haproxy", "default proxy"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[RunningGate, Path]]:
    """A gate whose every file lies in two folders; the second is Ray's."""
    ray = Path(tempfile.mkdtemp(prefix="sg-", dir="/tmp"))  # Ray's sockets need a short path
    env = {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY, "RAY_TMPDIR": str(ray)}
    proxy = DEFAULT_PROXY if request.param == "default proxy" else {}
    config = simulated()
    config["applications"][0]["args"]["auth"]["body_api_key"] = True
    gate = RunningGate(tmp_path / "gate", config, env | proxy).start()
    try:
        yield gate.ready(), ray
    finally:
        gate.end()
        shutil.rmtree(ray, ignore_errors=True)


def in_accounts(gate: RunningGate) -> tuple[str, str]:
    """Make a user and a key, rotate it; return the user's token and the key's new secret."""
    login = {"username": EMAIL, "password": PASSWORD}
    with gate.client() as admin:
        user = {"name": EMAIL, "password": PASSWORD, "role": "user"}
        assert admin.post("/v1/auth/users", json=user).status_code == 201
        admin.post("/v1/auth/users", json={**user, "role": PROVIDER})
        path = f"/v1/auth/api-keys/{gate.new_key().split('-')[2]}/rotate"
        renewed = admin.post(path, json={"overlap_s": 60}).json()["key"]
    with gate.client(None) as client:
        token = client.post("/v1/auth/login", json=login).json()["token"]
        client.post("/v1/auth/login", json={**login, "password": WRONG_PASSWORD})
        client.post("/v1/auth/login", json={**login, "extra": WRONG_PASSWORD})
        client.post("/v1/auth/visitor", json={"captcha_token": CAPTCHA})
    return str(token), str(renewed)


def in_requests(gate: RunningGate, shown: str) -> None:
    """Put one secret into every part of a request that a client chooses."""
    bearer = {"authorization": f"Bearer {shown}", "x-request-id": shown[:128]}
    body = chat(f"{PROMPT} {PROVIDER} {EMAIL}", user=EMAIL)
    path = "/v1/chat/completions"
    with gate.client(None) as client:
        client.post(path, json=body, headers=bearer)
        client.post(path, json={**body, "model": shown}, headers=bearer)
        client.post(path, content=shown.encode(), headers=bearer)
        client.post(path, json=body, headers={**bearer, "x-simulated-fault": "error"})
        client.post(path, json={**body, "api_key": shown})
        client.get("/v1/models", headers={"x-api-key": shown, "cookie": f"token={shown}"})
        client.get("/v1/models", headers={"apikey": shown, "user-agent": shown})
        client.get("/v1/models", headers={"Cf-Access-Jwt-Assertion": shown})
        client.get("/v1/models", headers={"authorization": f"Basic {shown}"})
        client.get(f"/v1/models/{shown}", headers=bearer)
        client.get("/v1/models", params={"api_key": shown})
        client.get(f"/nowhere/{shown}", headers=bearer)


def plant(gate: RunningGate) -> list[str]:
    """Put secrets into every input, good and bad; return what must be nowhere."""
    good, gone = gate.new_key(), auth.make("default").text
    token, renewed = in_accounts(gate)
    for shown in (good, gone, token, FOREIGN, PROVIDER):
        in_requests(gate, shown)
    with gate.client(token) as client:
        body = {"old_password": PASSWORD, "new_password": f"new-{PASSWORD}"}
        assert client.post("/v1/auth/password", json=body).status_code == 200
    keys = [key.rpartition("-")[2] for key in (good, gone, renewed)]
    tokens = [one.rpartition(".")[2] for one in (token, FOREIGN)]
    return keys + tokens + [EMAIL, PASSWORD, WRONG_PASSWORD, PROMPT, CAPTCHA, PROVIDER, ADMIN_KEY]


def those_in(path: Path, planted: list[str]) -> list[str]:
    """Return which of the planted stand in a file, cut short, and where."""
    text = path.read_text(errors="replace")
    return [f"{secret[:6]}… in {path}" for secret in planted if secret in text]


def test_no_planted_secret_is_in_anything_that_a_run_wrote(run: tuple[RunningGate, Path]) -> None:
    """Logs of gate, Serve, Ray and engines, what was printed, the audit; the store keeps hashes."""
    gate, ray = run
    password = gate.store_url().split("@")[0].rpartition(":")[2]
    planted, ours = plant(gate), [gate.engine().key, password]
    with gate.client() as admin:
        audit = admin.get("/v1/audit", params={"limit": 1000}).text
    assert "login" in audit
    assert [one for one in planted if one in audit] == []
    time.sleep(1)  # what is buffered is written
    gate.stop()
    files = [path for path in (*gate.folder.rglob("*"), *ray.rglob("*")) if path.is_file()]
    stored = [path for path in files if gate.data / "store" in path.parents]
    written = set(files) - set(stored)
    assert len(written) > 20
    assert [one for path in written for one in those_in(path, planted + ours)] == []
    names = [one for path in stored for one in those_in(path, planted)]
    assert all(one.startswith(EMAIL[:6]) for one in names)
