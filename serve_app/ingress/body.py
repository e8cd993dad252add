"""The JSON object in a body: refused if it is none or could harm whoever parses it. Pure.

The nesting is measured on the bytes before anything is built from them: ten megabytes of brackets
cost a scan, not ten million objects.
"""

import json
import re
from itertools import accumulate
from typing import Any

from serve_app.errors import InvalidRequest

MAX_DEPTH = 64
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP = [{"[": 1, "{": 1, "]": -1, "}": -1}.get(chr(byte), 0) for byte in range(256)]


def json_object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object in ``raw``.

    Raises:
        InvalidRequest: it is not one JSON object in UTF-8, holds a NaN or is nested too deep.
    """
    if depth(raw) > MAX_DEPTH:
        raise InvalidRequest(f"The body is nested deeper than {MAX_DEPTH}.")
    try:
        value = json.loads(raw.decode(), parse_constant=_refuse)
    except (ValueError, UnicodeDecodeError) as err:
        raise InvalidRequest(f"The body is not valid JSON: {str(err)[:120]}.") from None
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be one JSON object.")
    return value


def without(raw: bytes, name: str) -> tuple[bytes, dict[str, Any]]:
    """Return the JSON object ``raw`` written anew without its member ``name``, and what it holds.

    Raises:
        InvalidRequest: it has that member twice.
    """
    pairs: list[tuple[str, Any]] = []

    def noted(found: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs[:] = found  # the outermost object is the last to be done
        return dict(found)

    fields = json.loads(raw, object_pairs_hook=noted)
    if sum(key == name for key, _ in pairs) > 1:
        raise InvalidRequest(f"The body carries '{name}' twice; send one.", param=name)
    del fields[name]
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode(), fields


def depth(raw: bytes) -> int:
    """Return how deep the brackets of ``raw`` are nested; of invalid JSON, at least as deep."""
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return 0  # cannot be deeper than it has brackets
    brackets = _STRINGS.sub(b"", raw).translate(None, _NOT_BRACKETS)
    return max(accumulate(_STEP[bracket] for bracket in brackets), default=0)


def _refuse(constant: str) -> None:
    raise InvalidRequest(f"The body is not valid JSON: {constant} is not a JSON number.")
