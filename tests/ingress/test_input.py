"""Each sentence of CONTRACT §3 at the door, on a real store: refused as told, and nothing spent."""

import json
from typing import Any

import pytest

from serve_app.auth import Authenticator
from serve_app.settings import Settings
from tests.ingress.admin.test_ledger import ARGS, CHAT, House, house

__all__ = ["house"]
JSON = {"content-type": "application/json"}
LIMITS = {"requests_per_minute": 60, "tokens_per_minute": 6_000, "requests_per_day": 100}


def asked(**more: Any) -> bytes:
    messages = [{"role": "user", "content": "Hello"}]
    return json.dumps({"model": "m", "messages": messages, **more}).encode()


SENTENCES = [
    pytest.param(asked(), {"content-type": "text/plain"}, 415, "unsupported_media_type", id="type"),
    pytest.param(asked(), {"content-type": ""}, 415, "unsupported_media_type", id="no type"),
    pytest.param(
        asked(),
        {"content-type": "multipart/form-data; boundary=x"},
        415,
        "unsupported_media_type",
        id="multipart",
    ),
    pytest.param(b"x" * 10_485_761, JSON, 413, "request_too_large", id="a byte too many"),
    pytest.param(
        asked(messages=[{"content": "x" * 10_001}]), JSON, 400, "prompt_too_long", id="characters"
    ),
    pytest.param(asked(x=json.loads("[" * 64 + "]" * 64)), JSON, 400, "invalid_request", id="deep"),
    pytest.param(asked() + asked(), JSON, 400, "invalid_request", id="two objects"),
    pytest.param(b"[" + asked() + b"]", JSON, 400, "invalid_request", id="a list"),
    pytest.param(b"", JSON, 400, "invalid_request", id="nothing"),
    pytest.param(asked(temperature=float("nan")), JSON, 400, "invalid_request", id="NaN"),
    pytest.param(asked(model="none"), JSON, 404, "model_not_found", id="no such model"),
    pytest.param(asked(model="n"), JSON, 403, "model_not_allowed", id="not its model"),
    pytest.param(asked(stream=True), JSON, 403, "permission_denied", id="no streams"),
    pytest.param(asked(stream="yes"), JSON, 400, "invalid_request", id="a wrong type"),
    pytest.param(asked(), JSON | {"x-priority": "none"}, 400, "invalid_request", id="no class"),
]


@pytest.mark.parametrize(("body", "headers", "status", "code"), SENTENCES)
async def test_what_may_not_be_asked_is_refused_and_costs_nothing(
    house: House, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    """Of no limit of the key: not a request, not a token, neither a minute's nor a day's."""
    key, _ = await house.key(models=["m"], permissions=["run_inference"], limits=LIMITS)
    async with house.client(key) as client:
        told = await client.post(CHAT, content=body, headers=headers)
        left = (await client.get("/v1/auth/whoami")).json()["limits"]
    assert (told.status_code, told.json()["error"]["code"]) == (status, code)
    assert {one["limit"]: one["remaining"] for one in left} == LIMITS


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","api_key":"KEY","api_key":"KEY"}',
        b'{"model":"m","api_key":"KEY","api\\u005fkey":"other"}',
    ],
)
async def test_a_credential_may_not_stand_twice(house: House, body: bytes) -> None:
    """Neither in the body, in whatever spelling, nor in two headers that differ: 400."""
    key, _ = await house.key()
    settings = Settings.from_args({**ARGS, "auth": {"body_api_key": True}})
    identity = house.gate.identity
    static, issuers = identity.authenticator._static, identity.issuers
    identity.authenticator = Authenticator(settings.auth, static, issuers)
    async with house.client(None) as client:
        sent = body.replace(b"KEY", key.encode())
        twice = await client.post(CHAT, content=sent, headers=JSON)
        both = {**JSON, "x-api-key": key, "authorization": f"Bearer {key[:-1]}x"}
        two = await client.post(CHAT, content=asked(), headers=both)
    for told in (twice, two):
        assert (told.status_code, told.json()["error"]["code"]) == (400, "invalid_request")
