"""Where each engine path carries its prompt, and what it says of its replies: tables only."""

from dataclasses import dataclass
from functools import cached_property

_TEMPLATE = ("chat_template", "chat_template_kwargs", "documents")


@dataclass(frozen=True)
class Dialect:
    """One engine path, read for its cost.

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
        media: whether the body itself is a sound.
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
    media: bool = False

    @cached_property
    def carriers(self) -> tuple[str, ...]:
        """All fields that carry a prompt."""
        return (*self.prompts, *self.talks, *self.texts, *self.shown, *self.schemas)


_CAPS = ("max_tokens", "max_completion_tokens")
_PAIRS = ("text_1", "text_2", "data_1", "data_2", "queries", "items", "documents", "instruction")

DIALECTS = {
    "/v1/chat/completions": Dialect(
        talks=("messages",),
        shown=_TEMPLATE,
        schemas=("tools", "functions"),
        caps=_CAPS,
        generates=True,
    ),
    "/v1/completions": Dialect(
        prompts=("prompt",),
        texts=("prompt_embeds", "suffix"),
        caps=("max_tokens",),
        default_cap=16,
        generates=True,
    ),
    "/v1/responses": Dialect(
        talks=("input", "previous_input_messages"),
        texts=("instructions",),
        shown=("chat_template_kwargs",),
        schemas=("tools",),
        caps=("max_output_tokens",),
        generates=True,
    ),
    "/v1/messages": Dialect(
        talks=("messages",),
        texts=("system",),
        schemas=("tools",),
        caps=("max_tokens",),
        generates=True,
    ),
    "/v1/messages/count_tokens": Dialect(
        talks=("messages",), texts=("system",), schemas=("tools",)
    ),
    "/v1/embeddings": Dialect(talks=("messages",), prompts=("input",), shown=_TEMPLATE),
    "/v1/score": Dialect(texts=_PAIRS, queries=("text_1", "data_1", "queries")),
    "/v1/rerank": Dialect(texts=("query", "documents"), queries=("query",)),
    "/v1/audio/transcriptions": Dialect(texts=("prompt",), caps=_CAPS, generates=True, media=True),
    "/tokenize": Dialect(
        talks=("messages",), prompts=("prompt",), shown=_TEMPLATE, schemas=("tools",)
    ),
    "/detokenize": Dialect(prompts=("tokens",)),
}

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
