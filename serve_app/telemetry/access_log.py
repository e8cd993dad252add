"""The access log: one JSON object per request, on standard output."""

import contextlib
import json
import re
import sys
import time
from typing import Any, TextIO

from serve_app.redaction import redacted, redacted_member

OURS = frozenset({
    "time", "address", "route", "status", "code", "tenant", "key_id", "made_key_id", "model",
    "class", "credential", "made_user", "queue_ms", "first_byte_ms", "total_ms", "input_tokens",
    "output_tokens", "bytes_out",
})  # fmt: skip
"""Fields whose values this project chooses: numbers, names it knows, an address it has parsed.

Any other field, also one that comes later, is what a client wrote until somebody lists it here.
"""

_PLAIN = re.compile(r"req-[0-9a-f]{24}|[A-Z]{1,7}")
"""An id of our own making, a method: what client-chosen fields hold nearly always."""


class AccessLog:
    """Writes one line per request.

    Args:
        out: where to; the process's own standard output by default, because Serve buffers
            ``sys.stdout`` by the thousand lines.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.__stdout__ or sys.stdout

    def write(self, fields: dict[str, Any]) -> None:
        """Write ``fields`` with the time in front, without the secrets that a client put in.

        Never raises on a value that JSON lacks.
        """
        line = {"time": round(time.time(), 3), **fields}
        for name in line.keys() - OURS:
            value = line[name]
            if not (isinstance(value, str) and _PLAIN.fullmatch(value)):
                line[name] = redacted_member(name, value)
        with contextlib.suppress(OSError):  # a full disk must not refuse requests
            self._out.write(json.dumps(line, default=_text) + "\n")
            self._out.flush()


def _text(value: object) -> str:
    """Return what JSON lacks as text."""
    return redacted(str(value))
