"""What each route takes and gives, for the document: one row per route, whatever its entry tells.

The entry in :mod:`serve_app.ingress.routes` tells method, path, permission and handler; the first
line of the handler's docstring is the route's sentence, and the errors under ``Raises`` are among
its refusals. A row adds what neither can tell. A route without a row fails a test.
"""

from collections.abc import Mapping
from typing import Any

from serve_app import auth, errors
from serve_app.ingress.admin.adapters import AdapterRequest
from serve_app.ingress.docs import shapes
from serve_app.ingress.docs import shapes_admin as admin
from serve_app.ingress.docs import shapes_engine as engine
from serve_app.ingress.docs import shapes_queue as queue
from serve_app.ingress.docs import shapes_usage as usage
from serve_app.ingress.docs.described_engine import ENGINES
from serve_app.ingress.docs.row import CSV, HTML, JSON, JSONL, STREAM, TEXT, Described

_KEEPERS = (errors.ModelForbidden, errors.UpstreamFailed, errors.UpstreamTimeout)
_LOGIN = {"username": "ada", "password": "…"}
_LOGIN_REFUSALS = (errors.InvalidLogin, errors.TooManyAttempts, errors.RateLimited)
_GIVING = (errors.UnknownTenant, errors.Forbidden, errors.ModelForbidden, errors.AddressForbidden)
_CAPTURING = (errors.InUse,)
_LIMITS = {"requests_per_minute": {"limit": 60, "burst": 10}, "tokens_per_day": 1_000_000}
_KEY = {"name": "ci", "limits": _LIMITS, "over_limit": "wait", "expires_in_days": 90}
_TENANT_LIMITS = {"cost_per_month": 250, "models": {"smollm2-135m": {"concurrency": 16}}}

DESCRIBED: Mapping[tuple[str, str], Described] = {
    ("GET", "/health"): Described(shapes.Alive),
    ("GET", "/health/live"): Described(shapes.Alive),
    ("GET", "/health/ready"): Described(shapes.Readiness, otherwise={503: shapes.Readiness}),
    ("GET", "/metrics"): Described(str, media=(TEXT,)),
    ("GET", "/openapi.json"): Described(dict[str, Any]),
    ("GET", "/docs"): Described(str, media=(HTML,)),
    ("GET", "/v1/models"): Described(shapes.ServedModels),
    ("GET", "/v1/models/{model:path}"): Described(shapes.ServedModel),
    ("POST", "/v1/adapters"): Described(
        shapes.LoadedAdapter,
        201,
        body=AdapterRequest,
        example={"model": "smollm2-135m", "name": "poet", "source": "/models/poet"},
        refusals=(errors.Forbidden,),
    ),
    ("GET", "/v1/adapters"): Described(shapes.ListedAdapters),
    ("DELETE", "/v1/adapters/{name:path}"): Described(status=204, refusals=(errors.Forbidden,)),
    **ENGINES,
    ("GET", "/v1/responses/{response_id}"): Described(
        dict[str, Any],
        media=(JSON, STREAM),
        query=engine.KeptQuery,
        refusals=_KEEPERS,
    ),
    ("POST", "/v1/responses/{response_id}/cancel"): Described(dict[str, Any], refusals=_KEEPERS),
    ("POST", "/v1/auth/login"): Described(
        admin.GivenToken, body=auth.LoginRequest, example=_LOGIN, refusals=_LOGIN_REFUSALS
    ),
    ("POST", "/v1/auth/visitor"): Described(
        admin.GivenToken,
        body=auth.VisitorRequest,
        example={"captcha_token": "…"},
        refusals=(*_LOGIN_REFUSALS, errors.NoSuchRoute, errors.UpstreamFailed),
    ),
    ("POST", "/v1/auth/logout"): Described(status=204, refusals=(errors.InvalidRequest,)),
    ("POST", "/v1/auth/password"): Described(
        admin.GivenToken,
        body=auth.PasswordRequest,
        example={"old_password": "…", "new_password": "correct horse battery"},
        refusals=(*_LOGIN_REFUSALS, errors.Forbidden, errors.InUse),
    ),
    ("GET", "/v1/auth/whoami"): Described(admin.Myself),
    ("POST", "/v1/auth/api-keys"): Described(
        admin.MadeKey, 201, body=auth.KeyRequest, example=_KEY, refusals=_GIVING
    ),
    ("GET", "/v1/auth/api-keys"): Described(admin.ShownKeys, query=admin.TenantPageQuery),
    ("GET", "/v1/auth/api-keys/{key_id}"): Described(admin.ShownKey, query=admin.TenantQuery),
    ("PATCH", "/v1/auth/api-keys/{key_id}"): Described(
        admin.ShownKey,
        query=admin.TenantQuery,
        body=auth.KeyChange,
        example={"limits": {"requests_per_minute": 120, "concurrency": 8}},
        refusals=(*_GIVING, errors.InUse),
    ),
    ("DELETE", "/v1/auth/api-keys/{key_id}"): Described(status=204, query=admin.TenantQuery),
    ("POST", "/v1/auth/api-keys/{key_id}/rotate"): Described(
        admin.RotatedKey,
        query=admin.TenantQuery,
        body=auth.Rotation,
        example={"overlap_s": 3600},
    ),
    ("POST", "/v1/auth/api-keys/{key_id}/capture"): Described(
        admin.ShownKey,
        query=admin.TenantQuery,
        body=auth.CaptureRequest,
        example={"minutes": 5},
        refusals=_CAPTURING,
    ),
    ("DELETE", "/v1/auth/api-keys/{key_id}/capture"): Described(
        status=204, query=admin.TenantQuery, refusals=_CAPTURING
    ),
    ("POST", "/v1/auth/revocations"): Described(
        status=204,
        body=auth.RevocationRequest,
        example={"issuer": "https://login.example", "jti": "9b2e7c"},
        refusals=(errors.UnknownTenant,),
    ),
    ("POST", "/v1/auth/users"): Described(
        admin.ShownUser,
        201,
        body=auth.UserRequest,
        example={"name": "ada", "password": "correct horse battery", "role": "user"},
        refusals=(*_GIVING, errors.AlreadyExists, errors.RateLimited),
    ),
    ("GET", "/v1/auth/users"): Described(admin.ShownUsers, query=admin.TenantPageQuery),
    ("GET", "/v1/auth/users/{name}"): Described(admin.ShownUser),
    ("PATCH", "/v1/auth/users/{name}"): Described(
        admin.ShownUser,
        body=auth.UserChange,
        example={"role": "viewer"},
        refusals=(*_GIVING, errors.InUse, errors.RateLimited),
    ),
    ("DELETE", "/v1/auth/users/{name}"): Described(status=204),
    ("POST", "/v1/tenants"): Described(
        admin.ShownTenant,
        201,
        body=auth.TenantRequest,
        example={"id": "acme", "limits": _TENANT_LIMITS},
        refusals=(errors.AlreadyExists,),
    ),
    ("GET", "/v1/tenants"): Described(admin.ShownTenants, query=admin.PageQuery),
    ("GET", "/v1/tenants/{tenant}"): Described(admin.ShownTenant),
    ("PATCH", "/v1/tenants/{tenant}"): Described(
        admin.ShownTenant,
        body=auth.TenantChange,
        example={"weight": 2},
        refusals=(errors.InUse,),
    ),
    ("DELETE", "/v1/tenants/{tenant}"): Described(status=204, refusals=(errors.InUse,)),
    ("GET", "/v1/usage"): Described(
        usage.UsageReport,
        media=(JSON, CSV),
        query=usage.UsageQuery,
        refusals=(errors.UnknownTenant,),
    ),
    ("GET", "/v1/audit"): Described(
        admin.AuditPage,
        media=(JSON, JSONL),
        query=admin.AuditQuery,
        headers=("x-next-after",),
    ),
    ("GET", "/v1/queue"): Described(queue.ModelLines),
    ("POST", "/v1/queue/{model:path}/pause"): Described(queue.ModelLine),
    ("POST", "/v1/queue/{model:path}/resume"): Described(queue.ModelLine),
    ("POST", "/v1/queue/{model:path}/drain"): Described(queue.ModelLine),
    ("GET", "/v1/queue/{model_or_ticket:path}"): Described(queue.ModelLineWithTickets),
    ("DELETE", "/v1/queue/{model_or_ticket:path}"): Described(status=204),
}

INFERENCE = ("Inference", "Ask a model.")
OTHER = ("Other", "Not described.")
GROUPS: Mapping[str, tuple[str, str]] = {
    "/v1/models": ("Models", "What there is to ask."),
    "/v1/adapters": ("Models", "What there is to ask."),
    "/v1/responses": ("Responses", "What an engine keeps of its answers."),
    "/v1/auth": ("Sign-in", "Who am I, and tokens for users and visitors."),
    "/v1/auth/api-keys": ("Keys", "Make, change and revoke keys; in force for the next request."),
    "/v1/auth/users": ("Users", "People with a password."),
    "/v1/tenants": ("Tenants", "Who owns keys, and what they share."),
    "/v1/usage": ("Usage", "Who used how much."),
    "/v1/audit": ("Audit", "Who changed what."),
    "/v1/queue": ("Queue", "Who waits for which model, and how to intervene."),
    "/health": ("Health", "Is it there, and is it ready."),
    "/metrics": ("Metrics", "Figures of one gateway, for Prometheus."),
    "/openapi.json": ("Reference", "This document and its page."),
    "/docs": ("Reference", "This document and its page."),
}
"""Heading and sentence of the routes under a path, in the order of the document.

What an engine answers is inference; of all others, the longest path that fits counts.
"""

PATH_FIELDS: Mapping[str, tuple[str, type[errors.GateError]]] = {
    "model": ("The model's name; it may contain slashes.", errors.NoSuchModel),
    "key_id": ("The key's public id.", errors.NoSuchKey),
    "response_id": ("The response's id.", errors.NoSuchResponse),
    "tenant": ("The tenant's id.", errors.NoSuchTenant),
    "name": ("The user's name.", errors.NoSuchUser),
    "model_or_ticket": (
        "To look, a model's name; to take a request out of the line, its ticket.",
        errors.NotFound,
    ),
}
"""What stands for a field of a path, and the refusal if there is none such.

Where that is ``NotFound``, the handlers tell which.
"""


def _header(description: str, example: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}, "example": example}


HEADERS: Mapping[str, dict[str, Any]] = {
    "x-request-id": _header(
        "Names this exchange in the gate's log.", "req-5f1d3c0a9b7e4d2c8a6f01e3"
    ),
    "request-id": _header(
        "The same, where Anthropic's clients look.", "req-5f1d3c0a9b7e4d2c8a6f01e3"
    ),
    "www-authenticate": _header("How to show a credential.", 'Bearer realm="sluicegate"'),
    "allow": _header("The methods that the path takes.", "DELETE, GET"),
    "retry-after": _header("Seconds until it may pass, where waiting helps.", "2"),
    "retry-after-ms": _header("The same in milliseconds.", "1417"),
    "x-should-retry": _header("`false` where asking again does not help.", "false"),
    "x-refused-by": _header("The limit or reason that refused.", "key:requests_per_minute"),
    "x-ratelimit-limit-requests": _header("Requests a period, of the tightest limit.", "60"),
    "x-ratelimit-remaining-requests": _header("Requests that may come now.", "59"),
    "x-ratelimit-reset-requests": _header("Time until the limit is whole again.", "1s"),
    "x-ratelimit-limit-tokens": _header("Tokens a period, of the tightest limit.", "100000"),
    "x-ratelimit-remaining-tokens": _header("Tokens that may be used now.", "99320"),
    "x-ratelimit-reset-tokens": _header("Time until the limit is whole again.", "850ms"),
    "x-ratelimit-limit": _header("Requests a period, once more.", "60"),
    "x-ratelimit-remaining": _header("Requests that may come now.", "59"),
    "x-ratelimit-reset": _header("When it is whole again, s since the epoch.", "1767225600"),
    "ratelimit": _header(
        "What is left of each, and the seconds until it is whole.",
        '"key:requests_per_minute";r=59;t=1',
    ),
    "ratelimit-policy": _header(
        "The tightest limits, a period in seconds each.", '"key:requests_per_minute";q=60;w=60'
    ),
    "x-ratelimit-shadow": _header(
        "The shadow limits that would have refused.", "tenant:tokens_per_day"
    ),
    "x-output-cap": _header("Output tokens of a reply, as its limits cap them.", "512"),
    "x-next-after": _header("Where the next page begins.", "k7Qd2"),
    "x-queue-time-ms": _header("Milliseconds spent in line.", "0.4"),
    "x-served-class": _header("The class that it waited in.", "standard"),
}
"""Every header of ours that a reply may carry."""

INTRODUCTION = """\
One gate in front of GPU model replicas: who is calling, how much, and when. Every OpenAI client \
speaks to it; its base URL is this gate's address with `/v1` behind it.

A request shows one credential. Of several, the first in the order of the schemes decides, and a \
bad one is never rescued by another; two different keys are refused with 400. Never in the query: \
that ends up in logs.

What is refused says why: `error.code` is for programs, `error.message` says what to do, and where \
waiting helps, `Retry-After` says how long."""
