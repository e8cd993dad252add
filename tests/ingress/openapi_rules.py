"""What OpenAPI 3.1 allows and demands of its objects, as a JSON schema: as far as we use them.

Every object is closed but for ``x-``: a member that the specification does not know is a mistake.
Schemas themselves are JSON Schema's business, and are checked by its own.
"""

from typing import Any

TEXT = {"type": "string", "minLength": 1}
ANY: dict[str, Any] = {}
NAME = r"^[A-Za-z0-9._-]+$"


def obj(required: str, /, **members: Any) -> dict[str, Any]:
    """An object with these members and no other; ``required`` names those it must have."""
    properties = {name.rstrip("_"): rule for name, rule in members.items()}
    return {
        "type": "object",
        "properties": properties,
        "patternProperties": {"^x-": ANY},
        "required": required.split(),
        "additionalProperties": False,
    }


def each(rule: Any, names: str = NAME) -> dict[str, Any]:
    """A map whose names look like ``names`` and whose values keep ``rule``."""
    return {"type": "object", "patternProperties": {names: rule}, "additionalProperties": False}


def some(rule: Any) -> dict[str, Any]:
    """A list."""
    return {"type": "array", "items": rule}


def at(name: str) -> dict[str, Any]:
    """The rule of that name."""
    return {"$ref": f"#/$defs/{name}"}


def or_ref(name: str) -> dict[str, Any]:
    """That, or a reference to it."""
    ref = {"$ref": {"type": "string", "pattern": "^#/components/"}}
    return {
        "if": {"required": ["$ref"]},
        "then": {"properties": ref, "additionalProperties": False},
        "else": at(name),
    }


_KINDS = ("schemas", "responses", "parameters", "examples", "headers", "securitySchemes")
_SECURITY = some(each(some(TEXT)))
_METHODS = ("get", "post", "patch", "put", "delete", "head", "options")

RULES: dict[str, Any] = {
    **obj(
        "openapi info paths",
        openapi={"const": "3.1.0"},
        info=obj(
            "title version",
            title=TEXT,
            version=TEXT,
            description=TEXT,
            license=obj("name", name=TEXT, identifier=TEXT),
        ),
        jsonSchemaDialect={"type": "string", "format": "uri"},
        servers=some(obj("url", url=TEXT, description=TEXT)),
        security=_SECURITY,
        tags=some(obj("name", name=TEXT, description=TEXT)),
        paths=each(at("path"), "^/"),
        components=obj("", **{kind: each(or_ref(kind)) for kind in _KINDS}),
    ),
    "$defs": {
        "path": obj(
            "",
            parameters=some(or_ref("parameters")),
            **{method: at("operation") for method in _METHODS},
        ),
        "operation": obj(
            "operationId responses",
            operationId={"type": "string", "pattern": r"^[a-z][a-z0-9_]*$"},
            tags=some(TEXT),
            summary=TEXT,
            description=TEXT,
            security=_SECURITY,
            parameters=some(or_ref("parameters")),
            requestBody=obj("content", required={"type": "boolean"}, content=at("content")),
            responses={
                **each(or_ref("responses"), "^([1-5][0-9][0-9]|[1-5]XX|default)$"),
                "minProperties": 1,
            },
        ),
        "parameters": {
            **obj(
                "name in schema",
                name=TEXT,
                in_={"enum": ["query", "header", "path", "cookie"]},
                description={"type": "string"},
                required={"type": "boolean"},
                schema=at("schemas"),
            ),
            "if": {"properties": {"in": {"const": "path"}}},
            "then": {"properties": {"required": {"const": True}}, "required": ["required"]},
        },
        "responses": obj(
            "description",
            description=TEXT,
            headers=each(or_ref("headers")),
            content=at("content"),
        ),
        "content": each(at("media"), r"^[a-z]+/[a-z0-9.+-]+$"),
        "media": {
            **obj("schema", schema=at("schemas"), example=ANY, examples=each(or_ref("examples"))),
            "not": {"required": ["example", "examples"]},
        },
        "headers": obj("schema", description=TEXT, schema=at("schemas"), example=ANY),
        "examples": obj("value", summary=TEXT, value=ANY),
        "schemas": {"type": "object"},
        "securitySchemes": {
            "type": "object",
            "required": ["type"],
            "oneOf": [
                obj("type scheme", type={"const": "http"}, scheme=TEXT, description=TEXT),
                obj(
                    "type in name",
                    type={"const": "apiKey"},
                    in_={"enum": ["header", "query", "cookie"]},
                    name=TEXT,
                    description=TEXT,
                ),
            ],
        },
    },
}
