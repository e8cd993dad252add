"""How a refusal looks on the wire (CONTRACT §5)."""

import inspect
import json

import pytest

from serve_app import errors
from serve_app.ingress import refusals

KINDS = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, errors.GateError)
}
TABLE = {
    "InvalidRequest": (400, "invalid_request", "invalid_request_error"),
    "UnknownTenant": (400, "unknown_tenant", "invalid_request_error"),
    "PromptTooLong": (400, "prompt_too_long", "invalid_request_error"),
    "ExceedsLimit": (400, "request_exceeds_limit", "invalid_request_error"),
    "BodyTooLarge": (413, "request_too_large", "invalid_request_error"),
    "WrongMediaType": (415, "unsupported_media_type", "invalid_request_error"),
    "NoSuchRoute": (404, "not_found", "invalid_request_error"),
    "WrongMethod": (405, "method_not_allowed", "invalid_request_error"),
    "NoSuchModel": (404, "model_not_found", "invalid_request_error"),
    "NoSuchKey": (404, "key_not_found", "invalid_request_error"),
    "NoSuchTenant": (404, "tenant_not_found", "invalid_request_error"),
    "NoSuchUser": (404, "user_not_found", "invalid_request_error"),
    "NoSuchTicket": (404, "ticket_not_found", "invalid_request_error"),
    "NoSuchResponse": (404, "response_not_found", "invalid_request_error"),
    "AlreadyExists": (409, "already_exists", "invalid_request_error"),
    "InUse": (409, "in_use", "invalid_request_error"),
    "MissingCredentials": (401, "missing_credentials", "authentication_error"),
    "InvalidKey": (401, "invalid_api_key", "authentication_error"),
    "InvalidToken": (401, "invalid_token", "authentication_error"),
    "TokenExpired": (401, "token_expired", "authentication_error"),
    "InvalidLogin": (401, "invalid_login", "authentication_error"),
    "Forbidden": (403, "permission_denied", "permission_error"),
    "ModelForbidden": (403, "model_not_allowed", "permission_error"),
    "AddressForbidden": (403, "address_not_allowed", "permission_error"),
    "TooManyAttempts": (429, "too_many_failed_attempts", "rate_limit_error"),
    "RateLimited": (429, "rate_limit_exceeded", "rate_limit_error"),
    "QuotaSpent": (429, "insufficient_quota", "rate_limit_error"),
    "QueueFull": (429, "queue_full", "rate_limit_error"),
    "QueueWaitTooLong": (429, "queue_wait_too_long", "rate_limit_error"),
    "StoreUnavailable": (503, "state_store_unavailable", "server_error"),
    "IssuerUnavailable": (503, "issuer_unavailable", "server_error"),
    "ShuttingDown": (503, "shutting_down", "server_error"),
    "QueueTimeout": (429, "queue_timeout", "rate_limit_error"),
    "QueueCancelled": (429, "queue_cancelled", "rate_limit_error"),
    "NoCapacity": (503, "no_capacity", "server_error"),
    "UpstreamFailed": (502, "upstream_failed", "server_error"),
    "UpstreamTimeout": (504, "upstream_timeout", "server_error"),
    "Internal": (500, "internal_error", "server_error"),
}


def test_the_table_is_whole() -> None:
    """Every error that can be raised has a row; those that only group others have none."""
    assert set(KINDS) - set(TABLE) == {
        "GateError",
        "Refused",
        "NotFound",
        "Unauthenticated",
        "Dropped",
    }


@pytest.mark.parametrize(("name", "row"), TABLE.items(), ids=list(TABLE))
def test_each_refusal(name: str, row: tuple[int, str, str]) -> None:
    """Status, code and type are fixed by the class, and so are the headers that it brings."""
    kind = KINDS[name]
    more = {"allow": "GET, POST"} if kind is errors.WrongMethod else {}
    err = kind("Do this.", **more)
    told = refusals.headers(err)
    assert (err.status, err.code, err.type) == row
    assert (told.get("www-authenticate") == 'Bearer realm="sluicegate"') == (err.status == 401)
    assert told.get("allow") == more.get("allow")
    assert told.get("x-refused-by") == (err.code if err.status in (429, 503) else None)
    assert "retry-after" not in told


def test_the_body() -> None:
    """OpenAI's error object, with the field at fault."""
    err = errors.InvalidRequest("'stream' must be true or false.", param="stream")
    assert refusals.body(err) == {
        "error": {
            "message": "'stream' must be true or false.",
            "type": "invalid_request_error",
            "code": "invalid_request",
            "param": "stream",
            "details": None,
        }
    }


@pytest.mark.parametrize(
    ("retry_after_s", "seconds", "milliseconds"),
    [
        (0.0, "1", "1"),
        (0.000_001, "1", "1"),
        (0.1, "1", "100"),
        (1.0, "1", "1000"),
        (1.000_1, "2", "1001"),
        (59.999, "60", "59999"),
        (3_600.0, "3600", "3600000"),
    ],
)
def test_retry_after_is_rounded_up(retry_after_s: float, seconds: str, milliseconds: str) -> None:
    """Whoever waits as told never comes too early; it is never 0."""
    told = refusals.headers(errors.RateLimited("Wait.", retry_after_s=retry_after_s))
    assert (told["retry-after"], told["retry-after-ms"]) == (seconds, milliseconds)


def test_the_scope_that_refused_is_named() -> None:
    """``x-refused-by`` names the scope if there is one, else the code."""
    err = errors.RateLimited("Wait.", refused_by="key:requests_per_minute")
    assert refusals.headers(err)["x-refused-by"] == "key:requests_per_minute"
    assert refusals.headers(errors.QueueFull("Full."))["x-refused-by"] == "queue_full"


def test_what_is_not_to_be_sent_again() -> None:
    """SDKs retry a 429 unless they are told not to: a spent quota, or a request sent away."""
    told = {name for name, kind in KINDS.items() if _is_final(kind)}
    assert told == {"QuotaSpent", "QueueCancelled"}


def _is_final(kind: type[errors.GateError]) -> bool:
    more = {"allow": "GET"} if kind is errors.WrongMethod else {}
    return refusals.headers(kind("No.", **more)).get("x-should-retry") == "false"


def test_a_broken_stream_ends_with_an_error_event() -> None:
    """One whole event that carries the body, and no end mark."""
    err = errors.UpstreamFailed('It said: "a\n\nb".')
    head, data, *rest = refusals.event(err).split(b"\n")
    assert head == b"event: error"
    assert json.loads(data.removeprefix(b"data: ")) == refusals.body(err)
    assert rest == [b"", b""]
