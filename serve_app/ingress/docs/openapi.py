"""The OpenAPI 3.1 document of a table of routes. Pure.

**Decided: permissions are ``x-permission``.** Scopes are OAuth's; tools show no others.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from itertools import groupby
from typing import Any

import serve_app
from serve_app.ingress.docs import refused
from serve_app.ingress.docs.described import (
    DESCRIBED,
    GROUPS,
    HEADERS,
    INFERENCE,
    INTRODUCTION,
    OTHER,
    PATH_FIELDS,
)
from serve_app.ingress.docs.row import FIELD, JSON, STREAM, Described
from serve_app.ingress.docs.schemas import DIALECT, Json, Schemas, query_fields
from serve_app.ingress.docs.schemes import SCHEMES, SECURITY
from serve_app.ingress.docs.sentences import Docstring
from serve_app.ingress.entry import Entry
from serve_app.ingress.reading.dialects import DIALECTS, dialect_of
from serve_app.ingress.told import ENGINE_HEADERS
from serve_app.ingress.wish import MAX_WAIT, PRIORITY

_STREAM = (
    "Events, each with a part of the answer, and in the end {ends}. A stream that breaks "
    "ends with `event: error` and a refusal instead."
)
_ANTHROPIC = (
    'Refusals are in Anthropic\'s shape, `{"type": "error", "error": {"type", "message"}}`.'
)
_ENGINE_REFUSAL = {
    "description": refused.IN_ITS_WORDS["description"],
    "content": {JSON: {"schema": {"type": "object"}}},
}
_REQUEST_ID = {
    "name": "x-request-id",
    "in": "header",
    "description": "Your name for this exchange; kept if it is 1 to 128 of A-Z a-z 0-9 . _ : -, "
    "else the reply has a new one.",
    "schema": {"type": "string"},
}

_PRIORITY = {
    "name": PRIORITY,
    "in": "header",
    "description": "A class to wait in, if it is lower than the caller's own; goes before the "
    "body's `service_tier`.",
    "schema": {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,31}$"},
}
_MAX_WAIT = {
    "name": MAX_WAIT,
    "in": "header",
    "description": "Seconds to wait at most, if they are fewer than the class's; 0 is seated at "
    "once or refused.",
    "schema": {"type": "number", "minimum": 0},
}


def document(
    table: Iterable[Entry], described: Mapping[tuple[str, str], Described] = DESCRIBED
) -> Json:
    """Return the document of ``table``; a route without a row is told as far as it is known."""
    unknown = Described(dict[str, Any])
    rows = [(entry, described.get((entry.method, entry.path), unknown)) for entry in table]
    schemas = Schemas(row for _, row in rows)
    responses = {kind.__name__: refused.response((kind,)) for kind in refused.raisable()}
    paths: dict[str, Json] = {}
    for entry, row in rows:
        path = paths.setdefault(FIELD.sub(r"{\1}", entry.path), {})
        path["parameters"] = [_ref("parameters", "RequestId"), *_in_path(entry)]
        path[entry.method.lower()] = _operation(entry, row, schemas, responses)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sluicegate",
            "version": serve_app.__version__,
            "description": INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "jsonSchemaDialect": DIALECT,
        "servers": [
            {"url": "/"},
            {"url": "/api", "description": "The same routes, for those who look for them there."},
        ],
        "security": SECURITY,
        "tags": _tags({group(entry) for entry, _ in rows}),
        "paths": paths,
        "components": {
            "schemas": {**schemas.named, "Refusal": refused.schema()},
            "responses": responses,
            "parameters": {
                "RequestId": _REQUEST_ID,
                "Priority": _PRIORITY,
                "MaxWait": _MAX_WAIT,
            },
            "headers": dict(HEADERS),
            "examples": {kind.code: refused.example(kind) for kind in refused.raisable()},
            "securitySchemes": SCHEMES,
        },
    }


def group(entry: Entry) -> tuple[str, str]:
    """Return heading and sentence of the group that a route belongs to; of none, ``OTHER``."""
    if entry.engine_path:
        return INFERENCE
    fitting = [start for start in GROUPS if f"{entry.path}/".startswith(f"{start}/")]
    return GROUPS[max(fitting, key=len)] if fitting else OTHER


def _operation(entry: Entry, row: Described, schemas: Schemas, responses: Json) -> Json:
    """Return one method of one path; the refusals that it joins are added to ``responses``."""
    told = Docstring.of(entry.handler)
    operation: Json = {
        "operationId": _operation_id(entry),
        "tags": [group(entry)[0]],
        "summary": row.sentence or told.sentence,
        "description": " ".join(filter(None, _told(entry, row, told.more))),
        "responses": {str(row.status): _success(entry, row, schemas)},
    }
    if entry.permission:
        operation["x-permission"] = entry.permission
    else:
        operation["security"] = []
    if parameters := _parameters(entry, row):
        operation["parameters"] = parameters
    if row.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {row.body_media: _body(row, schemas)},
        }
    for status, same in groupby(refused.refused(entry, row), key=lambda kind: kind.status):
        kinds = tuple(same)
        engines = bool(entry.engine_path) and status in refused.ENGINES
        name = refused.name(kinds, engines=engines)
        responses.setdefault(name, refused.response(kinds, engines=engines))
        operation["responses"][str(status)] = _ref("responses", name)
    for status, shape in row.otherwise.items():
        operation["responses"][str(status)] = _reply(status, {JSON: {"schema": schemas.of(shape)}})
    if entry.engine_path:
        operation["responses"]["4XX"] = _ENGINE_REFUSAL
    return operation


def _parameters(entry: Entry, row: Described) -> list[Json]:
    """Return what one method takes beside its path and its body."""
    wishes = ("Priority", "MaxWait") if entry.engine_path else ()
    query = () if row.query is None else query_fields(row.query)
    return [*(_ref("parameters", name) for name in wishes), *query]


def _operation_id(entry: Entry) -> str:
    words = re.findall(r"\w+", FIELD.sub(r"\1", entry.path))
    return "_".join([entry.method.lower(), *words])


def _told(entry: Entry, row: Described, more: str) -> Iterator[str]:
    """Yield what there is to say of a route beside its sentence."""
    yield more
    yield _permission(entry, row)
    dialect = dialect_of(entry.engine_path)
    if dialect is not None and dialect.errors == "anthropic":
        yield _ANTHROPIC


def _permission(entry: Entry, row: Described) -> str:
    """Return what a caller needs."""
    if not entry.permission:
        return "Open to everyone."
    streaming = ", and `use_streaming` for a stream" if STREAM in row.media else ""
    return f"Needs the permission `{entry.permission}`{streaming}."


def _body(row: Described, schemas: Schemas) -> Json:
    told = {"schema": schemas.of(row.body, "validation")}
    return told if row.example is None else {**told, "example": row.example}


def _success(entry: Entry, row: Described, schemas: Schemas) -> Json:
    content: Json = {}
    if row.reply is not None:
        for media in row.media:
            content[media] = {
                "schema": schemas.of(row.reply) if media == JSON else {"type": "string"}
            }
    if STREAM in content:
        dialect = DIALECTS.get(entry.engine_path)
        ends = dialect.stream.ends if dialect and dialect.stream else ()
        told = " or ".join(f"`{end.decode()}`" for end in ends)
        content[STREAM]["schema"]["description"] = _STREAM.format(ends=told or "one that ends it")
    engines = ENGINE_HEADERS if entry.by_engine else ()
    dialect = dialect_of(entry.engine_path)
    named = ("request-id",) if dialect is not None and dialect.errors == "anthropic" else ()
    return _reply(row.status, content, *engines, *named, *row.headers)


def _reply(status: int, content: Json, *headers: str) -> Json:
    carried = {name: _ref("headers", name) for name in ("x-request-id", *headers)}
    told: Json = {"description": HTTPStatus(status).phrase, "headers": carried}
    return {**told, "content": content} if content else told


def _in_path(entry: Entry) -> Iterator[Json]:
    for name in FIELD.findall(entry.path):
        told = PATH_FIELDS[name][0] if name in PATH_FIELDS else ""
        shown = {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        yield {**shown, "description": told}


def _tags(used: set[tuple[str, str]]) -> list[Json]:
    every = dict.fromkeys((INFERENCE, *GROUPS.values(), OTHER))
    return [{"name": name, "description": told} for name, told in every if (name, told) in used]


def _ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}
