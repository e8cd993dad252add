"""What a whole gate answers is what its document says (CONTRACT §2, §5)."""

from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from serve_app.ingress import TABLE
from serve_app.ingress.docs.openapi import document
from tests.running import RunningGate, chat

DOCUMENT = document(TABLE)
CHAT, KEYS = "/v1/chat/completions", "/v1/auth/api-keys"
SOMETIMES = {f"x-ratelimit-{what}-tokens" for what in ("limit", "remaining", "reset")}
SOMETIMES |= {"x-ratelimit-shadow", "x-output-cap"}
"""Headers that a reply carries where there is such a limit."""


def mistakes(path: str, told: httpx.Response) -> list[str]:
    """Return where ``told`` differs from what the document says of ``path``: nowhere, one hopes."""
    operation = DOCUMENT["paths"][path][told.request.method.lower()]
    reply = operation["responses"][str(told.status_code)]
    if "$ref" in reply:
        reply = DOCUMENT["components"]["responses"][reply["$ref"].rpartition("/")[2]]
    always = reply["headers"].keys() - SOMETIMES
    found = [f"no header {name}" for name in always if name not in told.headers]
    if "content" not in reply:
        return found + (["a body"] if told.content else [])
    content = reply["content"][told.headers["content-type"].partition(";")[0]]
    if "examples" in content and told.json()["error"]["code"] not in content["examples"]:
        found.append(told.json()["error"]["code"])
    schema = {**content["schema"], "components": DOCUMENT["components"]}
    body = told.text if content["schema"].get("type") == "string" else told.json()
    for mistake in Draft202012Validator(schema).iter_errors(body):
        found.append(f"{mistake.json_path}: {mistake.message}")
    return found + [f"untold: {name}" for name in untold(schema, body)]


def untold(schema: dict[str, Any], body: Any) -> set[str]:
    """Return the members of ``body`` that its schema does not name, unless they are an engine's."""
    name = schema.get("$ref", "").rpartition("/")[2]
    shape = DOCUMENT["components"]["schemas"].get(name, schema)
    if "properties" not in shape or shape.get("additionalProperties"):
        return set()
    return set(body) - set(shape["properties"])


@pytest.mark.parametrize(
    "path", ["/health", "/health/live", "/health/ready", "/v1/models", "/v1/usage"]
)
def test_what_is_read_is_as_told(gate: RunningGate, path: str) -> None:
    """Each reply has the shape and the headers of the document, and no member beyond."""
    with gate.client() as client:
        told = client.get(path)
    assert told.status_code == 200
    assert mistakes(path, told) == []


def test_a_model_is_as_told(gate: RunningGate) -> None:
    """One model, and the refusal for one that is not there."""
    with gate.client() as client:
        for name, status in (("smollm2-135m", 200), ("no/such", 404)):
            told = client.get(f"/v1/models/{name}")
            assert (told.status_code, mistakes("/v1/models/{model}", told)) == (status, [])


def test_a_key_is_as_told(gate: RunningGate) -> None:
    """A key made by the document's own example, listed, revoked; and then no longer there."""
    example = DOCUMENT["paths"][KEYS]["post"]["requestBody"]["content"]["application/json"]
    with gate.client() as admin:
        made = admin.post(KEYS, json=example["example"])
        listed = admin.get(KEYS, params={"limit": 1})
        where = f"{KEYS}/{made.json()['id']}"
        gone = [admin.delete(where) for _ in range(2)]
    assert [one.status_code for one in (made, listed, *gone)] == [201, 200, 204, 404]
    assert mistakes(KEYS, made) + mistakes(KEYS, listed) == []
    assert [mistakes(KEYS + "/{key_id}", one) for one in gone] == [[], []]


def test_an_answer_is_as_told(gate: RunningGate) -> None:
    """An engine's answer, whole and streamed, by the document's own example."""
    for path in (CHAT, "/v1/completions", "/completions"):
        operation = DOCUMENT["paths"][path]["post"]
        example = operation["requestBody"]["content"]["application/json"]["example"]
        with gate.client() as client:
            for body in (example, {**example, "stream": True}):
                told = client.post(path, json=body)
                assert (told.status_code, mistakes(path, told)) == (200, [])


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param({"json": chat(), "headers": {"authorization": "Bearer x"}}, 401, id="key"),
        pytest.param({"json": chat(stream="yes")}, 400, id="field"),
        pytest.param({"json": {**chat(), "model": "none"}}, 404, id="model"),
        pytest.param({"content": b"{}"}, 415, id="media type"),
        pytest.param({"content": b"x" * 11_000_000}, 413, id="size"),
    ],
)
def test_a_refusal_is_as_told(gate: RunningGate, request_: dict[str, Any], status: int) -> None:
    """Each refusal is one that the document names for the route, with its headers."""
    if status == 413:
        request_ = {**request_, "headers": {"content-type": "application/json"}}
    with gate.client() as client:
        told = client.post(CHAT, **request_)
    assert (told.status_code, mistakes(CHAT, told)) == (status, [])


def test_a_used_up_rate_is_as_told(gate: RunningGate) -> None:
    """429 brings the time to wait and who refused."""
    key = gate.new_key(limits={"requests_per_minute": 1})
    with gate.client(key) as client:
        for status in (200, 429):
            told = client.post(CHAT, json=chat())
            assert (told.status_code, mistakes(CHAT, told)) == (status, [])
