"""What an engine answered, so that two answers can be compared. Pure."""

import json
import math
import re
from dataclasses import dataclass
from typing import Any

import httpx

MADE_ANEW = ("id", "item_id", "call_id", "created", "created_at", "completed_at")
COUNTED = ("sequence_number",)
"""Where a frame stands among the others, which says nothing once they are joined."""
DONE = "[DONE]"


@dataclass(frozen=True)
class Answer:
    """A reply without what is made anew for each.

    Attributes:
        told: the object of a whole reply, or the frames of a stream.
    """

    status: int
    media: str
    told: Any

    def joined(self) -> Any:
        """Return a stream as if it had come in one frame; ``[DONE]`` is counted."""
        if not isinstance(self.told, list):
            return self.told
        whole: Any = {}
        for frame in self.told:
            whole = _folded(whole, frame if isinstance(frame, dict) else {"done": 1})
        return whole


def read(reply: httpx.Response) -> Answer:
    """Return what ``reply``, read to its end, says."""
    media = reply.headers["content-type"]
    if not media.startswith("text/event-stream"):
        return Answer(reply.status_code, media, lasting(reply.json()))
    assert reply.content.endswith(b"\n\n"), reply.text[-200:]
    frames = [_frame(frame) for frame in reply.text.split("\n\n")[:-1]]
    return Answer(reply.status_code, media, sorted(frames, key=_choice))


def _choice(frame: Any) -> float:
    """Return which choice a frame belongs to: those of several come as their tokens are made."""
    choices = frame.get("choices") if isinstance(frame, dict) else None
    return choices[0]["index"] if choices else math.inf


def _frame(text: str) -> Any:
    """Return what one frame says: its event, if it names one, and its object."""
    lines = dict(line.split(": ", 1) for line in text.split("\n"))
    assert set(lines) <= {"event", "data"}, text
    if lines["data"] == DONE:
        return DONE
    told = lasting(json.loads(lines["data"]))
    told.pop("system_fingerprint", None)  # in the frame that tells the usage, or in the last one
    return {"event": lines["event"], **told} if "event" in lines else told


def lasting(value: Any) -> Any:
    """Return ``value`` without what is made anew for each answer.

    vLLM says how many members a body has when one is missing; the gate adds some.
    """
    if isinstance(value, dict):
        return {name: lasting(one) for name, one in value.items() if name not in MADE_ANEW}
    if isinstance(value, str):
        return re.sub(r"<dict of \d+ items>", "<dict>", value)
    return [lasting(one) for one in value] if isinstance(value, list) else value


def _folded(before: Any, after: Any) -> Any:
    """Return two frames as one: texts and lists go on, choices by their index, else the later."""
    if before is None or after is None:
        return after if before is None else before
    if isinstance(before, dict):
        names = {**before, **after}
        return {
            name: _named(name, before.get(name), after.get(name))
            for name in names
            if name not in COUNTED
        }
    if isinstance(before, list):
        if not any("index" in one for one in (*before, *after) if isinstance(one, dict)):
            return before + after
        by_index = {one["index"]: one for one in before}
        for one in after:
            by_index[one["index"]] = _folded(by_index.get(one["index"]), one)
        return list(by_index.values())
    return before + after if isinstance(before, str) else after


def _named(name: str, before: Any, after: Any) -> Any:
    """Return a member of two frames as one; what every frame repeats is said once."""
    if name in ("object", "model", "type", "usage"):
        return before if after is None else after
    return _folded(before, after)
