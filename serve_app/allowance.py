"""How much somebody may use: limits as people write them, and as the steps of the store read them.

| member | counts | refills | step's letter |
|---|---|---|---|
| ``requests_per_minute`` | requests | evenly | ``r`` |
| ``tokens_per_minute`` | input and output tokens | evenly | ``t`` |
| ``input_tokens_per_minute`` | input tokens | evenly | ``i`` |
| ``output_tokens_per_minute`` | output tokens | evenly | ``o`` |
| ``requests_per_day`` | requests | at midnight UTC | ``R`` |
| ``tokens_per_day`` | input and output tokens | at midnight UTC | ``T`` |
| ``input_tokens_per_day`` | input tokens | at midnight UTC | ``I`` |
| ``output_tokens_per_day`` | output tokens | at midnight UTC | ``O`` |
| ``tokens_per_month`` | input and output tokens | on the first, UTC | ``M`` |
| ``cost_per_day`` | money, by the model's prices | at midnight UTC | ``D`` |
| ``cost_per_month`` | money, by the model's prices | on the first, UTC | ``E`` |
| ``concurrency`` | requests at once | as they end | ``c`` |

A step reads them as text: a line of ``<letter> <limit> <burst> <shadow 0|1>`` for the caller, and
a line for each model that has limits of its own, ``<model>`` and a tab before it. Money is in
nanos, a billionth of whatever the prices are in. The letter ``n`` is the cap on output tokens of a
request that names none, ``x`` says that nothing binds.

What is wrong with a limit is told in plain words, at the member that is at fault.
"""

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    Field,
    StrictInt,
    ValidationError,
    field_validator,
    model_validator,
)

from serve_app.amount import (
    NANOS,
    TOKENS_MAX,
    Budget,
    Burst,
    Number,
    Quota,
    Requests,
    Seats,
    Strict,
    Tokens,
    wrong,
)

MODELS_MAX = 64
EXEMPT = "x 0 0 0"
"""The text of limits that bind nothing, the tenant's neither."""

_MODEL = r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of limit.

    Attributes:
        name: its member.
        letter: what steps call it.
        unit: what it counts: ``requests``, ``tokens``, ``input``, ``output``, ``cost``, ``seats``.
        period: ``minute``, ``day`` or ``month``; empty if nothing refills it.
    """

    name: str
    letter: str
    unit: str
    period: str

    @property
    def is_money(self) -> bool:
        """Whether it counts nanos."""
        return self.unit == "cost"


KINDS = tuple(
    Kind(*row.split("|"))
    for row in (
        "requests_per_minute|r|requests|minute",
        "tokens_per_minute|t|tokens|minute",
        "input_tokens_per_minute|i|input|minute",
        "output_tokens_per_minute|o|output|minute",
        "requests_per_day|R|requests|day",
        "tokens_per_day|T|tokens|day",
        "input_tokens_per_day|I|input|day",
        "output_tokens_per_day|O|output|day",
        "tokens_per_month|M|tokens|month",
        "cost_per_day|D|cost|day",
        "cost_per_month|E|cost|month",
        "concurrency|c|seats|",
    )
)
BY_LETTER = {kind.letter: kind for kind in KINDS}


class Bounds(Strict):
    """Limits of every kind; one that is missing binds nothing."""

    requests_per_minute: Requests | None = Field(default=None, examples=[60])
    """Requests a minute, refilled evenly; as many may come at once. 0 means never."""

    tokens_per_minute: Tokens | None = None
    """Input and output tokens a minute, refilled evenly."""

    input_tokens_per_minute: Tokens | None = None
    """Input tokens a minute, refilled evenly."""

    output_tokens_per_minute: Tokens | None = None
    """Output tokens a minute, refilled evenly."""

    requests_per_day: Quota | None = None
    """Requests a day, UTC."""

    tokens_per_day: Quota | None = None
    """Input and output tokens a day, UTC."""

    input_tokens_per_day: Quota | None = None
    """Input tokens a day, UTC."""

    output_tokens_per_day: Quota | None = None
    """Output tokens a day, UTC."""

    tokens_per_month: Quota | None = None
    """Input and output tokens a calendar month, UTC."""

    cost_per_day: Budget | None = None
    """Money a day, UTC, by the model's prices."""

    cost_per_month: Budget | None = None
    """Money a calendar month, UTC, by the model's prices."""

    concurrency: Seats | None = None
    """Requests that may run or wait at once."""

    def terms(self, *, shadow: bool = False) -> Iterator[str]:
        """Yield each limit as a step reads it."""
        for kind in KINDS:
            told: Any = getattr(self, kind.name)
            if told is None:
                continue
            limit = told if isinstance(told, int | float) else told.limit
            burst = told.burst if isinstance(told, Burst) else None
            if kind.is_money:
                limit = round(limit * NANOS)
            yield f"{kind.letter} {limit} {limit if burst is None else burst} {int(shadow)}"


class ModelLimits(Bounds):
    """What binds one caller on one model, or on all."""

    shadow: Bounds | None = None
    """Limits that are evaluated, counted and told in a header, and refuse nobody."""

    output_cap: (
        Annotated[StrictInt, Field(ge=1, le=TOKENS_MAX), BeforeValidator(Number(1, TOKENS_MAX, ""))]
        | None
    ) = None
    """Output tokens at most of a request that names no cap."""

    def line(self) -> str:
        """Return all of it as a step reads it."""
        terms = [*self.terms()]
        if self.shadow is not None:
            terms += self.shadow.terms(shadow=True)
        if self.output_cap is not None:
            terms.append(f"n {self.output_cap} 0 0")
        return " ".join(terms)


class Limits(ModelLimits):
    """How much a caller or a tenant may use."""

    models: (
        Annotated[
            dict[Annotated[str, Field(pattern=_MODEL)], ModelLimits],
            Field(max_length=MODELS_MAX, json_schema_extra={"additionalProperties": False}),
        ]
        | None
    ) = None
    """Limits on single models, beside the others."""

    exempt: bool = False
    """Whether no limit binds this caller, its tenant's neither; only operators give it."""

    @field_validator("models", mode="before")
    @classmethod
    def _named(cls, told: Any) -> Any:
        if isinstance(told, dict):
            if len(told) > MODELS_MAX:
                raise ValueError(f"holds {len(told)} models; {MODELS_MAX} may be named")
            for name in told:
                if not isinstance(name, str) or re.fullmatch(_MODEL, name) is None:
                    wrong(str(name), "is no model's name", name)
        return told

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.exempt and len(self.as_written()) > 1:
            wrong("exempt", "stands alone; other limits contradict it", self.exempt)
        return self

    def as_written(self) -> dict[str, Any]:
        """Return what was named of it, for a record to keep and a request to show."""
        return self.model_dump(exclude_none=True, exclude_defaults=True)

    def text(self) -> str:
        """Return all of it as steps read it; empty if nothing is limited."""
        own = EXEMPT if self.exempt else self.line()
        named = {name: one.line() for name, one in (self.models or {}).items()}
        models = [f"{name}\t{line}" for name, line in named.items() if line]
        return "\n".join([own, *models]) if own or models else ""


def text_of(written: Mapping[str, Any]) -> str:
    """Return what steps read of limits as :meth:`Limits.as_written` gave them."""
    return Limits.model_validate(written).text()


def understood(told: Mapping[str, Any]) -> Limits:
    """Return the limits in ``told``; members that are not ours are passed over.

    Raises:
        ValueError: one that is ours is of a wrong kind.
    """
    kept = copy.deepcopy(dict(told))
    try:
        return Limits.model_validate(kept)
    except ValidationError as err:
        for mistake in err.errors(include_url=False):
            if mistake["type"] == "extra_forbidden":
                _drop(kept, mistake["loc"])
    return Limits.model_validate(kept)


def _drop(told: Any, place: tuple[int | str, ...]) -> None:
    for step in place[:-1]:
        told = told[step]
    told.pop(place[-1], None)


def lines_of(text: str, model: str) -> tuple[str, str]:
    """Return what :meth:`Limits.text` says of the caller itself and of ``model``."""
    own, *models = text.split("\n")
    head = f"{model}\t"
    return own, next((one.removeprefix(head) for one in models if one.startswith(head)), "")
