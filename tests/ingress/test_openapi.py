"""The document that the gate gives of itself (CONTRACT §1, §1.7, §2, §5)."""

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter

from serve_app import auth, errors
from serve_app.ingress import TABLE, docs, refusals
from serve_app.ingress.docs import openapi, published
from serve_app.ingress.docs.described import DESCRIBED, PATH_FIELDS
from serve_app.ingress.docs.refused import WAITS, raisable, raised
from serve_app.ingress.docs.row import FIELD, Described
from serve_app.ingress.entry import Entry
from serve_app.ingress.exchange import Exchange
from tests.ingress.openapi_rules import RULES

DOCUMENT = json.loads(published.openapi_json(TABLE).body)
OPERATIONS = {
    (method.upper(), path): operation
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
    if method != "parameters"
}
WITH_BODY = [key for key, row in DESCRIBED.items() if row.body is not None]
KINDS = list(raisable())
PUBLISHED = {("GET", "/openapi.json"), ("GET", "/docs")}
NO_GATE: Any = None


def told(entry: Entry) -> tuple[str, str]:
    """The method and path of ``entry`` as the document writes them."""
    return entry.method, FIELD.sub(r"{\1}", entry.path)


def shown(key: tuple[str, str]) -> str:
    return " ".join(key)


def inner(node: Any) -> Iterator[tuple[str, Any]]:
    """Every member of every object under ``node``."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield name, value
            yield from inner(value)
    elif isinstance(node, list):
        for value in node:
            yield from inner(value)


def found(ref: str) -> Any:
    """What ``ref`` leads to."""
    node: Any = DOCUMENT
    for step in ref.removeprefix("#/").split("/"):
        node = node[step]
    return node


def checker(schema: Any) -> Draft202012Validator:
    """What checks against ``schema``, whose references lead through the document."""
    inside = {**schema, "components": DOCUMENT["components"]}
    return Draft202012Validator(inside)


def codes(key: tuple[str, str]) -> dict[str, set[str]]:
    """The codes with which an operation may refuse, by status."""
    replies = OPERATIONS[key]["responses"].items()
    resolved = [(status, found(one["$ref"]) if "$ref" in one else one) for status, one in replies]
    return {
        status: set(one["content"]["application/json"]["examples"])
        for status, one in resolved
        if "examples" in one.get("content", {}).get("application/json", {})
    }


def test_the_document_follows_openapi_31() -> None:
    """Every object has the members that OpenAPI 3.1 gives it, those it demands, and no other."""
    Draft202012Validator.check_schema(RULES)
    assert [
        err.json_path + err.message for err in Draft202012Validator(RULES).iter_errors(DOCUMENT)
    ] == []


def test_every_schema_is_one() -> None:
    """Each schema in the document is a JSON schema of the dialect that the document names."""
    schemas = [value for name, value in inner(DOCUMENT) if name == "schema"]
    for schema in [*schemas, *DOCUMENT["components"]["schemas"].values()]:
        Draft202012Validator.check_schema(schema)
    assert DOCUMENT["jsonSchemaDialect"] == Draft202012Validator.META_SCHEMA["$id"]


def test_every_reference_leads_somewhere() -> None:
    """No reference hangs, and no component but a refusal's is left unused."""
    refs = {value for name, value in inner(DOCUMENT) if name == "$ref"}
    for ref in refs:
        assert found(ref), ref
    for kind in ("schemas", "parameters", "headers", "examples"):
        for name in DOCUMENT["components"][kind]:
            assert f"#/components/{kind}/{name}" in refs


def test_every_route_is_told_and_no_other() -> None:
    """The operations are the table of routes."""
    assert set(OPERATIONS) == {told(entry) for entry in TABLE}


def test_every_route_has_its_row() -> None:
    """A new route is described: a row, a sentence, a group, its path's fields, a body's example."""
    routed = {(entry.method, entry.path): entry for entry in TABLE}
    assert set(DESCRIBED) == set(routed) | PUBLISHED, "see serve_app/ingress/docs/described.py"
    for entry in routed.values():
        row = DESCRIBED[entry.method, entry.path]
        assert OPERATIONS[told(entry)]["summary"].endswith("."), entry
        assert openapi.group(entry) != openapi.OTHER, entry
        assert set(FIELD.findall(entry.path)) <= set(PATH_FIELDS), entry
        assert (row.body is None) == (row.example is None), entry
        assert (row.reply is None) == (row.status == 204), entry


def test_names_are_told_apart() -> None:
    """No two operations share an id, and each belongs to one group that the document explains."""
    ids = [operation["operationId"] for operation in OPERATIONS.values()]
    groups = {tag["name"] for tag in DOCUMENT["tags"]}
    assert len(ids) == len(set(ids))
    assert {one for operation in OPERATIONS.values() for one in operation["tags"]} == groups


def test_a_path_tells_its_fields() -> None:
    """Each field of a path is a parameter, and no other parameter claims to be in the path."""
    for path, item in DOCUMENT["paths"].items():
        declared = [found(one["$ref"]) if "$ref" in one else one for one in item["parameters"]]
        fields = [one["name"] for one in declared if one["in"] == "path"]
        assert fields == re.findall(r"{(\w+)}", path)


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: shown(told(entry)))
def test_each_route_says_who_may_call(entry: Entry) -> None:
    """The permission is the table's; what is open needs no credential, all else one (§1.7)."""
    operation = OPERATIONS[told(entry)]
    assert operation.get("x-permission", "") == entry.permission
    assert operation.get("security") == (None if entry.permission else [])
    assert entry.permission in auth.PERMISSIONS | {"", "caller"}
    assert (entry.permission or "Open to everyone") in operation["description"]
    assert ("missing_credentials" in codes(told(entry)).get("401", ())) == bool(entry.permission)


def test_every_credential_is_a_scheme() -> None:
    """The ways to show a credential are the contract's, a service token's two as one (§1)."""
    schemes = DOCUMENT["components"]["securitySchemes"]
    ways = [[schemes[name].get("name", "Bearer") for name in way] for way in DOCUMENT["security"]]
    assert ways == [
        ["Bearer"],
        ["Authorization"],
        ["X-API-Key"],
        ["apikey"],
        ["CF-Access-Client-Id", "CF-Access-Client-Secret"],
        ["Cf-Access-Jwt-Assertion"],
    ]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_refusal_is_told(kind: type[errors.GateError]) -> None:
    """Each error that can be raised is there with code, status, headers and shape (§5)."""
    response = DOCUMENT["components"]["responses"][kind.__name__]
    example = DOCUMENT["components"]["examples"][kind.code]
    schema = DOCUMENT["components"]["schemas"]["Refusal"]
    more = {"allow": "GET"} if kind is errors.WrongMethod else {}
    err = kind("Do this.", **more)
    err.retry_after_s = 1.0 if kind.status in WAITS else None
    assert response["x-status"] == kind.status
    assert set(response["headers"]) == {"x-request-id", *refusals.headers(err)}
    assert list(response["content"]["application/json"]["examples"]) == [kind.code]
    assert checker(schema).is_valid(example["value"])
    assert example["value"]["error"]["code"] == kind.code
    assert checker(schema).is_valid(refusals.body(err))


def test_no_refusal_is_invented() -> None:
    """The codes are those of the tree, and what is no refusal does not pass for one."""
    members = DOCUMENT["components"]["schemas"]["Refusal"]["properties"]["error"]["properties"]
    assert members["code"]["enum"] == sorted(kind.code for kind in KINDS)
    assert members["type"]["enum"] == sorted({kind.type for kind in KINDS})
    assert not checker(DOCUMENT["components"]["schemas"]["Refusal"]).is_valid({"error": {}})


@pytest.mark.parametrize(
    ("key", "some", "not_one"),
    [
        (("GET", "/health"), {"500": {"internal_error"}}, {"400", "401", "403", "429", "503"}),
        (
            ("GET", "/v1/models/{model}"),
            {
                "404": {"model_not_found"},
                "403": {"permission_denied", "model_not_allowed", "address_not_allowed"},
            },
            {"413", "415", "502"},
        ),
        (
            ("POST", "/v1/chat/completions"),
            {
                "400": {
                    "invalid_request",
                    "unknown_tenant",
                    "prompt_too_long",
                    "request_exceeds_limit",
                },
                "413": {"request_too_large"},
                "415": {"unsupported_media_type"},
                "502": {"upstream_failed"},
                "504": {"upstream_timeout"},
                "429": {
                    "rate_limit_exceeded",
                    "insufficient_quota",
                    "queue_full",
                    "queue_wait_too_long",
                    "queue_timeout",
                    "queue_cancelled",
                    "too_many_failed_attempts",
                },
            },
            {"409"},
        ),
        (("POST", "/v1/auth/api-keys"), {"400": {"invalid_request", "unknown_tenant"}}, {"404"}),
        (("DELETE", "/v1/auth/api-keys/{key_id}"), {"404": {"key_not_found"}}, {"413", "415"}),
    ],
    ids=lambda value: shown(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_a_route_tells_its_own_refusals(
    key: tuple[str, str], some: dict[str, set[str]], not_one: set[str]
) -> None:
    """A route tells the refusals that it may give and keeps quiet about the others."""
    told = codes(key)
    assert {status: told.get(status) for status in some} == some
    assert not_one & set(told) == set()


def test_what_a_docstring_raises_is_told() -> None:
    """Errors under ``Raises`` are read, one or more to a line; one that groups means all below."""

    def handler() -> None:
        """Do it.

        Raises:
            NoSuchKey, InUse: it is not there, or something hangs on it.
            Unauthenticated: nobody we know.
            OSError: no error of ours.
        """

    grouped = set(raisable(errors.Unauthenticated))
    assert set(raised(handler)) == {errors.NoSuchKey, errors.InUse} | grouped
    assert errors.TokenExpired in grouped
    assert list(raised(test_names_are_told_apart)) == []


@pytest.mark.parametrize("key", WITH_BODY, ids=shown)
def test_an_example_works(key: tuple[str, str]) -> None:
    """A body's example passes the model that checks it, and the schema that the document gives."""
    row = DESCRIBED[key]
    content = OPERATIONS[key]["requestBody"]["content"][row.body_media]
    TypeAdapter(row.body).validate_json(json.dumps(row.example))
    assert list(checker(content["schema"]).iter_errors(content["example"])) == []
    assert not checker(content["schema"]).is_valid({"name": 5})


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({}, True),
        ({"limits": {"requests_per_minute": {"limit": 5, "burst": 1}}}, True),
        ({"limits": {"requests_per_minute": -1}}, False),
        ({"limits": {"requests_per_minute": {"limit": 5, "burst": 0}}}, False),
        ({"limits": {"requests_per_day": {"limit": 5, "burst": 1}}}, False),
        ({"limits": {"cost_per_day": 0.5, "concurrency": {"limit": 0}}}, True),
        ({"limits": {"models": {"org/m:1": {"tokens_per_minute": 5}}, "shadow": {}}}, True),
        ({"limits": {"models": {"a b": {}}}}, False),
        ({"limits": {"models": {"m": {"exempt": True}}}}, False),
        ({"limits": {"requests": 5}}, False),
        ({"limits": {"exempt": True}}, True),
        ({"over_limit": "wait"}, True),
        ({"over_limit": "explode"}, False),
        ({"expires_in_days": 0}, False),
        ({"name": ""}, False),
        ({"colour": "red"}, False),
        ({"tenant": "No"}, False),
    ],
)
def test_the_schema_is_the_model(change: dict[str, Any], valid: bool) -> None:
    """The document refuses a key request exactly where the gate does."""
    body = {"name": "ci", **change}
    content = OPERATIONS["POST", "/v1/auth/api-keys"]["requestBody"]["content"]["application/json"]
    try:
        auth.KeyRequest.model_validate_json(json.dumps(body))
        passed = True
    except ValueError:
        passed = False
    assert (passed, checker(content["schema"]).is_valid(body)) == (valid, valid)


def test_query_fields_are_parameters() -> None:
    """A query's fields have their bounds and defaults, and none of them can be null."""
    fields = {one["name"]: one for one in OPERATIONS["GET", "/v1/auth/api-keys"]["parameters"]}
    assert set(fields) == {"tenant", "limit", "after"}
    assert fields["limit"]["schema"] == {
        "type": "integer", "minimum": 1, "maximum": 1_000, "default": 100,
    }  # fmt: skip
    assert fields["tenant"]["schema"] == {"type": "string"}
    assert not any(one["required"] for one in fields.values())


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: f"{entry.method} {entry.path}")
def test_what_asks_an_engine_takes_the_lines_headers(entry: Entry) -> None:
    """``x-priority`` and ``x-max-wait-s`` are parameters of inference, and of nothing else."""
    refs = [one["$ref"] for one in OPERATIONS[told(entry)].get("parameters", []) if "$ref" in one]
    names = {found(ref)["name"] for ref in refs}
    assert names == ({"x-priority", "x-max-wait-s"} if entry.engine_path else set())


def test_a_route_without_a_row_is_told_all_the_same() -> None:
    """A forgotten description costs a test, not the document."""
    entry = Entry("GET", "/v9/new/{thing:path}", "read_models", docs.page)
    document = openapi.document([entry], {})
    assert Draft202012Validator(RULES).is_valid(document)
    assert document["paths"]["/v9/new/{thing}"]["get"]["tags"] == [openapi.OTHER[0]]
    assert document["paths"]["/v9/new/{thing}"]["get"]["operationId"] == "get_v9_new_thing"


def test_rows_may_name_any_shape() -> None:
    """A shape is whatever pydantic can describe; what is not JSON is told as text."""
    entry = Entry("GET", "/v1/audit", "view_audit_logs", docs.page)
    row = Described(dict[str, int], media=("application/json", "text/csv"))
    operation = openapi.document([entry], {("GET", "/v1/audit"): row})["paths"]["/v1/audit"]["get"]
    content = operation["responses"]["200"]["content"]
    assert content["application/json"]["schema"]["additionalProperties"] == {"type": "integer"}
    assert content["text/csv"]["schema"] == {"type": "string"}


async def answered(handler: Any, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """What ``handler`` sends."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    lines = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    scope = {"method": "GET", "path": "/", "query_string": b"", "headers": lines, "table": TABLE}
    await handler(NO_GATE, Exchange(scope, receive, send))
    told = {name.decode(): text.decode() for name, text in sent[0]["headers"]}
    return sent[0]["status"], told, b"".join(one.get("body", b"") for one in sent[1:])


@pytest.mark.parametrize("handler", [docs.reference, docs.page])
async def test_what_a_browser_has_is_not_sent_again(handler: Any) -> None:
    """A second request with the ETag of the first gets 304 and no body; another ETag, the whole."""
    status, headers, body = await answered(handler)
    assert (status, headers["content-length"]) == (200, str(len(body)))
    assert headers["cache-control"] == "no-cache"
    for etag in (headers["etag"], f'"x", W/{headers["etag"]}'):
        status, again, nothing = await answered(handler, if_none_match=etag)
        assert (status, again["etag"], nothing) == (304, headers["etag"], b"")
    status, _, whole = await answered(handler, if_none_match='"another"')
    assert (status, whole) == (200, body)


async def test_the_document_is_json() -> None:
    """Machines get the document as JSON."""
    status, headers, body = await answered(docs.reference)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == DOCUMENT


async def test_the_page_runs_only_what_it_holds() -> None:
    """The policy names the page's one script and one style, and lets it speak to the gate only."""
    _, headers, body = await answered(docs.page)
    html = body.decode()
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    for tag in ("script", "style"):
        (text,) = re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", html, re.DOTALL)
        digest = b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert len(text) > 1_000
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_the_page_is_small_and_loads_nothing() -> None:
    """A reviewer reads the page in one sitting, and nothing in it leads away from the gate."""
    folder = Path(docs.__file__).parent
    texts = {name: (folder / f"page.{name}").read_text() for name in ("html", "css", "js")}
    assert sum(len(text.splitlines()) for text in texts.values()) <= 300
    whole = "".join(texts.values())
    assert not re.search(r"//\w|@import|localStorage|sessionStorage|cookie|innerHTML", whole)
    assert "url(" not in texts["css"]
    assert re.findall(r'\b(?:src|href|action)="(?!#)([^"]*)"', texts["html"]) == [
        "data:,",
        "openapi.json",
    ]
