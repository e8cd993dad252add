"""Turn a refusal into a reply: status, body in its dialect's shape, headers that clients obey."""

import json
import math
from typing import Any

from serve_app.errors import GateError, QueueCancelled, QuotaSpent, Unauthenticated, WrongMethod
from serve_app.ingress.reading.dialects import dialect_of
from serve_app.redaction import redacted

SERVER_ERROR = 500
_OTHERS = ("api_error", "invalid_request_error")
_ANTHROPIC = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def body(err: GateError, path: str = "") -> dict[str, Any]:
    """Return the error object of a reply to ``path``, in the shape that its clients read."""
    if _shape(path) == "anthropic":
        kind = _ANTHROPIC.get(err.status, _OTHERS[err.status < SERVER_ERROR])
        return {"type": "error", "error": {"type": kind, "message": redacted(str(err))}}
    return {
        "error": {
            "message": redacted(str(err)),
            "type": err.type,
            "code": err.code,
            "param": err.param,
            "details": err.details,
        }
    }


def headers(err: GateError) -> dict[str, str]:
    """Return the headers that tell a client what to do next."""
    told: dict[str, str] = {}
    if err.retry_after_s is not None:
        told["retry-after"] = str(max(1, math.ceil(err.retry_after_s)))
        told["retry-after-ms"] = str(max(1, math.ceil(err.retry_after_s * 1_000)))
    if err.status in (429, 503):
        told["x-refused-by"] = err.refused_by
    if isinstance(err, QuotaSpent | QueueCancelled):
        told["x-should-retry"] = "false"
    if isinstance(err, Unauthenticated):
        told["www-authenticate"] = 'Bearer realm="sluicegate"'
    if isinstance(err, WrongMethod):
        told["allow"] = err.allow
    return told


def event(err: GateError, path: str = "", number: int = 0) -> bytes:
    """Return the event that ends a broken stream; no end mark follows.

    What headers would have told of a refusal stands in its details.

    Args:
        err: why it broke.
        path: whose stream it is.
        number: of the event, where a dialect numbers them.
    """
    told = body(err, path)
    if err.retry_after_s is not None:
        details = told["error"].get("details") or {}
        told["error"]["details"] = {**details, "retry_after_s": round(err.retry_after_s, 3)}
    if _shape(path) == "responses":
        said = {name: told["error"][name] for name in ("code", "message", "param")}
        told = {"type": "error", "sequence_number": number, **said, **told}
    return b"event: error\ndata: " + json.dumps(told).encode() + b"\n\n"


def _shape(path: str) -> str:
    """Return whose shape the clients of ``path`` read; of one that is nobody's, OpenAI's."""
    dialect = dialect_of(path)
    return "openai" if dialect is None else dialect.errors
