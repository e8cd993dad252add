"""Find one member of a JSON object that flows by, however large, and keep nothing else. Pure.

Only the member at the object's top counts: what a model or a client wrote may hold others of that
name. Every byte is looked at a bounded number of times: 64 KB take 1 to 4 ms.
"""

import json
import re
from typing import Any

MAX_VALUE_BYTES = 4_096
MAX_NAME_BYTES = 256
"""A string of which more has come, and not yet its end, is no name that is looked for."""

_WHOLE = re.compile(rb'(?:[^"]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_STRING_REST = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_SPACE = re.compile(rb"\s*+")


class Member:
    """Reads the member ``name`` of an object, an object itself, from pieces of its text.

    Args:
        name: the member's; of one that is there twice, the last counts.

    Attributes:
        value: what it holds, once that has come.
    """

    def __init__(self, name: str) -> None:
        self.value: dict[str, Any] | None = None
        self._name = re.compile(rb'(?<!\\)"' + re.escape(name.encode()) + rb'"\s*+:\s*+')
        self._cut = re.compile(rb'"' + re.escape(name.encode()) + rb'"\s*+(?::\s*+)?\Z')
        self._depth, self._in_string = 0, False
        self._rest = b""

    def feed(self, piece: bytes) -> None:
        """Take in the next piece."""
        data, self._rest, at = self._rest + piece, b"", 0
        if self._in_string:
            at = self._string_end(data)
            if self._in_string:
                return
        while found := self._name.search(data, at):
            self._count(data[at : found.start()])
            if self._depth == 1 and not self._read(data, found.end()):
                self._rest = data[found.start() :]
                return
            at = found.end()
        self._keep(data[at:])

    def _string_end(self, data: bytes) -> int:
        """Return where the string ends that has begun before ``data``."""
        found = _STRING_REST.match(data)
        end = found.end() if found else 0
        self._in_string = data[end : end + 1] != b'"'
        self._rest = data[end:] if self._in_string else b""
        return end + 1

    def _count(self, whole: bytes) -> None:
        """Count the brackets of whole tokens."""
        bare = _STRINGS.sub(b"", whole)
        self._depth += bare.count(b"{") + bare.count(b"[") - bare.count(b"}") - bare.count(b"]")

    def _read(self, data: bytes, at: int) -> bool:
        """Read the value at ``at``; return False if not all of it has come."""
        text = data[at : at + MAX_VALUE_BYTES].decode(errors="replace")
        try:
            value, _ = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError):
            return len(data) - at >= MAX_VALUE_BYTES
        if isinstance(value, dict):
            self.value = value
        return True

    def _keep(self, data: bytes) -> None:
        """Count what is whole of ``data``, and keep of its end what the next piece goes on with."""
        found = _WHOLE.match(data)
        end = found.end() if found else 0
        if end == len(data) and (cut := self._cut.search(data, max(0, end - MAX_NAME_BYTES))):
            end = cut.start()
        self._count(data[:end])
        self._rest = data[end:]
        if len(self._rest) > MAX_NAME_BYTES:
            self._rest, self._in_string = b"", True
            self._string_end(data[end + 1 :])
