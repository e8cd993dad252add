"""What every block of settings is made of: strict, frozen, and its unknown names refused."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

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
