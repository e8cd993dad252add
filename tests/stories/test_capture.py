"""A key is captured by a gate of two gateways: all of it, and no credential (CONTRACT §6)."""

import json
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.running import ADMIN_KEY, RunningGate, chat, simulated, until

CHAT, KEYS = "/v1/chat/completions", "/v1/auth/api-keys"
PROVIDER = f"sk-proj-{secrets.token_hex(24)}"
EMAIL = f"grace.{secrets.token_hex(4)}@example.org"
PASSWORD = f"pass-{secrets.token_hex(12)}"


@pytest.fixture(scope="module")
def watching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGate]:
    """A gate with two gateways that reads a body's ``api_key``, too."""
    config = simulated()
    args = config["applications"][0]["args"]
    args["gateway"] = {"min_replicas": 2, "max_replicas": 2, "num_cpus": 0.1}
    args["auth"]["body_api_key"] = True
    folder = tmp_path_factory.mktemp("watching")
    running = RunningGate(folder, config, {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY}).start()
    try:
        yield running.ready()
    finally:
        running.end()


def watch(gate: RunningGate, key: str) -> str:
    """Capture a key for five minutes; return its id."""
    key_id = key.split("-")[2]
    with gate.client() as admin:
        told = admin.post(f"{KEYS}/{key_id}/capture", json={"minutes": 5})
    assert told.status_code == 200
    return key_id


def captured(gate: RunningGate, key_id: str, count: int) -> list[dict[str, Any]]:
    """Return the lines of a key's file, once there are so many."""

    def told() -> list[str]:
        lines = [line for path in files(gate, key_id) for line in path.read_text().splitlines()]
        return lines if len(lines) >= count else []

    return [json.loads(line) for line in until(told, 10, "a capture")]


def files(gate: RunningGate, key_id: str) -> list[Path]:
    return sorted((gate.data / "captures").glob(f"{key_id}-*.jsonl"))


def test_a_key_is_captured_whole(watching: RunningGate) -> None:
    """On both gateways from the next request: what was asked and answered, a stream as it came."""
    key = watching.new_key()
    with watching.client(key) as client:
        assert client.post(CHAT, json=chat("before")).status_code == 200
        key_id = watch(watching, key)
        whole = [client.post(CHAT, json=chat(f"whole {n}")) for n in range(8)]
        stream = client.post(CHAT, json=chat("streamed", stream=True))
        with client.stream("POST", CHAT, json=chat("left", stream=True, max_tokens=500)) as left:
            next(left.iter_bytes())
        lines = captured(watching, key_id, 10)
        with watching.client() as admin:
            assert admin.delete(f"{KEYS}/{key_id}/capture").status_code == 204
            audit = admin.get("/v1/audit", params={"target": key_id}).json()["data"]
        for _ in range(4):
            assert client.post(CHAT, json=chat("after")).status_code == 200
    asked = {one["request"]["body"]["messages"][0]["content"]: one for one in lines}
    assert asked.keys() == {*(f"whole {n}" for n in range(8)), "streamed", "left"}
    for n, reply in enumerate(whole):
        line = asked[f"whole {n}"]
        assert line["reply"]["body"] == reply.json()
        assert line["request"]["body"] == chat(f"whole {n}")
        assert line["request_id"] == reply.headers["x-request-id"]
        assert (line["status"], line["output_tokens"]) == (200, 8)
    assert asked["streamed"]["reply"]["body"] == stream.text
    assert asked["streamed"]["reply"]["bytes"] == len(stream.content)
    assert asked["left"]["code"] == "client_gone"
    assert asked["left"]["reply"]["body"].startswith("data: ")
    assert [one["action"] for one in audit][-2:] == ["capture.start", "capture.stop"]
    assert "after" not in json.dumps(captured(watching, key_id, 10))


def test_nobody_else_reads_it(watching: RunningGate) -> None:
    """The folder and its files are their owner's."""
    key = watching.new_key()
    key_id = watch(watching, key)
    with watching.client(key) as client:
        client.get("/v1/models")
    captured(watching, key_id, 1)
    (file,) = files(watching, key_id)
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_no_planted_secret_is_in_it(watching: RunningGate) -> None:
    """In each header, in the URL, in bodies whole and broken, in the prompt and its echo."""
    key = watching.new_key()
    key_id, tail = watch(watching, key), key.rpartition("-")[2]
    body = chat(f"{key} {PROVIDER} {EMAIL}", user=EMAIL, password=PASSWORD)
    pair = {"CF-Access-Client-Id": f"{key_id}.access", "CF-Access-Client-Secret": tail}
    with watching.client(None) as client:
        bearer = {"authorization": f"Bearer {key}"}
        shown: list[dict[str, str]] = [
            {**bearer, "user-agent": key, "referer": f"http://x/?token={PASSWORD}"},
            {"x-api-key": key, "cookie": f"session={PASSWORD}"},
            {"apikey": key, "proxy-authorization": f"Basic {PASSWORD}"},
            {**pair, "x-note": tail},
        ]
        for headers in shown:
            client.post(CHAT, json=body, headers=headers)
            client.post(CHAT, json={**body, "stream": True}, headers=headers)
        client.post(CHAT, json={**body, "api_key": key})
        client.post(CHAT, json={**body, "api_key": key, "model": key})
        client.post(CHAT, json=body, headers=bearer, params={"api_key": key, "key": PASSWORD})
        client.get(f"/v1/models/{key}", headers=bearer)
        broken = json.dumps({"api_key": key, "password": PASSWORD}).encode()[:-3]
        json_ = {"content-type": "application/json"}
        client.post(CHAT, content=broken, headers={**bearer, **json_})
    lines = captured(watching, key_id, 13)
    assert len(lines) == 13
    text = json.dumps(lines)
    planted = (key, tail, PROVIDER, EMAIL, PASSWORD, ADMIN_KEY, watching.engine().key)
    assert [one[:6] for one in planted if one in text] == []
    assert text.count("[redacted]") > 40
