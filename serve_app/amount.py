"""One limit as people write it: a number, or ``{limit, burst}``.

Whatever is wrong with it is told in plain words, at the member that is at fault.
"""

from dataclasses import dataclass
from typing import Annotated, Any, NoReturn, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    ValidationError,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

NANOS = 1_000_000_000
"""A unit of money, in what steps count."""

REQUESTS_MAX = 1_000_000
TOKENS_MAX = 100_000_000
QUOTA_MAX = 1_000_000_000_000
MONEY_MAX = 1_000_000


class Strict(BaseModel):
    """What every block of limits is made of: unknown members and wrong types are refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


@dataclass(frozen=True, slots=True)
class Number:
    """What a number must be, and the sentence that says so."""

    low: int
    most: int
    end: str = "; 0 means never"
    whole: bool = True

    def __call__(self, told: object) -> int | float:
        """Return ``told`` if it is such a number; of money, at least a nano or nothing."""
        kinds = int if self.whole else (int, float)
        if isinstance(told, bool) or not isinstance(told, kinds) or not self._fits(told):
            kind = "a whole number" if self.whole else "a number"
            said = f"must be {kind} from {self.low} to {self.most}{self.end}"
            raise PydanticCustomError("number", said)
        return told if self.whole else float(told)

    def _fits(self, told: float) -> bool:
        return self.low <= told <= self.most and (self.whole or told == 0 or told * NANOS >= 1)


def _or(written: type[BaseModel], number: Number) -> WrapValidator:
    """Return what reads a limit that is a number or written out; it tells of the way taken."""

    def read(told: Any, _union: object) -> Any:
        if isinstance(told, dict):
            return written.model_validate(told)
        return told if isinstance(told, written) else number(told)

    return WrapValidator(read)


def wrong(member: str, said: str, told: object) -> NoReturn:
    """Refuse ``told``, which stands at ``member`` of what is being read.

    Raises:
        ValidationError: always.
    """
    error = PydanticCustomError("limit", said)
    raise ValidationError.from_exception_data(
        "limits", [{"type": error, "loc": (member,), "input": told}]
    )


_BURST = ", or {limit, burst}; 0 means never"
_A_RATE = Number(0, REQUESTS_MAX, _BURST)
_MANY = Number(0, TOKENS_MAX, _BURST)
_QUOTA = Number(0, QUOTA_MAX)
_MONEY = Number(0, MONEY_MAX, "; 0 means never, 0.000000001 is the least", whole=False)
_SEATS = Number(0, REQUESTS_MAX)
_Request = Annotated[StrictInt, Field(ge=0, le=REQUESTS_MAX)]
_Token = Annotated[StrictInt, Field(ge=0, le=TOKENS_MAX)]
_Unit = Annotated[StrictInt, Field(ge=0, le=QUOTA_MAX)]
_Money = Annotated[float, Field(ge=0, le=MONEY_MAX)]


class Burst(Strict):
    """A rate with a burst of its own."""

    limit: Annotated[_Token, BeforeValidator(Number(0, TOKENS_MAX))]
    """Units a minute, refilled evenly; 0 means never."""

    burst: (
        Annotated[StrictInt, Field(ge=1, le=TOKENS_MAX), BeforeValidator(Number(1, TOKENS_MAX, ""))]
        | None
    ) = None
    """Units that may be used at once; the limit itself by default."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.limit == 0 and self.burst is not None:
            wrong("burst", "contradicts a limit of 0, which means never", self.burst)
        return self


class RequestBurst(Burst):
    """A rate of requests with a burst of its own."""

    limit: Annotated[_Request, BeforeValidator(Number(0, REQUESTS_MAX))]
    """Requests a minute, refilled evenly; 0 means never."""

    burst: (
        Annotated[
            StrictInt, Field(ge=1, le=REQUESTS_MAX), BeforeValidator(Number(1, REQUESTS_MAX, ""))
        ]
        | None
    ) = None
    """Requests that may come at once; the limit itself by default."""


class _NoBurst(Strict):
    @model_validator(mode="before")
    @classmethod
    def _no_burst(cls, told: Any) -> Any:
        if isinstance(told, dict) and "burst" in told:
            wrong("burst", "is for limits a minute only", told["burst"])
        return told


class Most(_NoBurst):
    """A limit that has no burst, written out."""

    limit: Annotated[_Unit, BeforeValidator(_QUOTA)]
    """Units a period; 0 means never."""


class MostSeats(_NoBurst):
    """A limit of requests at once, written out."""

    limit: Annotated[_Request, BeforeValidator(_SEATS)]
    """Requests at once; 0 means never."""


class MostMoney(_NoBurst):
    """A budget, written out."""

    limit: Annotated[_Money, BeforeValidator(_MONEY)]
    """Money a period, in what the prices are in; 0 means never."""


Requests = Annotated[_Request | RequestBurst, _or(RequestBurst, _A_RATE)]
Tokens = Annotated[_Token | Burst, _or(Burst, _MANY)]
Quota = Annotated[_Unit | Most, _or(Most, _QUOTA)]
Budget = Annotated[_Money | MostMoney, _or(MostMoney, _MONEY)]
Seats = Annotated[_Request | MostSeats, _or(MostSeats, _SEATS)]
