"""One line per request, and no secret in it (CONTRACT §6)."""

import io
import json
from datetime import UTC, datetime

import pytest

from serve_app.auth import make
from serve_app.telemetry import AccessLog

KEY = make("acme").text
LINE = {
    "request_id": "req-0123456789abcdef01234567",
    "address": "127.0.0.1",
    "method": "POST",
    "route": "/v1/chat/completions",
    "status": 200,
    "code": None,
    "tenant": "acme",
    "key_id": "AbCdEfGhIjKl",
    "class": "interactive",
    "queue_ms": 0.5,
    "input_tokens": 7,
    "output_tokens": 5,
    "bytes_out": 512,
    "total_ms": 12.5,
}


def written(fields: dict[str, object]) -> dict[str, object]:
    out = io.StringIO()
    AccessLog(out).write(fields)
    (line,) = out.getvalue().splitlines()
    return json.loads(line)


def test_a_line_is_one_json_object() -> None:
    """The fields stand in it as they were given, in order, behind the time."""
    line = written(LINE)
    assert list(line) == ["time", *LINE]
    assert {name: line[name] for name in LINE} == LINE


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"request_id": KEY}, id="a key as request id"),
        pytest.param({"request_id": "eyJhbGciOiJIUzI1NiJ9.e30.x-" + KEY}, id="a JWT as request id"),
        pytest.param({"method": KEY}, id="a key as method"),
        pytest.param({"note": f"Authorization: {KEY}"}, id="a field that nobody vouched for"),
        pytest.param({"note": {"headers": [["x", KEY]]}}, id="deep in such a field"),
        pytest.param({"password": "K" + KEY[-40:]}, id="a field that is called so"),
        pytest.param({"note": ValueError(KEY)}, id="in what JSON lacks"),
    ],
)
def test_what_a_client_chooses_is_redacted(fields: dict[str, object]) -> None:
    """A key that somebody puts where a name belongs does not reach the log."""
    out = io.StringIO()
    AccessLog(out).write({**LINE, **fields})
    assert KEY[-40:] not in out.getvalue()
    assert "[redacted]" in out.getvalue()


def test_a_value_that_json_lacks_is_told_as_text() -> None:
    """No field makes a line fail."""
    at = datetime(2026, 1, 2, tzinfo=UTC)
    assert written({"at": at})["at"] == str(at)


class Full(io.StringIO):
    """A file on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_disk_refuses_nobody() -> None:
    """A line that cannot be written is lost, and the request goes on."""
    AccessLog(Full()).write(LINE)
