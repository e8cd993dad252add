"""How many seats a replica offers: fewer while its engine is full, more again after. Pure.

Priorities cannot act on work already handed over, so the engine's own queue is to stay near zero.
A KV cache that is full, or requests that wait in the engine at two looks in a row, take a fifth of
the seats away; each look that finds neither gives one back. At one look alone a request that has
just come waits for the engine's next step. What was taken away must show before more is: those who
run keep their seats, and seats that fall faster than replies end would fall to one.
"""

import math
import re
from dataclasses import dataclass

FULL, ROOMY = 0.95, 0.85
"""Shares of the KV cache from which on it is full, and below which there is room for one more."""

LESS = 0.8
SHOWS = 20
"""Looks after which seats taken away should have shown, also if more run than there are seats."""

_GAUGE = re.compile(
    r"^vllm:(num_requests_running|num_requests_waiting|kv_cache_usage_perc)(?:\{[^\n]*\})? (\S+)$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What an engine says of itself.

    Attributes:
        running, waiting: requests in its batch, and in its own queue.
        kv_usage: share of its KV cache in use.
    """

    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0

    @classmethod
    def from_metrics(cls, text: str) -> "EngineLoad":
        """Return the load that an engine's Prometheus text tells; of several engines, their sum.

        The fullest KV cache counts. What is not told is 0.
        """
        told: dict[str, list[float]] = {}
        for name, value in _GAUGE.findall(text):
            if math.isfinite(figure := float(value)):
                told.setdefault(name, []).append(figure)
        return cls(
            round(sum(told.get("num_requests_running", []))),
            round(sum(told.get("num_requests_waiting", []))),
            max(told.get("kv_cache_usage_perc", []), default=0.0),
        )


class Offer:
    """The seats that one replica offers.

    Args:
        nominal: seats when there is room.
    """

    def __init__(self, nominal: int) -> None:
        self._nominal = nominal
        self._waited, self._cut = False, 0
        self.seats = nominal

    def seen(self, load: EngineLoad | None) -> int:
        """Return how many seats to offer after a look at the engine; 1 at least.

        An engine that says nothing, None, may be too busy to: nothing changes.
        """
        if load is None:
            return self.seats
        waits, self._cut = load.waiting > 0, max(0, self._cut - 1)
        if load.kv_usage >= FULL or (waits and self._waited):
            if not self._cut or load.running <= self.seats:
                full_at = min(self.seats, max(load.running, 1))
                self.seats, self._cut = max(1, int(full_at * LESS)), SHOWS
        elif not waits and load.kv_usage < ROOMY:
            self.seats = min(self._nominal, self.seats + 1)
        self._waited = waits
        return self.seats
