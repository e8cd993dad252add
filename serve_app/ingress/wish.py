"""What a client wishes of the line: a lower class, a shorter wait. Pure."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from serve_app.errors import InvalidRequest
from serve_app.settings import QueueClass

PRIORITY, MAX_WAIT = "x-priority", "x-max-wait-s"
_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client asked of the line; by itself it gives nothing that its caller does not have.

    Attributes:
        class_: the class it would wait in; None: its own.
        max_wait_s: seconds it would wait at most; 0: it is seated at once or refused.
    """

    class_: str | None = None
    max_wait_s: float = math.inf

    @property
    def for_class(self) -> "Wish":
        """The same without its wait."""
        return Wish(self.class_)

    def or_tier(self, tier: object, classes: Mapping[str, QueueClass]) -> Self:
        """Return the same, or if it names no class, with the one that claims ``tier``.

        ``tier`` is a body's ``service_tier``; what no class claims, the engine may judge.
        """
        claimed = {one.service_tier: name for name, one in classes.items()}
        if self.class_ is not None or not isinstance(tier, str) or tier not in claimed:
            return self
        return replace(self, class_=claimed[tier])

    def shortened(self, queue_class: QueueClass) -> QueueClass:
        """Return ``queue_class``, in which nobody waits longer than this wishes."""
        if self.max_wait_s >= queue_class.max_wait_s:
            return queue_class
        return queue_class.model_copy(update={"max_wait_s": self.max_wait_s})


def wished(
    priorities: Sequence[str], waits: Sequence[str], classes: Mapping[str, QueueClass]
) -> Wish:
    """Return what a request's headers wish.

    Args:
        priorities: every value of :data:`PRIORITY`.
        waits: every value of :data:`MAX_WAIT`.
        classes: the classes of the line, by name.

    Raises:
        InvalidRequest: there is no such class, or that is no number of seconds, or two headers say
            two things; ``param`` names the header.
    """
    name, seconds = _one(priorities), _one(waits)
    if name is not None and name not in classes:
        known = ", ".join(classes)
        raise InvalidRequest(f"'{PRIORITY}' must name one of: {known}.", param=PRIORITY)
    if seconds is None:
        return Wish(name)
    max_wait_s = float(seconds) if _SECONDS.fullmatch(seconds) else math.inf
    if math.isinf(max_wait_s):
        told = f"'{MAX_WAIT}' must be a number of seconds, such as 0, 2.5 or 30."
        raise InvalidRequest(told, param=MAX_WAIT)
    return Wish(name, max_wait_s)


def _one(values: Sequence[str]) -> str | None:
    """Return what all ``values`` say; if they differ, what no header may say."""
    said = {value.strip(" \t") for value in values}
    return None if not said else said.pop() if len(said) == 1 else ""
