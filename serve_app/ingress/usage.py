"""Find the usage in a reply as it goes by, without touching any other byte. Pure.

event stream   frames end with a blank line; the dialect's :class:`Stream` says which to read; the
               usage frame of a completion has ``"choices":[]``
JSON           the object's ``usage``; of a large one, the last in its tail
bytes          embeddings; the object in the header ``metadata`` has it, or nothing has
names          ``prompt_tokens``, ``completion_tokens`` or ``input_tokens``, ``output_tokens``;
               Anthropic's input is what was not cached, so what was is added
"""

import json
import re
from typing import Any

from serve_app.ingress.dialects import Stream
from serve_app.limits import Usage

MAX_HELD_BYTES = 1024 * 1024
TAIL_BYTES = 64 * 1024
"""Kept of a reply that is larger: engines tell the usage at its end."""

_TOLD = re.compile(rb'"usage"\s*:\s*(?={)')
_END = b"\n\n"
_OPENING = b'"delta":{"role":"assistant","content":""'
"""In the frame that begins each choice of a chat, and says nothing yet."""


class _Reader:
    """Writes into ``usage`` what events tell.

    Attributes:
        told: which counts were told at all: ``input``, ``output``.
    """

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self.told: set[str] = set()

    def _take(self, event: dict[str, Any]) -> bool:
        """Write the counts of ``event`` into the usage; return whether it had any.

        A count that is not told stays as it was, so that a reply may tell its counts one by one.
        """
        told, usage = event.get("usage"), self._usage
        if not isinstance(told, dict):
            return False
        read = _count(told, "cache_read_input_tokens")
        beside = (read or 0) + (_count(told, "cache_creation_input_tokens") or 0)
        details = told.get("prompt_tokens_details") or told.get("input_tokens_details")
        if isinstance(details, dict) and read is None:
            read = _count(details, "cached_tokens")
        put = _count(told, "prompt_tokens", "input_tokens")
        out = _count(told, "completion_tokens", "output_tokens")
        if put is not None:
            usage.input_tokens = put + beside
            self.told.add("input")
        if out is not None:
            usage.output_tokens = out
            self.told.add("output")
        usage.cached_tokens = min(usage.cached_tokens if read is None else read, usage.input_tokens)
        return True


class StreamUsage(_Reader):
    """Reads an event stream; drops the usage frame if the client did not ask for it.

    Args:
        usage: filled in as frames go by; until usage is told, output counts frames.
        stream: how the dialect's streams tell things.
        keep_frame: whether a frame that tells only usage goes on to the client.

    Attributes:
        finished: whether it came to its end, good or bad.
        failed: whether the engine itself gave up; the frame that says so is the last to go on.
        frames: how many frames have come.
    """

    def __init__(self, usage: Usage, stream: Stream, *, keep_frame: bool) -> None:
        super().__init__(usage)
        self._stream, self._keep = stream, keep_frame
        self._rest = b""
        self.finished = self.failed = False
        self.frames = 0

    def feed(self, chunk: bytes) -> bytes:
        """Return what may go on to the client: whole frames only."""
        data = self._rest + chunk if self._rest else chunk
        *frames, self._rest = data.split(_END)
        self.frames += len(frames)
        if not self.failed and not self._stream.notable.search(data):
            whole = data[: len(data) - len(self._rest)]
            self._usage.output_tokens += self._pieces(whole, len(frames))
            return whole
        return b"".join(map(self._read, frames))

    def end(self) -> bytes:
        """Return what was held back when the stream ended."""
        rest, self._rest = self._rest, b""
        return b"" if self.failed else rest

    def _pieces(self, frames: bytes, count: int) -> int:
        """Return how many of ``count`` frames bring a piece of the reply."""
        piece = self._stream.piece
        return frames.count(piece) if piece else count - frames.count(_OPENING)

    def _read(self, frame: bytes) -> bytes:
        if self.failed:
            return b""
        ends = frame.startswith(self._stream.ends)
        self.failed = frame.startswith(self._stream.fails)
        self.finished = self.finished or ends or self.failed
        if b'"usage"' in frame and self._told(event := _event(frame)):
            if not event.get("choices") and not self._keep:
                return b""
        elif not ends and not self.failed:
            self._usage.output_tokens += self._pieces(frame + _END, 1)
        return frame + _END

    def _told(self, event: dict[str, Any]) -> bool:
        """Write the counts of ``event``, wherever it has them; return whether it had any."""
        inside = (event.get(name) for name in self._stream.usage_in)
        return any(self._take(one) for one in (event, *inside) if isinstance(one, dict))


class JsonUsage(_Reader):
    """Reads a whole JSON reply; passes everything on.

    Args:
        usage: filled in at the end; what the reply does not tell stays as it is.
        beside: a header in which a reply that is no JSON tells it.
    """

    def __init__(self, usage: Usage, beside: str = "") -> None:
        super().__init__(usage)
        self._beside = beside
        self._held, self._large = bytearray(), False
        self.finished, self.failed = True, False
        self.frames = 0

    def feed(self, chunk: bytes) -> bytes:
        """Return ``chunk``; a copy is kept, of a large reply only the tail."""
        self._held += chunk
        if len(self._held) > MAX_HELD_BYTES or self._large:
            self._large = True
            del self._held[:-TAIL_BYTES]
        return chunk

    def end(self) -> bytes:
        """Read the usage; nothing was held back."""
        self._take(_parsed(self._beside))
        kept = bytes(self._held)
        self._take(_last_usage(kept) if self._large else _parsed(kept))
        return b""


def _last_usage(tail: bytes) -> dict[str, Any]:
    """Return the last usage that ends in ``tail``, as if it were all of an object."""
    for found in reversed([*_TOLD.finditer(tail)]):
        try:
            told, _ = json.JSONDecoder().raw_decode(tail[found.end() :].decode(errors="replace"))
        except (ValueError, RecursionError):
            continue
        return {"usage": told}
    return {}


def _event(frame: bytes) -> dict[str, Any]:
    """Return the object in a frame's data."""
    return _parsed((b"\n" + frame).partition(b"\ndata:")[2])


def _parsed(payload: bytes | str) -> dict[str, Any]:
    try:
        event = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def _count(told: dict[str, Any], *names: str) -> int | None:
    """Return the first of the named counts; None if there is none that is a count."""
    found = (told.get(name) for name in names)
    return next((count for count in found if type(count) is int and count >= 0), None)
