"""A body becomes an :class:`Ask`, or a :class:`Refusal` that looks like vLLM's."""

from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from serve_app.engine.simulated.reply import (
    TOKENS_PER_MESSAGE,
    Reply,
    compose,
    count_tokens,
    cut,
)

COMPLETION_CAP = 16
"""``max_tokens`` of a completion that names none, as in OpenAI's API."""


class Refusal(Exception):
    """The engine says no. ``str(err)`` is shown to the caller.

    Attributes:
        status: HTTP status.
        kind: vLLM's ``type``.
        param: the field at fault.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "BadRequestError",
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param


class StreamOptions(msgspec.Struct):
    """What a stream says about usage."""

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class Body(msgspec.Struct):
    """The fields that both dialects share and the engine heeds; it ignores all others."""

    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = 1
    stop: str | list[str] | None = None
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    priority: int = 0


class Message(msgspec.Struct):
    """One turn of a chat; parts that are not text count as no tokens."""

    role: str
    content: str | list[dict[str, Any]] | None = None


class ChatBody(Body, kw_only=True):
    """The body of /v1/chat/completions."""

    messages: list[Message]


class CompletionBody(Body, kw_only=True):
    """The body of /v1/completions."""

    prompt: str | list[Any]


B = TypeVar("B", bound=Body)


@dataclass(frozen=True, slots=True)
class Served:
    """What this engine serves.

    Attributes:
        model: the model's first name.
        context_tokens: tokens that prompt and reply may have.
        aliases: its other names.
        adapters: names of the LoRA adapters that are loaded.
    """

    model: str
    context_tokens: int
    aliases: frozenset[str] = frozenset()
    adapters: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that the engine can serve; ``adapter`` is the one it is for, None for none."""

    prompt_tokens: int
    reply: Reply
    priority: int
    stream: bool
    include_usage: bool
    continuous_usage: bool
    adapter: str | None = None


def read_chat(raw: bytes, served: Served) -> Ask:
    """Return what a chat body asks for.

    Raises:
        Refusal: 400 or 404, with the field at fault.
    """
    body = _decode(raw, ChatBody)
    _check_model(body, served)
    if not body.messages:
        raise Refusal("messages must not be empty", kind="Bad Request", param="body.messages")
    texts = [_text(message) for message in body.messages]
    tokens = sum(count_tokens(text) + TOKENS_PER_MESSAGE for text in texts)
    cap = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    return _ask(body, served, "\0".join(texts), tokens, cap)


def read_completion(raw: bytes, served: Served) -> Ask:
    """Return what a completion body asks for.

    Raises:
        Refusal: 400 or 404, with the field at fault.
    """
    body = _decode(raw, CompletionBody)
    _check_model(body, served)
    prompt = body.prompt
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        text, tokens = prompt, count_tokens(prompt)
    elif prompt and all(type(token) is int for token in prompt):
        text, tokens = repr(prompt), len(prompt)
    else:
        raise Refusal("prompt must be one text or one list of token ids", param="prompt")
    cap = COMPLETION_CAP if body.max_tokens is None else body.max_tokens
    return _ask(body, served, text, tokens, cap)


def _decode(raw: bytes, kind: type[B]) -> B:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        told = f"1 validation error:\n  {err}"
        raise Refusal(told, kind="Bad Request", param=f"body{_path(str(err))}") from None


def _path(said: str) -> str:
    """Return ``.field`` if msgspec's sentence names one, else nothing."""
    if "missing required field" in said:
        return "." + said.split("`")[1]
    _, _, path = said.partition(" - at `$")
    return path.rstrip("`").replace("[", ".").replace("]", "")


def _text(message: Message) -> str:
    parts = message.content or ""
    if isinstance(parts, str):
        return parts
    return "".join(str(part.get("text", "")) for part in parts)


def _ask(body: Body, served: Served, text: str, prompt_tokens: int, cap: int | None) -> Ask:
    _check(body, served, prompt_tokens, cap)
    adapter = body.model if body.model in served.adapters else None
    speaks = f"{adapter}\0{text}" if adapter else text
    reply = compose(speaks.encode(), body.seed, cap, served.context_tokens - prompt_tokens)
    if body.stop:
        reply = cut(reply, [body.stop] if isinstance(body.stop, str) else body.stop)
    options = body.stream_options or StreamOptions()
    return Ask(
        prompt_tokens=prompt_tokens,
        reply=reply,
        priority=body.priority,
        stream=bool(body.stream),
        include_usage=bool(options.include_usage),
        continuous_usage=bool(options.include_usage and options.continuous_usage_stats),
        adapter=adapter,
    )


def _check_model(body: Body, served: Served) -> None:
    known = {served.model, *served.aliases, *served.adapters}
    if body.model and body.model not in known:
        said = f"The model `{body.model}` does not exist."
        raise Refusal(said, status=404, kind="NotFoundError", param="model")


def _check(body: Body, served: Served, prompt_tokens: int, cap: int | None) -> None:
    if body.n not in (None, 1):
        raise Refusal(f"n must be 1 in the simulated engine, got {body.n}.", param="n")
    if cap is not None and cap < 1:
        raise Refusal(f"max_tokens must be at least 1, got {cap}.", param="max_tokens")
    if prompt_tokens + (cap or 1) > served.context_tokens:
        raise Refusal(
            f"This model's maximum context length is {served.context_tokens} tokens. However, "
            f"you requested {cap or 1} output tokens and your prompt contains {prompt_tokens} "
            "input tokens. Please reduce the length of the input prompt or the number of "
            "requested output tokens.",
            param="input_tokens",
        )
