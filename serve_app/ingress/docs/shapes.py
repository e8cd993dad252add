"""The shapes of what goes over the wire, for the document: replies and engines' bodies.

They describe and do not check: a story holds the gate's real replies to them. Bodies that the gate
checks itself are described by the models that check them; the admin API's replies are in
:mod:`serve_app.ingress.docs.shapes_admin`.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Shape(BaseModel):
    """One JSON object; its fields' sentences are in the document."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class EngineShape(Shape):
    """One JSON object that the engine reads or writes; it may carry more than is told here."""

    model_config = ConfigDict(extra="allow")


class Alive(Shape):
    """A gateway that answers."""

    status: Literal["ok"]
    auth: Literal["disabled"] | None = None
    """There only if everyone is let in."""


class Readiness(Shape):
    """What is there and what is not yet."""

    status: Literal["ready", "degraded", "not ready"]
    """Degraded: a model cannot be started, another is served."""

    store: Literal[
        "ok",
        "unknown",
        "unreachable",
        "timeout",
        "loading",
        "failing_over",
        "wrong_password",
        "read_only",
        "out_of_memory",
        "refusing_writes",
        "no_scripts",
    ]
    """The state of the state store, as this gateway last found it; unknown before it has asked."""

    store_message: str | None = None
    """There only if it is not well: what is the matter, and what to do."""

    on_loss: Literal["closed", "local"]
    """New requests while it is not well: all refused, or callers seen lately go on."""

    models: dict[str, Literal["ready", "asleep", "starting", "failing"]]
    """Each model's state; one that is asleep wakes for the first request."""


class ServedModel(Shape):
    """One model, alias or adapter."""

    id: str
    """The name to ask for."""

    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    """The model that answers; of an adapter, the last part of its source."""

    parent: str | None
    """Of an adapter, the model that it adapts."""

    state: Literal["ready", "asleep", "starting", "failing"]
    """Of the model that answers: asleep, it wakes for the first request; failing, it cannot start
    and its requests are refused with `no_capacity`."""

    max_model_len: int | None = None
    """Tokens of prompt and answer together, where it is known."""


class ServedModels(Shape):
    """The models that the caller may use."""

    object: Literal["list"]
    data: list[ServedModel]


class ListedAdapter(Shape):
    """One LoRA adapter."""

    name: str
    """The name to ask for."""

    model: str
    source: str
    loaded_at: Literal["start", "run"]
    """By the settings at the start, or by a request while the gate runs."""


class LoadedAdapter(ListedAdapter):
    """One that was just loaded."""

    replicas: int
    """That have loaded it; those that start later do so, too."""


class ListedAdapters(Shape):
    """Every adapter of every model."""

    object: Literal["list"]
    data: list[ListedAdapter]


class Message(EngineShape):
    """One turn of a conversation."""

    role: str
    """`system`, `user`, `assistant` or `tool`."""

    content: str | list[dict[str, Any]] | None = None
    """Text, or parts of text and images for models that take them."""


class Asked(EngineShape):
    """What every inference request says; all other fields reach the engine as they are."""

    model: str
    """A name from `GET /v1/models`."""

    max_tokens: int | None = Field(default=None, ge=1)
    """Tokens of the answer at most."""

    temperature: float | None = Field(default=None, ge=0)
    stream: bool | None = None
    """Send the answer as it is made, as an event stream that ends with `data: [DONE]`."""

    stream_options: dict[str, Any] | None = None
    """`{"include_usage": true}` adds an event with the usage before the end."""

    service_tier: Literal["auto", "default", "flex", "priority", "scale"] | None = None
    """Asks for the class that claims it in the settings, if that is lower than the caller's own."""


class AskedChat(Asked):
    """A conversation to continue, in OpenAI's shape; the engine reads it."""

    messages: list[Message]


class AskedCompletion(Asked):
    """A text to continue, in OpenAI's shape; the engine reads it."""

    prompt: str | list[Any]
    """Text or token ids, one or several."""


class Usage(EngineShape):
    """Tokens, as the engine counted them."""

    prompt_tokens: int
    completion_tokens: int | None = None
    total_tokens: int


class Answer(EngineShape):
    """The engine's answer, in its own words."""

    id: str
    object: str
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: Usage | None = None
