"""What a client asks of a model: found, checked, and made ready to send on. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from serve_app.auth import Caller
from serve_app.errors import InvalidRequest, NoSuchModel, PromptTooLong
from serve_app.ingress.reading.catalogue import may_ask
from serve_app.ingress.reading.demand import Weighed, weighed
from serve_app.ingress.reading.dialects import DIALECTS, RANK_FIELD, RANK_HEADER, Dialect
from serve_app.ingress.reading.prefix import prefix_of
from serve_app.model_settings import Model
from serve_app.queueing import Place

JSON = "application/json"
_UNKNOWN = Dialect()
_SAID = {"true": True, "1": True, "false": False, "0": False, "": False}
"""What a form says for yes and no."""


@dataclass(frozen=True, slots=True)
class Call:
    """One inference request, ready to be relayed.

    Attributes:
        model: the model that serves it.
        path: the engine's path.
        body: what the engine gets.
        streaming: whether an event stream was asked for.
        wants_usage: whether a frame that tells only usage is the client's, too.
        demand: what it may use.
        prefix: the same for all requests of one conversation; empty for none.
        asked: the name it asks for; the model's own if empty.
        media_type: the body's, as the client wrote it.
        headers: that the engine gets for this call alone.
        kept: whether an engine that keeps responses shall keep this one.
        follows: the kept response that it goes on from; empty if none.
        place: where that is kept.
    """

    model: Model
    path: str
    body: bytes
    streaming: bool
    wants_usage: bool
    demand: Weighed
    prefix: str = ""
    asked: str = ""
    media_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    kept: bool = True
    follows: str = ""
    place: Place | None = None

    @property
    def counts_as(self) -> str:
        """The name under which limits, usage and log know it."""
        return self.model.counted(self.asked or self.model.name)

    @property
    def adapter(self) -> str:
        """The adapter that it asks for; empty if it asks for the model itself."""
        return self.counts_as if self.counts_as != self.model.name else ""

    @property
    def dialect(self) -> Dialect:
        """The row of the table for its path; of a path that is not there, an empty one."""
        return DIALECTS.get(self.path, _UNKNOWN)

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
        dialect = self.dialect
        if dialect.form or not dialect.generates:
            return self
        return replace(self, body=append(self.body, {dialect.caps[0]: cap}))

    def ranked(self, rank: int) -> Self:
        """Return the same call with the rank of its class, told to an engine that schedules by it.

        A rank of 0, the highest, is what such an engine assumes.
        """
        by = self.dialect.ranked_by
        if rank == 0 or not self.model.schedules_by_priority or not by:
            return self
        if by == "header":
            return replace(self, headers={**self.headers, RANK_HEADER: str(rank)})
        return replace(self, body=append(self.body, {RANK_FIELD: rank}))

    def named(self, name: str) -> Self:
        """Return the same call with the name under which an engine may keep its reply."""
        return replace(self, body=append(self.body, {"request_id": name}))

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
    media_type: str = JSON,
) -> Call:
    """Return the call that a body makes.

    Args:
        path: the engine's path.
        raw: the body as it came.
        fields: the object in it, or a form's fields.
        models: the models there are, by each name of theirs.
        max_prompt_chars: characters that a prompt may have; 0 is no limit.
        media_type: the body's, as it came.

    Raises:
        PromptTooLong: it has more.
        InvalidRequest: a field the gate must understand is missing or of the wrong type, or asks
            for work in the background.
        NoSuchModel: there is no such model.
    """
    name = fields.get("model")
    if not isinstance(name, str):
        raise InvalidRequest("'model' must be a string that names a model.", param="model")
    if name not in models:
        raise NoSuchModel(f"The model '{name[:128]}' does not exist.", param="model")
    dialect = DIALECTS.get(path, _UNKNOWN)
    streaming = dialect.stream is not None and _streaming(fields, dialect)
    by_options = dialect.stream is not None and dialect.stream.on_request
    options = _options(fields) if by_options else {}
    ours: dict[str, Any] = {}
    if streaming and by_options:
        wishes = options if options.get("include_usage") else _without_usage(options)
        ours["stream_options"] = {**wishes, "include_usage": True}
    if RANK_FIELD in fields and dialect.ranked_by == "field":
        ours[RANK_FIELD] = 0  # the class decides: see ``ranked``
    return Call(
        model=models[name],
        path=path,
        body=append(raw, ours),
        streaming=streaming,
        wants_usage=bool(options.get("include_usage")) or not by_options,
        demand=_fitting(weighed(path, len(raw), fields, models[name]), max_prompt_chars),
        prefix=prefix_of(path, fields),
        asked=name,
        media_type=media_type,
        kept=fields.get("store") is not False,
        follows=_kept_before(fields) if dialect.keeps else "",
    )


def _streaming(fields: dict[str, Any], dialect: Dialect) -> bool:
    """Return whether ``fields`` ask for an event stream; a form says it in words."""
    said = fields.get("stream")
    if dialect.form and isinstance(said, str):
        said = _SAID.get(said.lower(), said)
    if not isinstance(said, bool | None):
        raise InvalidRequest("'stream' must be true or false.", param="stream")
    return bool(said)


def _kept_before(fields: dict[str, Any]) -> str:
    """Return the kept response that ``fields`` go on from; empty if none.

    What is made in the background outlives its request: nobody would hold a seat for it, nor pay.
    """
    background = fields.get("background")
    if background is not None and background is not False:
        told = "'background' must be false here; send 'stream': true and stay, or wait."
        raise InvalidRequest(told, param="background")
    said = fields.get("previous_response_id")
    if not isinstance(said, str | None):
        told = "'previous_response_id' must be a string."
        raise InvalidRequest(told, param="previous_response_id")
    return said or ""


def _options(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the options that a client gives of its stream."""
    options = fields.get("stream_options")
    if not isinstance(options, dict | None):
        raise InvalidRequest("'stream_options' must be an object.", param="stream_options")
    return options or {}


def _without_usage(options: dict[str, Any]) -> dict[str, Any]:
    """Return a stream's options for a client that has not asked for usage: it gets none."""
    return {name: said for name, said in options.items() if name != "continuous_usage_stats"}


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
