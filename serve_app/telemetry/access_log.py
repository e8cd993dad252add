"""The access log: one JSON object per request, on standard output."""

import contextlib
import json
import sys
import time
from typing import Any, TextIO


class AccessLog:
    """Writes one line per request.

    Args:
        out: where to; the process's own standard output by default, because Serve buffers
            ``sys.stdout`` by the thousand lines.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.__stdout__ or sys.stdout

    def write(self, fields: dict[str, Any]) -> None:
        """Write ``fields`` with the time in front. Never raises on a value that JSON lacks."""
        line = {"time": round(time.time(), 3), **fields}
        with contextlib.suppress(OSError):  # a full disk must not refuse requests
            self._out.write(json.dumps(line, default=str) + "\n")
            self._out.flush()
