"""The request page, from outside, behind both proxies, on the simulated engine."""

import json
import threading

import httpx
import openai
import pytest

from serve_app import auth
from serve_app.store import keys
from tests.running import ADMIN_KEY, RunningGate, chat, until


def test_a_chat_is_answered(any_gate: RunningGate) -> None:
    """A caller with a key gets the engine's answer, with the headers that tell about it."""
    with any_gate.client(any_gate.new_key()) as client:
        told = client.post("/v1/chat/completions", json=chat())
    assert told.status_code == 200
    assert told.json()["usage"]["completion_tokens"] == 8
    assert told.headers["x-served-class"] == "standard"
    assert float(told.headers["x-queue-time-ms"]) >= 0
    assert told.headers["x-ratelimit-remaining-requests"] == "599"
    assert len(told.headers.get_list("x-request-id")) == 1


@pytest.mark.parametrize("prefix", ["", "/api"])
def test_a_stream_comes_in_frames_and_ends_with_done(any_gate: RunningGate, prefix: str) -> None:
    """Frames pass as they come; the usage frame stays here unless it was asked for."""
    for asked, choices in ((False, 0), (True, 1)):
        body = chat(stream=True, **({"stream_options": {"include_usage": True}} if asked else {}))
        path = f"{prefix}/v1/chat/completions"
        with any_gate.client() as client, client.stream("POST", path, json=body) as told:
            lines = [line[6:] for line in told.iter_lines() if line]
        assert lines[-1] == "[DONE]"
        empty = [line for line in lines[:-1] if not json.loads(line)["choices"]]
        assert len(empty) == choices


@pytest.mark.parametrize(
    ("key", "code"),
    [
        pytest.param(None, "missing_credentials", id="none"),
        pytest.param("nonsense", "invalid_api_key", id="malformed"),
        pytest.param(
            "sg-default-AAAAAAAAAAAA-" + "0" * 43 + "000000", "invalid_api_key", id="checksum"
        ),
    ],
)
def test_who_is_unknown_stays_outside(any_gate: RunningGate, key: str | None, code: str) -> None:
    """No key, or a bad one: 401 with the mend, on every route that needs a caller."""
    with any_gate.client(key) as client:
        for told in (
            client.get("/v1/models"),
            client.post("/v1/chat/completions", json=chat()),
            client.get("/v1/auth/api-keys"),
        ):
            assert (told.status_code, told.json()["error"]["code"]) == (401, code)
            assert "Bearer" in told.headers["www-authenticate"]


def test_a_revoked_key_is_refused_at_its_next_request(any_gate: RunningGate) -> None:
    """Revocation has no lag."""
    key = any_gate.new_key()
    with any_gate.client(key) as caller, any_gate.client() as admin:
        assert caller.get("/v1/models").status_code == 200
        assert admin.delete(f"/v1/auth/api-keys/{key.split('-')[2]}").status_code == 204
        assert caller.get("/v1/models").status_code == 401
        assert admin.delete(f"/v1/auth/api-keys/{key.split('-')[2]}").status_code == 404


def test_keys_are_listed_page_by_page(gate: RunningGate) -> None:
    """Every key is listed once, oldest first, and no secret with it."""
    made = [gate.new_key(tenant="default").split("-")[2] for _ in range(5)]
    seen, after = [], ""
    with gate.client() as admin:
        while after is not None:
            page = admin.get("/v1/auth/api-keys", params={"limit": 2, "after": after}).json()
            seen += [record["id"] for record in page["data"]]
            assert all("key" not in record and "sha256" not in record for record in page["data"])
            after = page["after"]
    assert [one for one in seen if one in made] == made
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize(
    ("request_body", "param"),
    [
        pytest.param({}, "name", id="no name"),
        pytest.param({"name": "x", "permissions": ["fly"]}, "permissions", id="no such permission"),
        pytest.param(
            {"name": "x", "limits": {"requests_per_minute": -1}},
            "limits.requests_per_minute",
            id="negative",
        ),
        pytest.param(
            {"name": "x", "limits": {"requests_per_minute": 1.5}},
            "limits.requests_per_minute",
            id="half a request",
        ),
        pytest.param({"name": "x", "tenant": "nobody"}, "tenant", id="no such tenant"),
        pytest.param({"name": "x", "colour": "red"}, "colour", id="unknown field"),
    ],
)
def test_a_wrong_key_request_names_its_field(gate: RunningGate, request_body, param: str) -> None:
    """400, and the field at fault."""
    with gate.client() as admin:
        told = admin.post("/v1/auth/api-keys", json=request_body)
    assert told.status_code == 400
    assert told.json()["error"]["param"].startswith(param)


def test_a_key_may_do_what_it_was_given_and_no_more(gate: RunningGate) -> None:
    """Permissions and models bind; a key cannot give what it does not hold."""
    reader = gate.new_key(permissions=["read_models"])
    with gate.client(reader) as client:
        assert client.get("/v1/models").status_code == 200
        told = client.post("/v1/chat/completions", json=chat())
        assert (told.status_code, told.json()["error"]["code"]) == (403, "permission_denied")
        assert client.post("/v1/auth/api-keys", json={"name": "x"}).status_code == 403


def test_the_limit_is_exact_and_says_when_to_come_again(gate: RunningGate) -> None:
    """Three a minute: three pass at once, the fourth is told a true wait; refusals cost nothing."""
    key = gate.new_key(limits={"requests_per_minute": 3})
    with gate.client(key) as client:
        told = [client.post("/v1/chat/completions", json=chat()) for _ in range(5)]
        wrong = client.post("/v1/chat/completions", json={"model": "nope"})
    assert [one.status_code for one in told] == [200, 200, 200, 429, 429]
    assert told[3].json()["error"]["code"] == "rate_limit_exceeded"
    assert told[3].headers["x-refused-by"] == "key:requests_per_minute"
    assert 0 < int(told[3].headers["retry-after"]) <= 20
    assert int(told[4].headers["retry-after-ms"]) <= int(told[3].headers["retry-after-ms"])
    assert wrong.status_code == 404, "a mistake is told before the limit, and costs nothing"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param(b"{", 400, "invalid_request", id="no JSON"),
        pytest.param(b"[]", 400, "invalid_request", id="no object"),
        pytest.param(b'{"model": 1}', 400, "invalid_request", id="model is a number"),
        pytest.param(b'{"model": NaN}', 400, "invalid_request", id="NaN"),
        pytest.param(b"[" * 200_000, 400, "invalid_request", id="deep"),
        pytest.param(b'{"model": "nope"}', 404, "model_not_found", id="no such model"),
        pytest.param(b"x" * 11_000_000, 413, "request_too_large", id="too large"),
    ],
)
def test_bad_input_is_told_and_costs_nothing(gate: RunningGate, body, status, code) -> None:
    """A clear error in OpenAI's shape; the limit is untouched."""
    key = gate.new_key()
    with gate.client(key) as client:
        json_type = {"content-type": "application/json"}
        told = client.post("/v1/chat/completions", content=body, headers=json_type)
        after = client.post("/v1/chat/completions", json=chat())
    assert (told.status_code, told.json()["error"]["code"]) == (status, code)
    assert "Traceback" not in told.text
    assert after.headers["x-ratelimit-remaining-requests"] == "599"


def test_a_body_that_is_not_json_is_415(gate: RunningGate) -> None:
    """The media type is checked before the body."""
    with gate.client() as client:
        told = client.post("/v1/chat/completions", content=b"{}", headers={"content-type": "a/b"})
    assert told.status_code == 415


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nope", 404),
        ("GET", "/", 404),
        ("PUT", "/v1/models", 405),
        ("GET", "/v1/chat/completions", 405),
    ],
)
def test_unknown_paths_and_methods_are_refused_in_our_shape(
    any_gate: RunningGate, method: str, path: str, status: int
) -> None:
    """404 and 405 carry the error object; 405 says what is allowed."""
    with any_gate.client() as client:
        told = client.request(method, path)
    assert told.status_code == status
    assert set(told.json()["error"]) == {"message", "type", "code", "param", "details"}
    assert (status == 405) == ("allow" in told.headers)


def test_an_upstream_error_passes_in_its_own_words(gate: RunningGate) -> None:
    """What the engine refuses, it refuses itself."""
    with gate.client() as client:
        told = client.post("/v1/chat/completions", json=chat(max_tokens=-1))
    assert told.status_code == 400
    assert "max_tokens" in told.json()["error"]["message"]


@pytest.mark.parametrize("before", [0, 1, 2, 3, 4])
def test_a_hang_up_on_a_connection_in_use_is_seen(any_gate: RunningGate, before: int) -> None:
    """HAProxy's kernel splicing missed the leaving of a client whose connection was not new."""
    at = any_gate.engine()
    with any_gate.client() as client:
        for _ in range(before):
            client.get("/v1/models")
        with pytest.raises(httpx.TimeoutException):
            client.post("/v1/chat/completions", json=chat(max_tokens=1_500), timeout=0.4)
    until(lambda: any_gate.gauge("num_requests_running", at) == 0, 10, "the abort")


@pytest.mark.parametrize("stream", [True, False])
def test_a_hang_up_aborts_the_work(any_gate: RunningGate, stream: bool) -> None:
    """Whoever leaves costs nothing more: the engine stops, the seat is free."""
    body = chat(max_tokens=1_500, stream=stream)
    at = any_gate.engine()
    with any_gate.client() as client:
        if stream:
            with client.stream("POST", "/v1/chat/completions", json=body) as told:
                lines = told.iter_lines()  # kept: a forgotten iterator closes the reply
                next(lines)
                until(lambda: any_gate.gauge("num_requests_running", at) == 1, 10, "the work")
        else:
            with pytest.raises(httpx.TimeoutException):
                client.post("/v1/chat/completions", json=body, timeout=1)
    until(lambda: any_gate.gauge("num_requests_running", at) == 0, 10, "the abort")
    with any_gate.redis() as store:
        until(lambda: not store.hlen(keys.line("smollm2-135m")[5]), 10, "the seat back")


def test_usage_is_written_once_from_the_engines_own_count(gate: RunningGate) -> None:
    """Unary and stream: what the engine says is what is written, per key and model."""
    key = gate.new_key()
    with gate.client(key) as client:
        told = client.post("/v1/chat/completions", json=chat("one two three")).json()["usage"]
        client.post("/v1/chat/completions", json=chat("one two three", stream=True))

    def written() -> dict[str, str]:
        with gate.redis() as store:
            names = store.keys(f"sg:{{t:default}}:usage:{key.split('-')[2]}:*")
            found = store.hgetall(names[0]) if names else {}
        own = "smollm2-135m\tstandard\t"
        return {name.removeprefix(own): count for name, count in found.items()}

    until(lambda: written().get("requests") == "2", 10, "both settled")
    assert written()["input_tokens"] == str(2 * told["prompt_tokens"])
    assert written()["output_tokens"] == str(2 * told["completion_tokens"])


def test_more_than_the_seats_wait_their_turn(gate: RunningGate) -> None:
    """Eight seats, twenty callers: all are served, some waited, the engine never held more."""
    key, waited = gate.new_key(), []

    def ask() -> None:
        with gate.client(key) as client:
            told = client.post("/v1/chat/completions", json=chat(max_tokens=20))
            waited.append((told.status_code, float(told.headers["x-queue-time-ms"])))

    callers = [threading.Thread(target=ask) for _ in range(20)]
    for caller in callers:
        caller.start()
    most = 0.0
    at = gate.engine()
    while any(caller.is_alive() for caller in callers):
        most = max(most, gate.gauge("num_requests_running", at))
    assert [status for status, _ in waited] == [200] * 20
    assert sum(ms > 0 for _, ms in waited) >= 8
    assert most <= 8


def test_a_replica_that_fails_before_its_first_byte_is_asked_again(gate: RunningGate) -> None:
    """The only replica fails thrice: 502 with Retry-After, the request is given back."""
    key = gate.new_key(limits={"requests_per_minute": 5})
    with gate.client(key) as client:
        fault = {"x-simulated-fault": "error"}
        told = client.post("/v1/chat/completions", json=chat(), headers=fault)
        after = client.post("/v1/chat/completions", json=chat())
    assert (told.status_code, told.json()["error"]["code"]) == (502, "upstream_failed")
    assert "retry-after" in told.headers
    assert after.headers["x-ratelimit-remaining-requests"] == "4"


def test_a_stream_that_breaks_ends_with_an_error_and_no_done(any_gate: RunningGate) -> None:
    """After the first byte there is no second try: the client is told, and never 'done'."""
    with any_gate.client() as client:
        fault = {"x-simulated-fault": "break"}
        body = chat(stream=True)
        with client.stream("POST", "/v1/chat/completions", json=body, headers=fault) as told:
            text = "".join(told.iter_text())
    assert "upstream_failed" in text
    assert "[DONE]" not in text


def test_the_official_client_reads_models_chats_and_streams(any_gate: RunningGate) -> None:
    """The openai package works unchanged, and sees its own exceptions."""
    client = any_gate.openai()
    assert [model.id for model in client.models.list()] == ["smollm2-135m"]
    told = client.chat.completions.create(**chat())
    assert told.choices[0].message.content
    parts = [
        part.choices[0].delta.content
        for part in client.chat.completions.create(**chat(stream=True))
    ]
    assert "".join(part or "" for part in parts) == told.choices[0].message.content
    with pytest.raises(openai.AuthenticationError, match="not valid"):
        any_gate.openai("sk-wrong").models.list()
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**{**chat(), "model": "nope"})


def test_the_true_address_arrives_and_a_forged_one_does_not(any_gate: RunningGate) -> None:
    """Behind our HAProxy and Serve's proxy the log names the TCP peer, whatever a client claims."""
    with any_gate.client() as client:
        client.get("/v1/models", headers={"x-forwarded-for": "6.6.6.6", "x-request-id": "forged"})
        client.get("/v1/models", headers={"x-request-id": "plain"})

    def seen() -> dict[str, str]:
        return {line["request_id"]: line["address"] for line in any_gate.access_lines()}

    until(lambda: {"forged", "plain"} <= seen().keys(), 20, "the log lines")
    assert seen()["forged"] == seen()["plain"] == "127.0.0.1"


def test_no_key_stands_in_any_log(gate: RunningGate) -> None:
    """Keys shown in requests are in no file that the gate writes."""
    key = gate.new_key()
    with gate.client(key) as client:
        client.post("/v1/chat/completions", json=chat("a secret prompt"))
        client.get("/v1/models", headers={"x-api-key": "another"})
    secrets = [key.rpartition("-")[2], ADMIN_KEY, "a secret prompt", gate.engine().key]
    for file in (gate.data / "logs").iterdir():
        text = file.read_text(errors="replace")
        assert not [secret for secret in secrets if secret in text], file.name


def test_the_engines_port_refuses_every_path_without_the_key(any_gate: RunningGate) -> None:
    """The child's port is no side door."""
    at = any_gate.engine()
    for path in ("/health", "/metrics", "/v1/models", "/v1/chat/completions", "/docs", "/version"):
        for headers in ({}, {"x-sluicegate-internal-key": "wrong"}):
            assert httpx.get(at.url + path, headers=headers).status_code == 401
            assert httpx.post(at.url + path, headers=headers, json={}).status_code == 401


def test_who_leaves_while_an_engine_works_has_used_a_request(gate: RunningGate) -> None:
    """Hanging up before the first byte is no way around the limit."""
    key = gate.new_key(limits={"requests_per_minute": 1})
    with gate.client(key) as client:
        with pytest.raises(httpx.TimeoutException):
            client.post("/v1/chat/completions", json=chat(max_tokens=1_500), timeout=1)
        until(lambda: gate.gauge("num_requests_running") == 0, 10, "the abort")
        assert client.post("/v1/chat/completions", json=chat()).status_code == 429


def test_a_large_body_is_not_read_for_a_stranger(gate: RunningGate) -> None:
    """A key that is well formed but unknown is refused before its ten megabytes are parsed."""
    stranger = auth.make("default").text
    body = b'{"model": "smollm2-135m", "x": "' + b"a" * 200_000 + b'"}'
    with gate.client(stranger) as client:
        json_type = {"content-type": "application/json"}
        told = client.post("/v1/chat/completions", content=body, headers=json_type)
    assert (told.status_code, told.json()["error"]["code"]) == (401, "invalid_api_key")
    with gate.client(gate.new_key()) as client:
        told = client.post("/v1/chat/completions", content=body, headers=json_type)
    assert told.status_code == 400, "a caller we know hears what is wrong with it"


def test_a_tenants_admin_cannot_touch_the_operators_key(gate: RunningGate) -> None:
    """A key with manage_keys sees and revokes its tenant's keys, and no operator's."""
    operators = gate.made_operator()
    tenants = gate.new_key(permissions=["manage_keys"])
    with gate.client(tenants) as client:
        listed = client.get("/v1/auth/api-keys", params={"limit": 1000}).json()["data"]
        assert operators not in [record["id"] for record in listed]
        assert client.delete(f"/v1/auth/api-keys/{operators}").status_code == 404


@pytest.mark.parametrize("rubbish", ["<script>", "a" * 129, "two words", auth.make("x").text])
def test_a_rubbish_request_id_is_replaced_once(any_gate: RunningGate, rubbish: str) -> None:
    """It comes back neither as it was nor beside the new one; a safe one is kept."""
    with any_gate.client() as client:
        told = client.get("/v1/models", headers={"x-request-id": rubbish})
        kept = client.get("/v1/models", headers={"x-request-id": "mine-1"})
    (replaced,) = told.headers.get_list("x-request-id")
    assert rubbish not in replaced
    assert kept.headers.get_list("x-request-id") == ["mine-1"]
