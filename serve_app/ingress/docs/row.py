"""A row of the document: what a route takes and gives."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serve_app import errors

JSON, STREAM, HTML = "application/json", "text/event-stream", "text/html"
JSONL, CSV, FORM = "application/jsonl", "text/csv", "multipart/form-data"
TEXT = "text/plain"
FIELD = re.compile(r"{(\w+)(?::\w+)?}")
"""A field in a route's path."""


@dataclass(frozen=True, slots=True)
class Described:
    """What one route takes and gives.

    A shape is whatever pydantic can describe: a model, a typed dict, a data class, ``dict``.

    Attributes:
        reply: the shape of a success; None if it has no body.
        status: of a success.
        media: in which a success may come; what is not JSON is text.
        otherwise: replies that are neither success nor refusal, by status.
        body: the shape of the body; None if none is read.
        example: a body that works.
        body_media: how the body is written.
        query: the shape of the query; each field is one parameter.
        refusals: of its own, which the handler's docstring does not name.
        headers: of ours that a success may carry.
        sentence: what it does, where the handler's docstring cannot tell.
    """

    reply: Any = None
    status: int = 200
    media: tuple[str, ...] = (JSON,)
    otherwise: Mapping[int, Any] = field(default_factory=dict)
    body: Any = None
    example: Mapping[str, Any] | None = None
    body_media: str = JSON
    query: Any = None
    refusals: tuple[type[errors.GateError], ...] = ()
    headers: tuple[str, ...] = ()
    sentence: str = ""
