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
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StrictInt, model_validator

NANOS = 1_000_000_000
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


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class Burst(_Strict):
    """A rate with a burst of its own."""

    limit: StrictInt = Field(ge=0, le=100_000_000)
    """Units a minute, refilled evenly; 0 means never."""

    burst: StrictInt | None = Field(default=None, ge=1, le=100_000_000)
    """Units that may be used at once; the limit itself by default."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.limit == 0 and self.burst is not None:
            raise ValueError("a limit of 0 means never; a burst contradicts it")
        return self


class Most(_Strict):
    """A limit that has no burst, written out."""

    limit: StrictInt = Field(ge=0, le=1_000_000_000_000)
    """Units a period; 0 means never."""


class MostMoney(_Strict):
    """A budget, written out."""

    limit: float = Field(ge=0, le=1_000_000)
    """Money a period, in what the prices are in; 0 means never."""


_Requests = Annotated[StrictInt, Field(ge=0, le=1_000_000)] | Burst
_Tokens = Annotated[StrictInt, Field(ge=0, le=100_000_000)] | Burst
_Quota = Annotated[StrictInt, Field(ge=0, le=1_000_000_000_000)] | Most
_Budget = Annotated[float, Field(ge=0, le=1_000_000)] | MostMoney
_Seats = Annotated[StrictInt, Field(ge=0, le=1_000_000)] | Most


class Bounds(_Strict):
    """Limits of every kind; one that is missing binds nothing."""

    requests_per_minute: _Requests | None = Field(default=None, examples=[60])
    """Requests a minute, refilled evenly; as many may come at once. 0 means never."""

    tokens_per_minute: _Tokens | None = None
    """Input and output tokens a minute, refilled evenly."""

    input_tokens_per_minute: _Tokens | None = None
    """Input tokens a minute, refilled evenly."""

    output_tokens_per_minute: _Tokens | None = None
    """Output tokens a minute, refilled evenly."""

    requests_per_day: _Quota | None = None
    """Requests a day, UTC."""

    tokens_per_day: _Quota | None = None
    """Input and output tokens a day, UTC."""

    input_tokens_per_day: _Quota | None = None
    """Input tokens a day, UTC."""

    output_tokens_per_day: _Quota | None = None
    """Output tokens a day, UTC."""

    tokens_per_month: _Quota | None = None
    """Input and output tokens a calendar month, UTC."""

    cost_per_day: _Budget | None = None
    """Money a day, UTC, by the model's prices."""

    cost_per_month: _Budget | None = None
    """Money a calendar month, UTC, by the model's prices."""

    concurrency: _Seats | None = None
    """Requests that may run or wait at once."""

    def terms(self, *, shadow: bool = False) -> Iterator[str]:
        """Yield each limit as a step reads it."""
        for kind in KINDS:
            told: Any = getattr(self, kind.name)
            if told is None:
                continue
            limit, burst = (
                (told, None) if isinstance(told, int | float) else (told.limit, _burst(told))
            )
            if kind.is_money:
                limit = round(limit * NANOS)
            yield f"{kind.letter} {limit} {limit if burst is None else burst} {int(shadow)}"


class ModelLimits(Bounds):
    """What binds one caller on one model, or on all."""

    shadow: Bounds | None = None
    """Limits that are evaluated, counted and told in a header, and refuse nobody."""

    output_cap: StrictInt | None = Field(default=None, ge=1, le=100_000_000)
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

    models: dict[Annotated[str, Field(pattern=_MODEL)], ModelLimits] | None = Field(
        default=None, max_length=MODELS_MAX
    )
    """Limits on single models, beside the others."""

    exempt: bool = False
    """Whether no limit binds this caller, its tenant's neither; only operators give it."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.exempt and len(self.model_dump(exclude_none=True, exclude_defaults=True)) > 1:
            raise ValueError("'exempt' stands alone: other limits contradict it")
        return self

    def text(self) -> str:
        """Return all of it as steps read it; empty if nothing is limited."""
        own = EXEMPT if self.exempt else self.line()
        models = [f"{name}\t{one.line()}" for name, one in (self.models or {}).items()]
        return "\n".join([own, *models]) if own or models else ""


def lines_of(text: str, model: str) -> tuple[str, str]:
    """Return what :meth:`Limits.text` says of the caller itself and of ``model``."""
    own, *models = text.split("\n")
    head = f"{model}\t"
    return own, next((one.removeprefix(head) for one in models if one.startswith(head)), "")


def _burst(told: Burst | Most | MostMoney) -> int | None:
    return told.burst if isinstance(told, Burst) else None
