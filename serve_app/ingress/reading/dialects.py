"""The table of dialects: one row says of an engine's path all that the gate knows of it.

Where a prompt stands and what bounds a reply (read for its cost), how a stream ends and where its
usage is told, how a rank is told, and the shape in which its clients read errors. A route, its
permission and its relay follow from the row. Source: vLLM 0.32, ``entrypoints``.
"""

from dataclasses import dataclass
from functools import cached_property

_TEMPLATE = ("chat_template", "chat_template_kwargs", "documents")


@dataclass(frozen=True)
class Stream:
    """How a dialect's event stream tells its pieces, its usage and its end.

    Attributes:
        ends: how the frame begins that ends it well.
        fails: how the frame begins in which the engine itself gives up; nothing follows it.
        piece: stands once in each frame that brings a piece of the reply; empty: in every frame.
        usage_in: the members of an event in which its usage may stand, beside the event itself.
        on_request: whether usage is told only if ``stream_options`` ask for it.
    """

    ends: tuple[bytes, ...]
    fails: bytes
    piece: bytes = b""
    usage_in: tuple[str, ...] = ()
    on_request: bool = False

    @cached_property
    def notable(self) -> tuple[bytes, ...]:
        """What stands in frames that must be read; all others are only counted."""
        return (*self.ends, self.fails, b'"usage"')


_DONE = b"data: [DONE]"
_CHUNKS = Stream((_DONE,), b'data: {"error"', on_request=True)
_RESPONSE_ENDS = tuple(
    b"event: response." + how for how in (b"completed", b"failed", b"incomplete")
)
_RESPONSE_EVENTS = Stream(
    _RESPONSE_ENDS, b"event: error", piece=b".delta\ndata:", usage_in=("response",)
)
_MESSAGE_EVENTS = Stream(
    (b"event: message_stop",),
    b"event: error",
    piece=b"content_block_delta\ndata:",
    usage_in=("message",),
)
_SPOKEN_CHUNKS = Stream((_DONE,), b'data: {"error"')


@dataclass(frozen=True)
class Dialect:
    """One engine path.

    Attributes:
        talks: fields that hold messages.
        prompts: fields that hold a text, token ids, or a list of either; each has its own replies.
        texts: fields whose every string is read by the model.
        shown: fields that a chat template shows as they are.
        schemas: fields that hold tools; they are shown, too.
        queries: those of ``texts`` that are read again with each of the others' documents.
        caps: fields that bound a reply; the first is the one that the gate sets.
        default_cap: output tokens per reply where no cap is named, if the engine fixes them.
        generates: whether there are replies at all.
        form: whether the body is a form that carries a sound, and no JSON.
        stream: how it streams; None if it does not, whatever the body says.
        ranked_by: where the engine reads a request's rank: ``field``, ``header``, or nowhere.
        tells_usage: whether its replies tell what they used.
        keeps: whether an engine may keep the replies, by a name that the gate gives.
        errors: in whose shape its clients read errors: ``openai``, ``responses``, ``anthropic``.
    """

    talks: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    schemas: tuple[str, ...] = ()
    queries: tuple[str, ...] = ()
    caps: tuple[str, ...] = ()
    default_cap: int | None = None
    generates: bool = False
    form: bool = False
    stream: Stream | None = None
    ranked_by: str = ""
    tells_usage: bool = True
    keeps: bool = False
    errors: str = "openai"

    @cached_property
    def carriers(self) -> tuple[str, ...]:
        """All fields that carry a prompt."""
        return (*self.prompts, *self.talks, *self.texts, *self.shown, *self.schemas)


SOUND_TOKENS_PER_S = 50
"""Input tokens of a second of sound, as Whisper encodes it; vLLM tells seconds and no tokens."""

SOUND_BYTES_PER_TOKEN = 640
"""The same of 16 bits at 16 kHz. A packed sound is longer than its bytes say; its reply tells."""

RANK_FIELD, RANK_HEADER = "priority", "x-vllm-priority"

_CAPS = ("max_tokens", "max_completion_tokens")
_PAIRS = ("text_1", "text_2", "data_1", "data_2", "queries", "items", "documents", "instruction")

DIALECTS = {
    "/v1/chat/completions": Dialect(
        talks=("messages",),
        shown=_TEMPLATE,
        schemas=("tools", "functions"),
        caps=_CAPS,
        generates=True,
        stream=_CHUNKS,
        ranked_by="field",
    ),
    "/v1/completions": Dialect(
        prompts=("prompt",),
        texts=("prompt_embeds", "suffix"),
        caps=("max_tokens",),
        default_cap=16,
        generates=True,
        stream=_CHUNKS,
        ranked_by="field",
    ),
    "/v1/responses": Dialect(
        talks=("input", "previous_input_messages"),
        texts=("instructions",),
        shown=("chat_template_kwargs",),
        schemas=("tools",),
        caps=("max_output_tokens",),
        generates=True,
        stream=_RESPONSE_EVENTS,
        ranked_by="field",
        keeps=True,
        errors="responses",
    ),
    "/v1/messages": Dialect(
        talks=("messages",),
        texts=("system",),
        schemas=("tools",),
        caps=("max_tokens",),
        generates=True,
        stream=_MESSAGE_EVENTS,
        ranked_by="header",
        errors="anthropic",
    ),
    "/v1/messages/count_tokens": Dialect(
        talks=("messages",),
        texts=("system",),
        schemas=("tools",),
        tells_usage=False,
        errors="anthropic",
    ),
    "/v1/embeddings": Dialect(
        talks=("messages",), prompts=("input",), shown=_TEMPLATE, ranked_by="field"
    ),
    "/v1/score": Dialect(texts=_PAIRS, queries=("text_1", "data_1", "queries"), ranked_by="field"),
    "/v1/rerank": Dialect(texts=("query", "documents"), queries=("query",), ranked_by="field"),
    "/v1/audio/transcriptions": Dialect(
        texts=("prompt",),
        caps=("max_completion_tokens",),
        generates=True,
        form=True,
        stream=_SPOKEN_CHUNKS,
    ),
    "/tokenize": Dialect(
        talks=("messages",),
        prompts=("prompt",),
        shown=_TEMPLATE,
        schemas=("tools",),
        tells_usage=False,
    ),
    "/detokenize": Dialect(prompts=("tokens",), tells_usage=False),
}


def dialect_of(path: str) -> Dialect | None:
    """Return the dialect of a path as a client wrote it, or of the nearest one above it."""
    path = path.removeprefix("/api")
    while path and path not in DIALECTS:
        path = path.rpartition("/")[0]
    return DIALECTS.get(path)


MEDIA = frozenset(
    (
        "image_url",
        "input_audio",
        "audio_url",
        "video_url",
        "image_embeds",
        "audio_embeds",
        "video_embeds",
        "image_pil",
        "prompt_embeds",
        "file",
        "file_data",
        "source",
        "data",
    )
)
"""Members of a message's part that hold an image, a sound, a video or a file."""

TEXT_SOURCES = {"text": "data", "content": "content"}
"""Kinds of a document's ``source`` that are no file, and the member in which each has its text."""

NAMES = frozenset(
    (
        "role",
        "content",
        "type",
        "text",
        "name",
        "id",
        "function",
        "arguments",
        "tool_calls",
        "tool_call_id",
        "call_id",
        "input",
        "output",
        "tool_use_id",
        "refusal",
        "reasoning",
        "reasoning_content",
        "thinking",
        "signature",
        "summary",
        "status",
        "cache_control",
        "annotations",
        "is_error",
        "index",
    )
)
"""Members of a message that the protocol names; no model reads these words."""

ARGUMENTS = frozenset(("input", "arguments"))
"""Members of a tool's call that are JSON: a template shows them as they are."""

LABELS = frozenset(("role", "type", "status"))
"""Members of a message that say what it is, mostly in one of ``WORDS``."""

WORDS = MEDIA | frozenset(
    (
        "system",
        "user",
        "assistant",
        "tool",
        "developer",
        "function",
        "text",
        "input_text",
        "output_text",
        "message",
        "image",
        "input_image",
        "input_file",
        "document",
        "function_call",
        "function_call_output",
        "tool_use",
        "tool_result",
        "thinking",
        "reasoning",
        "reasoning_text",
        "summary_text",
        "refusal",
        "ephemeral",
        "completed",
        "in_progress",
    )
)
"""What the protocol calls roles and parts; any other label is text that a template may show."""
