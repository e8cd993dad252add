"""What every block of settings is made of: strict, frozen, and its unknown names refused."""

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from serve_app.allowance import Limits
from serve_app.amount import wrong

Fraction = Annotated[float, Field(gt=0, le=1)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
ClassName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


class Section(BaseModel):
    """One block of settings: unknown keys and wrong types are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


def _of_settings(limits: Limits) -> Limits:
    if limits.exempt:
        wrong("exempt", "is for keys and users", True)
    return limits


CallerLimits = Annotated[Limits, AfterValidator(_of_settings)]
"""Limits of whoever has no record that could name any."""


class Replicas(Section):
    """A number of replicas, from the fewest to the most."""

    min_replicas: int
    max_replicas: int

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}"
            )
        return self
