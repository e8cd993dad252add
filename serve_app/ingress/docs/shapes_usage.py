"""The shapes of the usage ledger's replies and query; see ``shapes`` beside it."""

from typing import Literal

from pydantic import Field

from serve_app.ingress.docs.shapes import Shape


class UsageQuery(Shape):
    """Whose use, of which hours, and in which form."""

    tenant: str | None = None
    """Whose; by default the caller's own, for an operator everyone's."""

    key: str | None = None
    """The public id of one key, user or token; by default all that the caller may see."""

    model: str | None = None
    """One model; `-` stands for refused requests that named none."""

    class_: str | None = Field(default=None, alias="class")
    """One class."""

    start: str | None = None
    """Hours that begin from then on: RFC 3339, a UTC date, or seconds since the epoch.

    By default the day of the last hour.
    """

    end: str | None = None
    """Hours that begin before, at most 100 days later; by default the present hour is the last."""

    group_by: str = "key,tenant,model,class,hour"
    """Some of these, `day` and `month`; rows are sorted by them in the order of their naming."""

    format: Literal["json", "csv"] = "json"
    """`csv` has a row of headings, and a `'` before what a spreadsheet might take for a formula."""


class Use(Shape):
    """How much was used."""

    requests: int
    """Those that reached an engine."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int
    """Input tokens that the engine had in its cache."""

    refused: int
    """Requests that were turned away before a byte of an answer."""

    shadow_refused: int
    """Requests that a shadow limit would have turned away."""

    cost: float
    """By the models' prices, exact to a billionth."""

    queue_seconds: float
    engine_seconds: float


class UsageRow(Use):
    """How much one group used; it has the members that were asked for."""

    key: str | None = None
    tenant: str | None = None
    model: str | None = None
    class_: str | None = Field(default=None, alias="class")
    hour: str | None = None
    """When the hour began; RFC 3339, UTC."""

    day: str | None = None
    month: str | None = None


class UsageReport(Shape):
    """Who used how much."""

    data: list[UsageRow]
    totals: Use
