"""The shapes of what only some engines or dialects read and write; fields not told pass, too."""

from typing import Any, Literal

from pydantic import Field

from serve_app.ingress.docs.shapes import Asked, EngineShape, Message, Shape


class Addressed(EngineShape):
    """What a request says that streams nothing."""

    model: str
    """A name from `GET /v1/models`."""


class AskedResponse(EngineShape):
    """An answer to ask for, in the shape of OpenAI's Responses; the engine reads it."""

    model: str
    """A name from `GET /v1/models`."""

    input: str | list[dict[str, Any]]
    """A text, or the turns so far."""

    instructions: str | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    """Tokens of the answer at most."""

    stream: bool | None = None
    """Send the answer as events."""

    store: bool | None = None
    """`false` keeps nothing; else it is kept by an engine that keeps responses."""

    background: Literal[False] | None = None
    """Nothing is made in the background: it would escape the line and the limits."""

    previous_response_id: str | None = None
    """Goes on from a response that was kept."""


class AskedMessage(Asked):
    """A conversation to continue, in Anthropic's shape; the engine reads it."""

    max_tokens: int = Field(ge=1)
    """Tokens of the answer at most."""

    messages: list[Message]
    system: str | list[dict[str, Any]] | None = None


class CountedMessage(Addressed):
    """A conversation whose tokens are counted, in Anthropic's shape."""

    messages: list[Message]
    system: str | list[dict[str, Any]] | None = None


class TokenCount(EngineShape):
    """How long a conversation is."""

    input_tokens: int


class AskedEmbedding(Addressed):
    """Texts to embed, in OpenAI's shape; the engine reads it."""

    input: str | list[Any]
    """A text or token ids, one or several."""

    encoding_format: str | None = None
    """`float` or `base64`."""


class AskedScore(Addressed):
    """Texts to compare, each of the first with the second, or one with each."""

    text_1: str | list[str]
    text_2: str | list[str]


class AskedRerank(Addressed):
    """Documents to put in order by a query."""

    query: str
    documents: list[Any]
    top_n: int | None = None
    """So many of them come back."""


class AskedTranscript(Addressed):
    """A form with a sound in it; it reaches the engine byte for byte."""

    file: str = Field(json_schema_extra={"format": "binary"})
    prompt: str | None = None
    """How the text may begin, or words that stand in it."""

    stream: Literal["true", "false", "1", "0", ""] | None = None
    """`true` sends the text as it is made."""


class AskedTokens(Addressed):
    """A text or a conversation to turn into token ids."""

    prompt: str | None = None
    messages: list[Message] | None = None
    """Instead of a prompt."""


class TokenIds(EngineShape):
    """A text as the model reads it."""

    count: int
    max_model_len: int
    tokens: list[int]


class AskedText(Addressed):
    """Token ids to turn into text."""

    tokens: list[int]


class Text(EngineShape):
    """What token ids say."""

    prompt: str


class KeptQuery(Shape):
    """How a response that is kept is told."""

    stream: Literal["false", "0", ""] | None = None
    """`true` is refused: engines could stream again only what was made in the background."""
