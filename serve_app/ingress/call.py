"""What a client asks of a model: found, checked, and made ready to send on. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from serve_app.auth import Caller
from serve_app.errors import InvalidRequest, NoSuchModel, PromptTooLong
from serve_app.ingress.catalogue import may_ask
from serve_app.ingress.demand import Weighed, weighed
from serve_app.ingress.dialects import DIALECTS
from serve_app.ingress.prefix import prefix_of
from serve_app.model_settings import Model


@dataclass(frozen=True, slots=True)
class Call:
    """One inference request, ready to be relayed.

    Attributes:
        model: the model that serves it.
        path: the engine's path.
        body: what the engine gets.
        streaming: whether an event stream was asked for.
        wants_usage: whether the client asked for the usage frame itself.
        demand: what it may use.
        prefix: the same for all requests of one conversation; empty for none.
        asked: the name it asks for; the model's own if empty.
    """

    model: Model
    path: str
    body: bytes
    streaming: bool
    wants_usage: bool
    demand: Weighed
    prefix: str = ""
    asked: str = ""

    @property
    def counts_as(self) -> str:
        """The name under which limits, usage and log know it."""
        return self.model.counted(self.asked or self.model.name)

    @property
    def output_cap(self) -> int | None:
        """Output tokens of a reply if neither client nor limits name a cap; None to learn it."""
        cap = self.model.output_cap
        return self.demand.default_cap if cap is None else cap

    def capped(self, cap: int) -> Self:
        """Return the same call with ``cap`` output tokens per reply at most, told to the engine.

        It is for requests that name none. A body that is no JSON, or asks for no reply, stays as it
        is.
        """
        dialect = DIALECTS.get(self.path)
        if dialect is None or dialect.media or not dialect.generates:
            return self
        return replace(self, body=append(self.body, {dialect.caps[0]: cap}))

    def ranked(self, rank: int) -> Self:
        """Return the same call with the rank of its class, told to an engine that schedules by it.

        A rank of 0, the highest, is what such an engine assumes.
        """
        dialect = DIALECTS.get(self.path)
        if rank == 0 or not self.model.schedules_by_priority or dialect is None or dialect.media:
            return self
        return replace(self, body=append(self.body, {"priority": rank}))

    def must_be_allowed(self, caller: Caller) -> None:
        """Return if ``caller`` may make this call.

        Raises:
            Forbidden: it may not stream, not use this endpoint, or not this model.
        """
        if self.streaming:
            caller.must("use_streaming")
        caller.must_reach(self.path)
        if not may_ask(caller, self.asked, self.model):
            caller.must_use(self.asked or self.counts_as)


def read(
    path: str,
    raw: bytes,
    fields: dict[str, Any],
    models: Mapping[str, Model],
    *,
    max_prompt_chars: int = 0,
) -> Call:
    """Return the call that a body makes.

    Args:
        path: the engine's path.
        raw: the body as it came.
        fields: the object in it.
        models: the models there are, by each name of theirs.
        max_prompt_chars: characters that a prompt may have; 0 is no limit.

    Raises:
        PromptTooLong: it has more.
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
        ours["priority"] = 0  # the class decides: see ``ranked``
    return Call(
        model=models[name],
        path=path,
        body=append(raw, ours),
        streaming=bool(streaming),
        wants_usage=bool(options.get("include_usage")),
        demand=_fitting(weighed(path, len(raw), fields, models[name]), max_prompt_chars),
        prefix=prefix_of(path, fields),
        asked=name,
    )


def _fitting(asked: Weighed, max_chars: int) -> Weighed:
    """Return ``asked`` if its prompt has no more than ``max_chars`` characters; 0 is no limit."""
    if 0 < max_chars < asked.chars:
        raise PromptTooLong(
            f"The prompt has {asked.chars} characters, most of them in '{asked.longest}'; "
            f"at most {max_chars} may be sent.",
            param=asked.longest,
        )
    return asked


def append(raw: bytes, members: dict[str, Any]) -> bytes:
    """Return the JSON object ``raw`` with ``members`` at its end, where the last mention wins.

    Every other byte stays as the client wrote it; with no members, each of them.
    """
    if not members:
        return raw
    head = raw.rstrip()[:-1].rstrip()
    comma = b"" if head.endswith(b"{") else b","
    return head + comma + json.dumps(members, separators=(",", ":")).encode()[1:]
