"""The shapes of the operators' desk of the line; see ``shapes`` beside it."""

from typing import Literal

from pydantic import Field

from serve_app.ingress.docs.shapes import Shape


class ClassInLine(Shape):
    """One class in a model's line."""

    class_: str = Field(alias="class")
    waiting: int
    running_in_class: int
    waiting_bytes: int
    """Bytes of the bodies that wait."""

    oldest_s: float
    """Seconds that the first of it has waited."""

    predicted_wait_s: float | None
    """Seconds that one who comes now would wait; null if nobody can tell."""


class ModelLine(Shape):
    """One model's line, across all gateways."""

    model: str
    mode: Literal["open", "paused", "draining"]
    """`paused`: nobody is seated; `draining`: nobody new comes in."""

    replicas: int
    seats: int
    """That the replicas offer together."""

    running: int
    waiting: int
    drain_per_s: float
    """Seats that come free a second."""

    classes: list[ClassInLine]
    """Highest first."""


class ModelLines(Shape):
    """The lines of the models that the caller may use."""

    models: list[ModelLine]


class TicketInLine(Shape):
    """One request that waits."""

    ticket: str
    """Takes it out of the line, with `DELETE`."""

    class_: str = Field(alias="class")
    tenant: str
    key: str
    """The public id of its key, user or token."""

    waited_s: float
    deadline_s: float
    """Seconds that it may wait yet before it is refused."""

    cost_tokens: int
    """What its flow is charged until its real use is known."""

    bytes: int
    """Of its body."""


class ModelLineWithTickets(ModelLine):
    """One model's line and who waits in it."""

    tickets: list[TicketInLine]
    """The oldest hundred that the caller may see, oldest first."""
