"""How routes may refuse, as the document tells it. Pure.

**Decided: refusals are named by their classes.** Each is a response of its own; where one status
may mean several on a route, a response joins them as ``ThisOrThat``.
"""

import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any

from serve_app import errors
from serve_app.errors import GateError
from serve_app.ingress import refusals
from serve_app.ingress.docs.described import PATH_FIELDS
from serve_app.ingress.docs.row import FIELD, JSON, Described
from serve_app.ingress.docs.sentences import Docstring
from serve_app.ingress.entry import Entry

Kind = type[GateError]

WAITS = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, 503})
"""Statuses that may come with the time to wait."""

ENGINES = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND})
"""Statuses of ours that an engine may answer with as well."""

IN_ITS_WORDS = {
    "type": "object",
    "description": "What the engine itself refuses, in its own words.",
}

FOR_CALLERS = (
    errors.InvalidRequest,
    errors.UnknownTenant,
    errors.MissingCredentials,
    errors.InvalidKey,
    errors.InvalidToken,
    errors.TokenExpired,
    errors.Forbidden,
    errors.AddressForbidden,
    errors.TooManyAttempts,
    errors.StoreUnavailable,
    errors.IssuerUnavailable,
)
FOR_BODIES = (errors.InvalidRequest, errors.BodyTooLarge, errors.WrongMediaType)
FOR_ENGINES = (
    errors.NoSuchModel,
    errors.ModelForbidden,
    errors.PromptTooLong,
    errors.ExceedsLimit,
    errors.RateLimited,
    errors.QuotaSpent,
    errors.QueueFull,
    errors.QueueWaitTooLong,
    errors.QueueTimeout,
    errors.QueueCancelled,
    errors.ShuttingDown,
    errors.NoCapacity,
    errors.UpstreamFailed,
    errors.UpstreamTimeout,
)


def raisable(top: Kind = GateError) -> Iterator[Kind]:
    """Yield the errors under ``top`` that can be raised, in the order of the tree."""
    if top is errors.Internal or (top is not GateError and "code" in vars(top)):
        yield top
    for below in top.__subclasses__():
        yield from raisable(below)


def refused(entry: Entry, row: Described) -> list[Kind]:
    """Return how a route may refuse, sorted by status, then by the order of the tree."""
    kinds = {errors.Internal, *row.refusals, *raised(entry.handler)}
    kinds.update(PATH_FIELDS[name][1] for name in FIELD.findall(entry.path) if name in PATH_FIELDS)
    kinds.update(FOR_CALLERS if entry.permission else ())
    kinds.update(FOR_BODIES if row.body is not None else ())
    kinds.update((errors.InvalidRequest,) if row.query is not None else ())
    kinds.update(FOR_ENGINES if entry.engine_path else ())
    return sorted((kind for kind in raisable() if kind in kinds), key=lambda kind: kind.status)


def raised(handler: object) -> Iterator[Kind]:
    """Yield the errors that a docstring names; for one that only groups others, those."""
    for names in re.findall(r"^ *([A-Z][\w, ]*):", Docstring.of(handler).raises, re.MULTILINE):
        for name in names.split(","):
            kind = getattr(errors, name.strip(), None)
            if kind is not None:
                yield from [kind] if "code" in vars(kind) else raisable(kind)


def name(kinds: Iterable[Kind], *, engines: bool = False) -> str:
    """Return the name of the response that one of ``kinds`` gives, or else an engine."""
    return "Or".join([kind.__name__ for kind in kinds] + ["EngineError"] * engines)


def response(kinds: tuple[Kind, ...], *, engines: bool = False) -> dict[str, Any]:
    """Return the response that one of ``kinds`` gives, or else an engine; they share a status."""
    status = kinds[0].status
    waits = ("retry-after", "retry-after-ms") if status in WAITS else ()
    carried = ("x-request-id", *waits, *refusals.headers(_as_raised(kinds[0])))
    examples = {kind.code: {"$ref": f"#/components/examples/{kind.code}"} for kind in kinds}
    ours: dict[str, Any] = {"$ref": "#/components/schemas/Refusal"}
    shape = {"anyOf": [ours, IN_ITS_WORDS]} if engines else ours
    content = {"schema": shape, "examples": examples}
    sentences = [f"`{kind.code}`: {sentence(kind)}" for kind in kinds]
    return {
        "description": " ".join([*sentences, *[IN_ITS_WORDS["description"]] * engines]),
        "headers": {one: {"$ref": f"#/components/headers/{one}"} for one in carried},
        "content": {JSON: content},
        "x-status": status,
    }


def example(kind: Kind) -> dict[str, Any]:
    """Return what a refusal of ``kind`` looks like."""
    return {"summary": sentence(kind), "value": refusals.body(_as_raised(kind))}


def schema() -> dict[str, Any]:
    """Return the schema of every refusal."""
    text, some_text = {"type": "string"}, {"type": ["string", "null"]}
    members = {
        "message": {**text, "description": "What to do; for people."},
        "type": {**text, "enum": sorted({kind.type for kind in raisable()})},
        "code": {**text, "enum": sorted({kind.code for kind in raisable()})},
        "param": {**some_text, "description": "The field at fault."},
        "details": {"type": ["object", "null"], "description": "More of it, for some codes."},
    }
    error = {"type": "object", "properties": members, "required": list(members)}
    return {
        "type": "object",
        "description": "What every refusal of the gate looks like.",
        "properties": {"error": error},
        "required": ["error"],
    }


def sentence(kind: Kind) -> str:
    """Return what an error of ``kind`` means."""
    return Docstring.of(kind).sentence


def _as_raised(kind: Kind) -> GateError:
    if issubclass(kind, errors.WrongMethod):
        return kind(sentence(kind), allow="DELETE, GET")
    return kind(sentence(kind))
