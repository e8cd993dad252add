"""One limit of one scope, as the steps read it. Pure.

``store/lua/shared/bound.lua`` reads the same text; ``serve_app/allowance.py`` writes it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from serve_app.allowance import BY_LETTER, EXEMPT, Kind, lines_of

SCOPES: Final = ("key", "key_model", "tenant", "tenant_model")
"""Whom a limit binds: a caller, a caller on one model, a tenant, a tenant on one model."""

_TERM = re.compile(r"([A-Za-z]) (\d+) (\d+) (\d)")


@dataclass(frozen=True, slots=True)
class Bound:
    """One limit.

    Attributes:
        kind: what it counts, and when that comes back.
        limit: units; 0 is never.
        burst: units at once.
        shadow: whether it only says what it would have done.
    """

    kind: Kind
    limit: int
    burst: int
    shadow: bool = False

    @property
    def field(self) -> str:
        """What its value is called in the state of its scope."""
        return ("s" if self.shadow else "") + self.kind.letter


@dataclass(frozen=True, slots=True)
class Bounds:
    """What binds one scope.

    Attributes:
        bounds: its limits, one of each field at most.
        output_cap: the output tokens of a request that names no cap; None if that is not set.
    """

    bounds: tuple[Bound, ...] = ()
    output_cap: int | None = None


def bounds_of(lines: Iterable[str]) -> Bounds:
    """Return what the lines of one scope say; of two limits of a field the first counts."""
    found: dict[str, Bound] = {}
    output_cap: int | None = None
    for letter, limit, burst, shadow in _TERM.findall(" ".join(lines)):
        if letter == "n":
            output_cap = int(limit) if output_cap is None else output_cap
        elif letter in BY_LETTER:
            bound = Bound(BY_LETTER[letter], int(limit), int(burst), shadow == "1")
            found.setdefault(bound.field, bound)
    return Bounds(tuple(found.values()), output_cap)


def bind(own: str, defaults: str, tenant: str, model: str) -> tuple[Bounds, ...]:
    """Return what binds the four scopes of a request for ``model``.

    Args:
        own: the caller's limits as text.
        defaults: of whoever has none of that kind.
        tenant: its tenant's.
        model: the model's name.

    Nothing binds a caller that is exempt.
    """
    if own == EXEMPT:
        return (Bounds(),) * len(SCOPES)
    mine, theirs = [lines_of(text, model) for text in (own, defaults)], lines_of(tenant, model)
    scopes = [bounds_of(lines) for lines in zip(*mine, strict=True)]
    return (*scopes, *(bounds_of([line]) for line in theirs))
