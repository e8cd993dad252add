"""How fast seats come free, how long the next one will wait, and when to come again. Pure.

Two windows of :data:`WINDOW_MS` are counted, the present one and the one before. Seats come free at
(seats lent) x (seats given back) / (time that seats were lent): the rate at which one ends, times
those that may. It holds from the first seat given back; the time of those still lent counts, so
that a few short requests do not promise the end of long ones.
"""

from dataclasses import dataclass

WINDOW_MS = 20_000
LEAST_SHARE = 0.05
"""Of the seats, what a class is expected to get however much the classes above it take."""

RETRY_MIN_S, RETRY_MAX_S = 1.0, 60.0
JITTER_SHARE, JITTER_MAX_S = 0.05, 2.0
GRACE_MS = 5_000
"""How long a place is kept for who comes late; jitter and rounding up are part of it."""


@dataclass(slots=True)
class Window:
    """What happened in the present window and in the one before."""

    number: int = 0
    now: int = 0
    before: int = 0

    def roll(self, number: int) -> None:
        """Be in window ``number``."""
        if number != self.number:
            self.before = self.now if number == self.number + 1 else 0
            self.now, self.number = 0, number

    def add(self, more: int) -> None:
        """Count ``more``."""
        self.now += more

    @property
    def total(self) -> int:
        """Both windows together."""
        return self.now + self.before


def window_of(now_ms: int) -> int:
    """Return the number of the window of a time."""
    return now_ms // WINDOW_MS


def per_ms(total: int, now_ms: int) -> float:
    """Return the rate of ``total`` events of both windows."""
    return total / (WINDOW_MS + now_ms % WINDOW_MS + 1)


def freed_per_ms(lent: int, ended: int, lent_ms: int) -> float:
    """Return how many seats come free in a ms; 0 if that is unknown.

    Args:
        lent: seats lent now.
        ended: seats given back lately.
        lent_ms: how long seats were lent meanwhile, all together.
    """
    return lent * ended / max(lent_ms, 1) if ended else 0.0


def left_per_ms(freed: float, taken_above: float) -> float:
    """Return what of the freed seats the classes above leave over."""
    return max(freed - taken_above, freed * LEAST_SHARE)


def wait_ms(ahead: int, rate: float) -> float:
    """Return how long the one behind ``ahead`` tickets waits; 0 if nobody can tell."""
    return (ahead + 1) / rate if rate > 0 else 0.0


def retry_after_s(wait_s: float, jitter: float) -> float:
    """Return when to come again.

    Args:
        wait_s: until there is a place, as measured; 0 if nobody can tell.
        jitter: 0 to 1, drawn by the caller; spreads the answers.
    """
    wait_s = min(max(wait_s, RETRY_MIN_S), RETRY_MAX_S) if wait_s > 0 else RETRY_MAX_S
    return wait_s + jitter * min(wait_s * JITTER_SHARE, JITTER_MAX_S)
