"""What every block of settings is made of: strict, frozen, and its unknown names refused."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(gt=0, le=1)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
ClassName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


class Section(BaseModel):
    """One block of settings: unknown keys and wrong types are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class RateLimits(Section):
    """How much a caller may send that has no limits of its own."""

    requests_per_minute: int = Field(default=600, ge=0, le=1_000_000)
    """Requests a minute, refilled evenly; as many may come at once. 0 means never."""
