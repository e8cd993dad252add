"""What a client asks of a model: found, checked, and made ready to send on. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serve_app.auth import Caller
from serve_app.errors import InvalidRequest, NoSuchModel
from serve_app.settings import Model

BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Call:
    """One inference request, ready to be relayed.

    Attributes:
        model: the model it asks for.
        path: the engine's path.
        body: what the engine gets.
        streaming: whether an event stream was asked for.
        wants_usage: whether the client asked for the usage frame itself.
        input_estimate: prompt tokens, guessed from the bytes, until the engine says better.
    """

    model: Model
    path: str
    body: bytes
    streaming: bool
    wants_usage: bool
    input_estimate: int

    def must_be_allowed(self, caller: Caller) -> None:
        """Return if ``caller`` may make this call.

        Raises:
            Forbidden: it may not stream, not use this endpoint, or not this model.
        """
        if self.streaming:
            caller.must("use_streaming")
        caller.must_reach(self.path)
        caller.must_use(self.model.name)


def read(path: str, raw: bytes, fields: dict[str, Any], models: Mapping[str, Model]) -> Call:
    """Return the call that a body makes.

    Args:
        path: the engine's path.
        raw: the body as it came.
        fields: the object in it.
        models: the models there are, by name.

    Raises:
        InvalidRequest: a field the gate must understand is missing or of the wrong type.
        NoSuchModel: there is no such model.
    """
    name = fields.get("model")
    if not isinstance(name, str):
        raise InvalidRequest("'model' must be a string that names a model.", param="model")
    if name not in models:
        raise NoSuchModel(f"The model '{name[:128]}' does not exist.", param="model")
    streaming = fields.get("stream")
    if not isinstance(streaming, bool | None):
        raise InvalidRequest("'stream' must be true or false.", param="stream")
    options = fields.get("stream_options")
    if not isinstance(options, dict | None):
        raise InvalidRequest("'stream_options' must be an object.", param="stream_options")
    options = options or {}
    ours: dict[str, Any] = {}
    if streaming:
        ours["stream_options"] = {**options, "include_usage": True}
    if "priority" in fields:
        ours["priority"] = 0  # the class decides, and there is one
    return Call(
        model=models[name],
        path=path,
        body=append(raw, ours),
        streaming=bool(streaming),
        wants_usage=bool(options.get("include_usage")),
        input_estimate=max(1, len(raw) // BYTES_PER_TOKEN),
    )


def append(raw: bytes, members: dict[str, Any]) -> bytes:
    """Return the JSON object ``raw`` with ``members`` at its end, where the last mention wins.

    Every other byte stays as the client wrote it; with no members, each of them.
    """
    if not members:
        return raw
    head = raw.rstrip()[:-1].rstrip()
    comma = b"" if head.endswith(b"{") else b","
    return head + comma + json.dumps(members, separators=(",", ":")).encode()[1:]
