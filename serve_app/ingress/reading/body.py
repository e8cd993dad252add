"""The JSON object in a body: refused if it is none or could harm whoever parses it. Pure.

The nesting is measured on the bytes before anything is built from them: ten megabytes of brackets
cost a scan, not ten million objects.
"""

import json
import re
import sys
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from serve_app.errors import InvalidRequest

MAX_DEPTH = 64
_SPACE = " \t\r\n"
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
    except UnicodeDecodeError as err:
        told = f"byte {err.start} is not UTF-8; a compressed body is not read"
        raise InvalidRequest(f"The body is not valid JSON: {told}.") from None
    except json.JSONDecodeError as err:
        raise InvalidRequest(f"The body is not valid JSON: {str(err)[:120]}.") from None
    except ValueError:
        told = f"a number has more than {sys.get_int_max_str_digits()} digits"
        raise InvalidRequest(f"The body is not valid JSON: {told}.") from None
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be one JSON object.")
    return value


def without(raw: bytes, name: str) -> bytes:
    """Return the JSON object ``raw`` without its member ``name``; every other byte stays.

    Raises:
        InvalidRequest: it has that member twice.
    """
    text = raw.decode()
    spans = [span for key, span in _members(text) if key == name]
    if len(spans) > 1:
        raise InvalidRequest(f"The body carries '{name}' twice; send one.", param=name)
    for begin, end in spans:
        before, after = text[:begin].rstrip(_SPACE), text[end:].lstrip(_SPACE)
        if after.startswith(","):
            after = after[1:]
        else:
            before = before.removesuffix(",")
        text = before + after
    return text.encode()


def _members(text: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the members of the JSON object ``text``: each name, and from where to where it goes."""
    decoder, at = json.JSONDecoder(), text.index("{") + 1
    while True:
        at = _next(text, at)
        if text[at] == "}":
            return
        begin = at
        name, at = decoder.raw_decode(text, at)
        _, at = decoder.raw_decode(text, _next(text, _next(text, at) + 1))  # behind the colon
        yield name, (begin, at)
        at = _next(text, at)
        at += text[at] == ","


def _next(text: str, at: int) -> int:
    """Return where the next character that is no space stands."""
    while text[at] in _SPACE:
        at += 1
    return at


def depth(raw: bytes) -> int:
    """Return how deep the brackets of ``raw`` are nested; of invalid JSON, at least as deep."""
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return 0  # cannot be deeper than it has brackets
    brackets = _STRINGS.sub(b"", raw).translate(None, _NOT_BRACKETS)
    return max(accumulate(_STEP[bracket] for bracket in brackets), default=0)


def _refuse(constant: str) -> None:
    raise InvalidRequest(f"The body is not valid JSON: {constant} is not a JSON number.")
