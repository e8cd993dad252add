"""What a key or user is given, as a request asks for it, and whether it may be given. Pure."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, field_validator

from serve_app.allowance import Limits
from serve_app.auth.caller import PERMISSIONS, Caller, lies_in
from serve_app.errors import AddressForbidden, Forbidden, InvalidRequest

DAY_MS = 86_400_000
MAX_METADATA_BYTES = 4_096
DEFAULT_CLASS = "standard"

Text = Annotated[str, Field(max_length=128)]
OverLimit = Literal["refuse", "wait"]
Metadata = dict[str, str | StrictInt | float | StrictBool | None]


class Strict(BaseModel):
    """A request's body: unknown members and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def small(metadata: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return ``metadata`` if it is small enough to be kept.

    Raises:
        ValueError: it is not.
    """
    if len(json.dumps(metadata)) > MAX_METADATA_BYTES:
        raise ValueError(f"larger than {MAX_METADATA_BYTES} bytes")
    return metadata


class Share(Strict):
    """What tenants, keys and users have alike."""

    class_: Text | None = Field(default=None, alias="class", examples=["standard"])
    max_class: Text | None = None
    weight: float | None = Field(default=None, gt=0, le=1_000)
    limits: Limits | None = None
    metadata: Metadata | None = None

    _small = field_validator("metadata")(small)


class Grant(Share):
    """What a key is given; a member that is missing is inherited or unlimited."""

    permissions: list[Text] | None = Field(default=None, max_length=64)
    models: list[Text] | None = Field(default=None, max_length=256)
    endpoints: list[Text] | None = Field(default=None, max_length=64)
    over_limit: OverLimit | None = None
    expires_in_days: Annotated[float, Field(gt=0, le=36_500)] | None = None
    allowed_addresses: list[Text] | None = Field(
        default=None, max_length=256, examples=[["10.0.0.0/8"]]
    )

    @field_validator("permissions")
    @classmethod
    def _known(cls, permissions: list[str] | None) -> list[str] | None:
        unknown = sorted(set(permissions or []) - PERMISSIONS)
        if unknown:
            raise ValueError(
                f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(PERMISSIONS))}"
            )
        return permissions

    @field_validator("allowed_addresses")
    @classmethod
    def _cidrs(cls, cidrs: list[str] | None) -> list[str] | None:
        return None if cidrs is None else [str(ip_network(cidr)) for cidr in cidrs]


@dataclass(frozen=True, slots=True)
class Known:
    """The names that a grant may use.

    Attributes:
        classes: of the line, highest first.
        endpoints: inference paths.
    """

    classes: Sequence[str]
    endpoints: frozenset[str] = frozenset()


def class_of(wanted: str | None, ceilings: Iterable[str | None], order: Sequence[str]) -> str:
    """Return the class that is served: the wanted one, or the lowest ceiling if that is lower.

    Args:
        wanted: by the caller or its tenant; None for the default.
        ceilings: the highest classes that it may have; None binds nothing.
        order: the classes of the line, highest first.

    A name that the gate no longer has counts as the default class, as a ceiling as the lowest.
    """
    default = DEFAULT_CLASS if DEFAULT_CLASS in order else order[0]
    places = {name: place for place, name in enumerate(order)}
    lowest = len(order) - 1
    bounds = [places.get(ceiling, lowest) for ceiling in ceilings if ceiling is not None]
    return order[max([places.get(wanted or default, places[default]), *bounds])]


class Classed(Protocol):
    """Whatever names classes."""

    @property
    def class_(self) -> str | None:
        """The class to wait in."""

    @property
    def max_class(self) -> str | None:
        """The highest class that may be served."""


def must_be_classes(share: Classed, known: Known, ceilings: Iterable[str | None]) -> None:
    """Return if the classes of ``share`` exist and none is above a ceiling.

    Raises:
        InvalidRequest: there is no such class, or ``class`` is above ``max_class``.
        Forbidden: it is above what the tenant or the giver may have.
    """
    order = list(known.classes)
    for param, name in (("class", share.class_), ("max_class", share.max_class)):
        if name is None:
            continue
        if name not in order:
            raise InvalidRequest(
                f"There is no class '{name}'; known: {', '.join(order)}.", param=param
            )
        for ceiling in ceilings:
            if ceiling in order and order.index(name) < order.index(ceiling):
                raise Forbidden(f"The highest class that may be given is '{ceiling}'.", param=param)
    if (
        share.class_
        and share.max_class
        and order.index(share.class_) < order.index(share.max_class)
    ):
        raise InvalidRequest("'class' is above 'max_class'.", param="class")


def must_cover(by: Caller, other: Caller, known: Known) -> None:
    """Return if ``by`` may do all that ``other`` may, and wait in as high a class.

    Raises:
        Forbidden: it may not.
    """
    by.must_cover(other)
    if by.operator or by.max_class is None:
        return
    order = list(known.classes)
    lowest = len(order)
    rank = {name: place for place, name in enumerate(order)}
    ceiling = rank.get(by.max_class, lowest)
    if other.max_class is None or rank.get(other.max_class, lowest) < ceiling:
        raise Forbidden(f"This caller's classes end at '{by.max_class}'.", param="max_class")


def must_be_givable(grant: Grant, by: Caller, known: Known) -> None:
    """Return if ``by`` holds all that ``grant`` gives.

    Raises:
        InvalidRequest: it names an endpoint that does not exist.
        Forbidden: it gives more than ``by`` has, or exempts from limits.
    """
    for permission in grant.permissions or ():
        by.must(permission)
    for model in grant.models or ():
        by.must_use(model)
    for endpoint in grant.endpoints or ():
        if endpoint not in known.endpoints:
            raise InvalidRequest(
                f"There is no endpoint '{endpoint}'; known: {', '.join(sorted(known.endpoints))}.",
                param="endpoints",
            )
        by.must_reach(endpoint)
    must_be_within(grant.allowed_addresses, by)
    must_be_limitable(grant.limits, by)


def must_be_limitable(limits: Limits | None, by: Caller) -> None:
    """Return if ``by`` may give ``limits``; they may be wider than its own, its tenant's bind all.

    Raises:
        Forbidden: they bind nobody, and ``by`` is no operator.
    """
    if limits is not None and limits.exempt and not by.operator:
        raise Forbidden("Only the platform's operators exempt from limits.", param="limits")


def must_be_within(cidrs: Iterable[str] | None, by: Caller) -> None:
    """Return if ``by`` may call from every address of ``cidrs`` itself.

    Raises:
        AddressForbidden: it may not.
    """
    for cidr in cidrs or ():
        if by.networks is not None and not any(
            lies_in(ip_network(cidr), one) for one in by.networks
        ):
            raise AddressForbidden(
                f"This caller may not call from {cidr} itself.", param="allowed_addresses"
            )


def rfc3339(at_ms: float) -> str | None:
    """Return a time in UTC as the API shows it; None for 0."""
    if not at_ms:
        return None
    return datetime.fromtimestamp(at_ms / 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
