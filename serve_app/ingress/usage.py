"""Find the usage in a reply as it goes by, without touching any other byte. Pure.

event stream   frames end with a blank line; the usage frame has ``"choices":[]``
JSON           the object's ``usage``
"""

import json
from typing import Any

from serve_app.limits import Usage

MAX_HELD_BYTES = 16 * 1024 * 1024
_END = b"\n\n"


class StreamUsage:
    """Reads an event stream; drops the usage frame if the client did not ask for it.

    Args:
        usage: filled in as frames go by; until the usage frame comes, output counts frames.
        keep_frame: whether the client asked for the usage frame.
    """

    def __init__(self, usage: Usage, *, keep_frame: bool) -> None:
        self._usage = usage
        self._keep = keep_frame
        self._rest = b""
        self.finished = False

    def feed(self, chunk: bytes) -> bytes:
        """Return what may go on to the client: whole frames only."""
        data = self._rest + chunk if self._rest else chunk
        *frames, self._rest = data.split(_END)
        if b'"usage"' not in data and b"[DONE]" not in data:
            self._usage.output_tokens += len(frames)
            return data[: len(data) - len(self._rest)]
        return b"".join(map(self._read, frames))

    def end(self) -> bytes:
        """Return what was held back when the stream ended."""
        rest, self._rest = self._rest, b""
        return rest

    def _read(self, frame: bytes) -> bytes:
        payload = frame.removeprefix(b"data:").strip()
        if payload == b"[DONE]":
            self.finished = True
        elif b'"usage"' in payload and _take(event := _parsed(payload), self._usage):
            if not event.get("choices") and not self._keep:
                return b""
        else:
            self._usage.output_tokens += 1
        return frame + _END


class JsonUsage:
    """Reads a whole JSON reply; passes everything on."""

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self._held = bytearray()
        self.finished = True

    def feed(self, chunk: bytes) -> bytes:
        """Return ``chunk``; a copy is kept up to 16 MB."""
        if len(self._held) + len(chunk) <= MAX_HELD_BYTES:
            self._held += chunk
        return chunk

    def end(self) -> bytes:
        """Read the usage; nothing was held back."""
        _take(_parsed(bytes(self._held)), self._usage)
        return b""


def _parsed(payload: bytes) -> dict[str, Any]:
    try:
        event = json.loads(payload)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _take(event: dict[str, Any], usage: Usage) -> bool:
    """Write the counts of ``event`` into ``usage``; return whether it had any."""
    told = event.get("usage")
    if not isinstance(told, dict):
        return False
    usage.input_tokens = int(told.get("prompt_tokens") or 0)
    usage.output_tokens = int(told.get("completion_tokens") or 0)
    return True
