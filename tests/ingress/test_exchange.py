"""One request on the wire: its id, its body (CONTRACT §2, §3)."""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from serve_app.errors import BodyTooLarge, GateError, InvalidRequest, WrongMediaType
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.reading.body import MAX_DEPTH, depth
from serve_app.model_settings import Model

JSON = (b"content-type", b"application/json")
MAX_BYTES = 1_000


def exchange(
    *headers: tuple[bytes, bytes],
    parts: Iterable[bytes] = (),
    gone: bool = False,
    path: str = "/",
) -> Exchange:
    """A request that sends ``parts``, then is over, or hangs up."""
    body = list(parts)
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": part, "more_body": gone or at + 1 < len(body)}
        for at, part in enumerate(body)
    ]
    messages.append({"type": "http.disconnect"})

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(_message: Any) -> None:
        raise AssertionError("nothing is sent")

    scope = {"type": "http", "method": "POST", "path": path, "query_string": b""}
    scope["headers"] = headers
    return Exchange(scope, receive, send)


@pytest.mark.parametrize(
    ("path", "told"),
    [("/v1/messages", True), ("/api/v1/messages/count_tokens", True), ("/v1/responses", False)],
)
def test_anthropics_clients_find_the_id(path: str, told: bool) -> None:
    """They read it from `request-id`, replies and refusals alike."""
    asked = exchange((b"x-request-id", b"mine-1"), path=path)
    assert asked.headers_out.get("request-id") == ("mine-1" if told else None)


@pytest.mark.parametrize("media", [b"application/json", b"Application/JSON; charset=utf-8"])
@pytest.mark.parametrize("cut", [1, 3, 100])
async def test_a_body(media: bytes, cut: int) -> None:
    """Bytes and object come back, however the body arrives."""
    raw = ' {"a": "ü", "b": [1, null]}\n'.encode()
    parts = [raw[at : at + cut] for at in range(0, len(raw), cut)]
    asked = exchange((b"content-type", media), parts=parts)
    assert await asked.json_body(MAX_BYTES) == (raw, {"a": "ü", "b": [1, None]})


def nested(depth: int) -> bytes:
    """An object nested ``depth`` deep, lists and objects in turn."""
    value: object = 1
    for at in range(depth - 1):
        value = [value] if at % 2 else {"a": value}
    return json.dumps({"a": value}).encode()


@pytest.mark.parametrize(
    ("headers", "body", "refusal", "says"),
    [
        pytest.param([], b"{}", WrongMediaType, "application/json", id="no media type"),
        pytest.param([(b"content-type", b"text/plain")], b"{}", WrongMediaType, "'text", id="text"),
        pytest.param([JSON], b"", InvalidRequest, "not valid JSON", id="empty"),
        pytest.param([JSON], b'{"a": 1', InvalidRequest, "not valid JSON", id="cut off"),
        pytest.param([JSON], b"{} {}", InvalidRequest, "not valid JSON", id="two objects"),
        pytest.param([JSON], b"[]", InvalidRequest, "one JSON object", id="a list"),
        pytest.param([JSON], b"null", InvalidRequest, "one JSON object", id="null"),
        pytest.param([JSON], b'{"a": NaN}', InvalidRequest, "NaN is not", id="NaN"),
        pytest.param([JSON], b'{"a": -Infinity}', InvalidRequest, "-Infinity is", id="infinity"),
        pytest.param([JSON], b'{"a": "\xff"}', InvalidRequest, "not valid JSON", id="no UTF-8"),
        pytest.param([JSON], '{"a": 1}'.encode("utf-16"), InvalidRequest, "not valid", id="UTF-16"),
        pytest.param([JSON], b'\xef\xbb\xbf{"a":1}', InvalidRequest, "not valid", id="byte order"),
        pytest.param([JSON], nested(MAX_DEPTH + 1), InvalidRequest, "deeper", id="too deep"),
        pytest.param([JSON], b"[" * 900, InvalidRequest, "deeper|not valid", id="far too deep"),
        pytest.param([JSON], b" " * (MAX_BYTES + 1), BodyTooLarge, "1000 bytes", id="too large"),
        pytest.param(
            [JSON, (b"content-length", b"1001")], b"{}", BodyTooLarge, "1000 bytes", id="declared"
        ),
        pytest.param(
            [JSON, (b"content-length", b"9" * 5_000)], b"{}", BodyTooLarge, "1000", id="endless"
        ),
    ],
)
async def test_a_body_that_is_refused(headers, body: bytes, refusal, says: str) -> None:
    """Not JSON, not UTF-8, not one object, too deep or too large: refused with the reason."""
    with pytest.raises(GateError, match=says) as told:
        await exchange(*headers, parts=[body]).json_body(MAX_BYTES)
    assert told.type is refusal


async def test_the_limits_themselves_pass() -> None:
    """As deep and as large as may be is let through."""
    deep = nested(MAX_DEPTH)
    assert (await exchange(JSON, parts=[deep]).json_body(MAX_BYTES))[0] == deep
    large = b'{"a": "' + b"x" * (MAX_BYTES - 9) + b'"}'
    assert (await exchange(JSON, parts=[large]).json_body(MAX_BYTES))[0] == large


@pytest.mark.parametrize(
    ("header", "refusal"),
    [((b"content-length", b"1001"), BodyTooLarge), ((b"content-type", b"a/b"), WrongMediaType)],
)
async def test_what_the_headers_tell_is_refused_unread(header, refusal) -> None:
    """Declared too large, or as something else: not a byte is taken from the wire."""
    asked = exchange(header, *([] if header[0] == JSON[0] else [JSON]), parts=[b"{}"])
    with pytest.raises(refusal):
        await asked.json_body(MAX_BYTES)
    assert (await asked.receive())["body"] == b"{}"
    assert asked.raw == b""


async def test_a_body_too_large_is_not_read_to_its_end() -> None:
    """What follows the first byte too many stays on the wire."""
    parts = [b"x" * 600, b"x" * 600, b"the rest"]
    asked = exchange(JSON, parts=parts)
    with pytest.raises(BodyTooLarge):
        await asked.json_body(MAX_BYTES)
    assert (await asked.receive())["body"] == b"the rest"


async def test_a_client_that_leaves_while_sending() -> None:
    """It is no refusal: nobody is there to hear one."""
    with pytest.raises(ConnectionResetError):
        await exchange(JSON, parts=[b'{"a":'], gone=True).json_body(MAX_BYTES)


@pytest.mark.parametrize("given", [b"a", b"req_1.2:3-4", b"x" * 128])
def test_a_safe_request_id_is_kept(given: bytes) -> None:
    """1 to 128 safe characters are the client's choice; what settles the request is ours."""
    asked = exchange((b"x-request-id", given))
    assert asked.request_id.encode() == given
    assert asked.settle_id not in asked.request_id


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"a b", b"a\nb", b"a\xfc", b'a"', b"../x"])
def test_an_unsafe_request_id_is_replaced(given: bytes) -> None:
    """Nothing that could break a log line or a header goes on."""
    asked = exchange((b"x-request-id", given))
    assert asked.request_id.startswith("req-")
    assert asked.headers_out["x-request-id"] == asked.request_id


def test_what_the_engine_gets_of_the_headers() -> None:
    """Only names on the list pass: no credential, no address, no length."""
    asked = exchange(
        (b"x-request-id", b"r1"),
        (b"authorization", b"Bearer s3cret"),
        (b"x-api-key", b"s3cret"),
        (b"cookie", b"s3cret"),
        (b"x-forwarded-for", b"6.6.6.6"),
        (b"x-sluicegate-internal-key", b"s3cret"),
        (b"traceparent", b"00-1"),
        (b"x-simulated-fault", b"crash"),
    )
    passed = {"x-request-id": "r1", "traceparent": "00-1"}
    assert asked.passed_on(Model(name="m")) == passed
    simulated = Model(name="m", engine="simulated")
    assert asked.passed_on(simulated) == {**passed, "x-simulated-fault": "crash"}


@pytest.mark.parametrize(
    ("raw", "deep"),
    [
        pytest.param(b"[" * 100 + b"]" * 100, 100, id="lists"),
        pytest.param(b'{"a":' * 90 + b"1" + b"}" * 90, 90, id="objects"),
        pytest.param(b"[" + b"[]," * 200 + b"[]]", 2, id="wide, not deep"),
        pytest.param(b'["' + b"[" * 200 + b'"]', 1, id="brackets in a string"),
        pytest.param(b'["\\"' + b"[" * 200 + b'"]', 1, id="behind an escaped quote"),
        pytest.param(b'["' + b"[" * 200, 1, id="a string that never ends"),
        pytest.param(b"[" * 10_000_000, 10_000_000, id="ten megabytes"),
    ],
)
def test_depth_is_measured_without_parsing(raw: bytes, deep: int) -> None:
    """Brackets outside strings count, however many there are."""
    assert depth(raw) == deep
