"""Captures at the door, on a real store: whose exchanges are kept, from when, and who may ask."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from serve_app import auth
from serve_app.ingress.exchange import Exchange
from serve_app.telemetry import Captures
from tests.ingress.admin.test_ledger import CHAT, PLAIN, House, house

__all__ = ["house"]
KEYS = "/v1/auth/api-keys"
ADMINS = ["manage_keys", "run_inference", "read_models", "use_streaming"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the house's captures lie."""
    return tmp_path / "captures"


def asked(**more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "Hello"}], **more}


async def call(house: House, method: str, path: str, shown: str | None = None, **more: Any) -> Any:
    """Ask once, as the operator or as who shows a key."""
    async with house.client(**({} if shown is None else {"key": shown})) as client:
        return await client.request(method, path, **more)


async def watch(house: House, key_id: str, minutes: int = 5, **query: str) -> None:
    path = f"{KEYS}/{key_id}/capture"
    told = await call(house, "POST", path, json={"minutes": minutes}, params=query)
    assert told.status_code == 200, told.text


async def lines(house: House, folder: Path) -> list[dict[str, Any]]:
    """Return what is in the files, once everything is written."""
    while house.gate.captures._keeping:
        await asyncio.wait(house.gate.captures._keeping)
    files = sorted(folder.glob("*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


async def test_a_watched_key_is_captured_and_no_other(house: House, folder: Path) -> None:
    """From its next request, until it is stopped; nobody else, and nothing before."""
    (key, key_id), (other, _) = await house.key(), await house.key()
    await call(house, "POST", CHAT, key, json=asked())
    assert not folder.exists()
    await watch(house, key_id)
    for shown in (key, other, PLAIN):
        told = await call(house, "POST", CHAT, shown, json=asked(user=shown[:4]))
        assert told.status_code == 503  # there is no replica
    assert (await call(house, "DELETE", f"{KEYS}/{key_id}/capture")).status_code == 204
    await call(house, "POST", CHAT, key, json=asked())
    (line,) = await lines(house, folder)
    assert line["key_id"] == key_id
    assert (line["status"], line["code"], line["model"]) == (503, "no_capacity", "m")
    assert line["request"]["body"] == asked(user=key[:4])
    assert line["reply"]["body"]["error"]["code"] == "no_capacity"
    assert line["reply"]["bytes"] == len(json.dumps(line["reply"]["body"]))
    assert ["authorization", "[redacted]"] in line["request"]["headers"]
    assert ["x-request-id", line["request_id"]] in line["reply"]["headers"]


async def test_a_capture_ends_by_itself(house: House, folder: Path) -> None:
    """By the store's clock, without anybody's help, and the key says when."""
    key, key_id = await house.key()
    await watch(house, key_id, minutes=1)
    record = house.store.hgetall(f"sg:{{t:default}}:key:{key_id}")
    ends_ms = json.loads(record["attributes"])["capture_ends_ms"]
    assert 59_000 < ends_ms - int(house.store.time()[0]) * 1_000 <= 61_000
    shown = (await call(house, "GET", f"{KEYS}/{key_id}")).json()
    assert shown["capture_ends_at"] == auth.rfc3339(ends_ms)
    past = {**json.loads(record["attributes"]), "capture_ends_ms": ends_ms - 61_000}
    house.store.hset(f"sg:{{t:default}}:key:{key_id}", "attributes", json.dumps(past))
    await call(house, "POST", CHAT, key, json=asked())
    assert await lines(house, folder) == []


async def test_no_store_call_is_spent_on_it(house: House, folder: Path) -> None:
    """The switch comes with the key's record: a watched request asks the store as often."""
    key, key_id = await house.key()

    async def steps() -> int:
        before = house.store.info("commandstats")["cmdstat_evalsha"]["calls"]
        await call(house, "GET", "/v1/models", key)
        return int(house.store.info("commandstats")["cmdstat_evalsha"]["calls"]) - before

    await steps()
    usual = await steps()
    await watch(house, key_id)
    assert await steps() == usual
    assert len(await lines(house, folder)) == 1


async def test_who_is_not_watched_is_sent_to_directly(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Off, no byte of a reply passes a second hand: the exchange sends as it was made to."""
    sends: list[bool] = []
    write = Exchange.write

    async def noted(exchange: Exchange, chunk: bytes, *, more: bool = True) -> None:
        sends.append(exchange.send is exchange_send[-1])
        await write(exchange, chunk, more=more)

    exchange_send: list[Any] = []
    routed = house.door._router

    async def seen(scope: Any, receive: Any, send: Any) -> None:
        exchange_send.append(send)
        await routed(scope, receive, send)

    monkeypatch.setattr(Exchange, "write", noted)
    monkeypatch.setattr(house.door, "_router", seen)
    key, key_id = await house.key()
    await call(house, "POST", CHAT, key, json=asked())
    await watch(house, key_id)
    await call(house, "POST", CHAT, key, json=asked())
    assert sends == [True, True, False]


async def test_mistakes_are_captured_too(house: House, folder: Path) -> None:
    """What cannot be read is what one looks for: broken JSON as it came, an unknown model, a path.

    What was never read is not there, only how the request looked.
    """
    key, key_id = await house.key()
    await watch(house, key_id)
    head = {"content-type": "application/json"}
    await call(house, "POST", CHAT, key, content=b'{"model": "m", ', headers=head)
    await call(house, "POST", CHAT, key, json=asked(model="none"))
    await call(house, "POST", CHAT, key, content=b"{}", headers={"content-type": "text/plain"})
    await call(house, "POST", "/v1/chat/completion", key, json=asked())
    found = await lines(house, folder)
    assert [one["code"] for one in found] == [
        "invalid_request", "model_not_found", "unsupported_media_type", "not_found"
    ]  # fmt: skip
    assert found[0]["request"]["body"] == '{"model": "m", '
    assert found[1]["request"]["body"]["model"] == "none"
    assert [one["request"].get("body") for one in found[2:]] == [None, None]
    assert found[3]["path"] == "/v1/chat/completion"


async def test_a_transcription_is_captured(house: House, folder: Path) -> None:
    """The form as it came, its sound as well; it used to be told as 0 bytes."""
    key, key_id = await house.key()
    await watch(house, key_id)
    files = {"file": ("a.wav", b"RIFFsound", "audio/wav")}
    path = "/v1/audio/transcriptions"
    await call(house, "POST", path, key, data={"model": "m"}, files=files)
    (line,) = await lines(house, folder)
    request, sent = line["request"], dict(line["request"]["headers"])["content-length"]
    assert request["bytes"] == int(sent)
    assert all(part in request["body"] for part in ('name="model"', "RIFFsound"))


async def test_bodies_of_other_routes_are_not_kept(house: House, folder: Path) -> None:
    """A new key, a password under a name nobody knows: of these routes only the outside is kept."""
    key, key_id = await house.key(permissions=[*ADMINS, "manage_users"])
    await watch(house, key_id)
    made = await call(house, "POST", KEYS, key, json={"name": "another"})
    assert made.status_code == 201
    body = {"name": "ada", "pasword": "correct horse battery"}
    assert (await call(house, "POST", "/v1/auth/users", key, json=body)).status_code == 400
    text = json.dumps(await lines(house, folder))
    assert made.json()["key"] not in text
    assert "correct horse" not in text
    assert [one["status"] for one in json.loads(text)] == [201, 400]


async def test_only_operators_capture(house: House) -> None:
    """Files lie on the platform's disks: a tenant's admin may neither begin nor end one."""
    admin, _ = await house.key("acme", permissions=ADMINS)
    _, key_id = await house.key("acme")
    path = f"{KEYS}/{key_id}/capture"
    refused = await call(house, "POST", path, admin, json={"minutes": 5})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
    await watch(house, key_id, tenant="acme")
    assert (await call(house, "DELETE", path, admin)).status_code == 403
    seen = (await call(house, "GET", f"{KEYS}/{key_id}", admin)).json()
    assert seen["capture_ends_at"] is not None


@pytest.mark.parametrize("minutes", [0, 61, -1, 1.5, "5", None])
async def test_a_capture_is_bounded(house: House, minutes: Any) -> None:
    """From one minute to an hour."""
    _, key_id = await house.key()
    told = await call(house, "POST", f"{KEYS}/{key_id}/capture", json={"minutes": minutes})
    assert (told.status_code, told.json()["error"]["param"]) == (400, "minutes")


async def test_a_platform_may_forbid_it(house: House, folder: Path) -> None:
    """With ``capture.max_minutes: 0`` nobody begins one, and what was begun ends."""
    key, key_id = await house.key()
    await watch(house, key_id)
    forbidding = house.gate.settings.capture.model_copy(update={"max_minutes": 0})
    house.gate.captures = Captures(folder, forbidding)
    told = await call(house, "POST", f"{KEYS}/{key_id}/capture", json={"minutes": 1})
    assert told.status_code == 400
    await call(house, "POST", CHAT, key, json=asked())
    assert await lines(house, folder) == []


async def test_there_must_be_such_a_key(house: House) -> None:
    """An unknown one is 404, to begin and to end."""
    path = f"{KEYS}/abcdefghijkl/capture"
    told = [await call(house, "POST", path, json={"minutes": 1}), await call(house, "DELETE", path)]
    assert [one.status_code for one in told] == [404, 404]


async def test_a_change_keeps_the_capture(house: House, folder: Path) -> None:
    """Rotated, renamed, limited: the key is watched until the end."""
    _, key_id = await house.key()
    await watch(house, key_id)
    await call(house, "PATCH", f"{KEYS}/{key_id}", json={"name": "renamed"})
    renewed = (await call(house, "POST", f"{KEYS}/{key_id}/rotate")).json()["key"]
    await call(house, "GET", "/v1/models", renewed)
    (line,) = await lines(house, folder)
    assert line["key_id"] == key_id
    assert line["route"] == "/v1/models"


async def test_a_disk_that_fails_answers_as_ever(house: House, folder: Path) -> None:
    """Nothing can be written; the client notices nothing."""
    key, key_id = await house.key()
    folder.write_text("in the way")
    await watch(house, key_id)
    told = await call(house, "GET", "/v1/models", key)
    assert told.status_code == 200
    while house.gate.captures._keeping:
        await asyncio.wait(house.gate.captures._keeping)
    assert house.gate.captures.lost() == 1
