"""Find the usage in a reply as it goes by, without touching any other byte. Pure.

event stream   frames end with a blank line; the dialect's :class:`Stream` says which to read; the
               usage frame of a completion has ``"choices":[]``
JSON           the object's ``usage``; of a large one, found as it flows by
transcript     its text, and the seconds that were heard
bytes          embeddings; the object in the header ``metadata`` has it, or nothing has
names          ``prompt_tokens``, ``completion_tokens`` or ``input_tokens``, ``output_tokens``;
               Anthropic's input is what was not cached, so what was is added
"""

import json
import math
from http import HTTPStatus
from typing import Any

from serve_app.ingress.reading.dialects import SOUND_TOKENS_PER_S, Stream
from serve_app.ingress.reading.member import Member
from serve_app.limits import Usage

MAX_HELD_BYTES = 1024 * 1024
"""So much of a reply is kept, to be parsed at its end; a larger one is read as it flows by."""

MAX_FRAME_BYTES = 8 * 1024 * 1024
"""So much of a frame is held back until its end; what is longer goes on unread."""

TEXT_BYTES_PER_TOKEN = 4
"""Of a transcript, whose tokens nobody tells."""

_THEIRS = HTTPStatus.INTERNAL_SERVER_ERROR
_END = b"\n\n"
_OPENING = b'"delta":{"role":"assistant","content":""'
"""In the frame that begins each choice of a chat, and says nothing yet."""


class _Reader:
    """Writes into ``usage`` what events tell.

    Attributes:
        told: which counts were told at all: ``input``, ``output``.
        finished: whether it came to its end, good or bad.
        failed: whether the engine itself gave up; nothing that follows goes on.
        blamed: whether it says that the request was wrong; that frame is the last to go on.
        frames: how many frames have come.
    """

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self.told: set[str] = set()
        self.finished = self.failed = self.blamed = False
        self.frames = 0

    @property
    def broken(self) -> bool:
        """Whether the client is still to be told that the engine gave up."""
        return not self.finished or (self.failed and not self.blamed)

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
    """

    def __init__(self, usage: Usage, stream: Stream, *, keep_frame: bool) -> None:
        super().__init__(usage)
        self._stream, self._keep = stream, keep_frame
        self._rest: list[bytes] = []
        self._rest_bytes, self._passing = 0, False

    def feed(self, chunk: bytes) -> bytes:
        """Return what may go on to the client: whole frames, and pieces of one that is too long.

        A frame's end is looked for in what is new, so that each byte is looked at a few times only.
        Nearly every chunk is one frame that tells nothing but its piece: it is not taken apart.
        """
        if not self._rest and chunk.endswith(_END) and not (self.failed or self._noted(chunk)):
            return self._counted(chunk)
        last = self._rest[-1][-1:] if self._rest else b""
        if chunk:
            self._rest.append(chunk)
        self._rest_bytes += len(chunk)
        if _END in last + chunk:
            return self._fed()
        return self._let_through() if self._rest_bytes > MAX_FRAME_BYTES or self._passing else b""

    def end(self) -> bytes:
        """Return what was held back when the stream ended."""
        rest = self._held()
        return b"" if self.failed else rest

    def _held(self) -> bytes:
        """Return what was held back, and hold nothing any more."""
        held = b"".join(self._rest)
        self._rest, self._rest_bytes = [], 0
        return held

    def _hold(self, rest: bytes) -> None:
        self._rest, self._rest_bytes = [rest] if rest else [], len(rest)

    def _let_through(self) -> bytes:
        """Return what has come of a frame that is too long to be held back, but its last byte."""
        data = self._held()
        self._hold(data[-1:])
        if self.failed:
            return b""
        if not self._passing:
            how = data.startswith((*self._stream.ends, self._stream.fails))
            self.finished = self.finished or how
            self._usage.output_tokens += 0 if how else self._pieces(data, 1)
        self._passing = True
        return data[:-1]

    def _fed(self) -> bytes:
        """Return what goes on of the frames that have come, and hold back the rest."""
        data, before = self._held(), b""
        if self._passing:
            long, _, data = data.partition(_END)
            before, self._passing = long + _END, False
            self.frames += 1
        *frames, rest = data.split(_END)
        self._hold(rest)
        if not self.failed and not self._noted(data):
            return before + self._counted(data[: len(data) - len(rest)])
        self.frames += len(frames)
        return before + b"".join(map(self._read, frames))

    def _noted(self, data: bytes) -> bool:
        """Return whether any of ``data`` must be read."""
        for words in self._stream.notable:  # noqa: SIM110 - four times as fast as any()
            if words in data:
                return True
        return False

    def _counted(self, frames: bytes) -> bytes:
        """Return whole frames as they came."""
        count = frames.count(_END)
        self.frames += count
        self._usage.output_tokens += self._pieces(frames, count)
        return frames

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
        if self.failed:
            self.blamed = _blames(_event(frame))
            return frame + _END if self.blamed else b""
        if b'"usage"' in frame and self._told(event := _event(frame)):
            if not event.get("choices") and not self._keep:
                return b""
        elif not ends:
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
        self._held, self._large = bytearray(), Member("usage")
        self._is_large = False
        self.finished = True

    def feed(self, chunk: bytes) -> bytes:
        """Return ``chunk``; of a reply that is not large, a copy is kept."""
        self._held += chunk
        if self._is_large or len(self._held) > MAX_HELD_BYTES:
            self._is_large = True
            self._large.feed(bytes(self._held))
            self._held.clear()
        return chunk

    def end(self) -> bytes:
        """Read the usage; nothing was held back."""
        self._take(_parsed(self._beside))
        kept = bytes(self._held)
        self._take({"usage": self._large.value} if self._is_large else _parsed(kept))
        return b""


class SoundUsage(JsonUsage):
    """Reads a transcript, which tells seconds for its input, or none, and its text for its output.

    The seconds count as input that is not told: they are no tokens of the model's.
    """

    def _take(self, event: dict[str, Any]) -> bool:
        had = super()._take(event)
        told, text = event.get("usage"), event.get("text")
        seconds = told.get("seconds") if isinstance(told, dict) else event.get("duration")
        if "input" not in self.told and (heard_s := _seconds(seconds)):
            self._usage.input_tokens = math.ceil(heard_s * SOUND_TOKENS_PER_S)
        if "output" not in self.told and isinstance(text, str):
            written = len(text.encode(errors="replace"))
            self._usage.output_tokens = math.ceil(written / TEXT_BYTES_PER_TOKEN)
            self.told.add("output")
        return had


def _seconds(told: object) -> float:
    """Return the seconds that a transcript tells, as a number or in words; 0 if it tells none."""
    try:
        seconds = float(told) if isinstance(told, int | float | str) else 0.0
    except (ValueError, OverflowError):
        return 0.0
    return seconds if 0 < seconds < math.inf else 0.0


def _event(frame: bytes) -> dict[str, Any]:
    """Return the object in a frame's data."""
    return _parsed((b"\n" + frame).partition(b"\ndata:")[2])


def _blames(event: dict[str, Any]) -> bool:
    """Return whether an engine's error is the request's, as vLLM tells it: by code, or by type."""
    error = event.get("error")
    told = error if isinstance(error, dict) else event
    code = told.get("code")
    by_code = isinstance(code, int) and HTTPStatus.BAD_REQUEST <= code < _THEIRS
    return by_code or told.get("type") in ("BadRequestError", "invalid_request_error")


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
