"""JSON schemas of the shapes that rows name, from pydantic. Pure."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from serve_app.ingress.docs.row import Described
from serve_app.ingress.docs.sentences import prose

Json = dict[str, Any]
Mode = Literal["validation", "serialization"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NULL = {"type": "null"}


class Schemas:
    """The schemas of every shape that the rows name.

    Attributes:
        named: those of models, by their names.
    """

    def __init__(self, rows: Iterable[Described]) -> None:
        wanted = {(repr(shape), mode): shape for row in rows for shape, mode in _shapes(row)}
        self._schemas, told = TypeAdapter.json_schemas(
            [(name, mode, TypeAdapter(shape)) for (name, mode), shape in wanted.items()],
            ref_template="#/components/schemas/{model}",
            schema_generator=_Untitled,
        )
        self.named: Json = dict(sorted(told.get("$defs", {}).items()))
        for schema in self.named.values():
            if "description" in schema:
                schema["description"] = prose(schema["description"].partition("\n\n")[0])

    def of(self, shape: Any, mode: Mode = "serialization") -> Json:
        """Return the schema of a shape that one of the rows names."""
        return self._schemas[repr(shape), mode]


class _Untitled(GenerateJsonSchema):
    """Schemas whose fields have no titles: those only say the name again."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's own
        """Return that no field has one."""
        return False


def query_fields(shape: Any) -> Iterator[Json]:
    """Yield one parameter per field of a query; null is no value that a query can say."""
    schema = TypeAdapter(shape).json_schema(schema_generator=_Untitled)
    for name, field in schema["properties"].items():
        told = {key: value for key, value in field.items() if value is not None}
        for kind in told.pop("anyOf", ()):
            told |= {} if kind == _NULL else kind
        yield {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "description": told.pop("description", ""),
            "schema": told,
        }


def _shapes(row: Described) -> Iterator[tuple[Any, Mode]]:
    """Yield each shape of a row with the direction in which it goes."""
    for shape in (row.reply, *row.otherwise.values()):
        if shape is not None:
            yield shape, "serialization"
    if row.body is not None:
        yield row.body, "validation"
