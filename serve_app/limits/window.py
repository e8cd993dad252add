"""One window of the calendar: a day or a month in UTC, and what was used in it. Pure.

``store/lua/shared/window.lua`` does the same inside the store; a test holds the two equal.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from serve_app.limits.gcra import Decision

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Window:
    """What one calendar limit remembers.

    Attributes:
        number: which day since the epoch, or which month since March of the year 0.
        ends_us: when it ends, µs since the epoch.
        used: units used in it.
    """

    number: int
    ends_us: int
    used: int = 0


def window_at(period: str, now_us: int) -> Window:
    """Return the empty window of ``period``, ``day`` or ``month``, that ``now_us`` lies in."""
    now = _EPOCH + now_us * _US
    if period == "day":
        day = (now - _EPOCH).days
        return Window(day, (day + 1) * 86_400_000_000)
    following = (now.replace(day=1) + timedelta(days=31)).replace(day=1)
    begins = following.replace(hour=0, minute=0, second=0, microsecond=0)
    return Window(now.year * 12 + now.month - 3, (begins - _EPOCH) // _US)


def current(window: Window | None, period: str, now_us: int) -> Window:
    """Return ``window`` if it is not over, else the one that has begun."""
    new = window_at(period, now_us)
    return window if window is not None and window.number == new.number else new


def ask(window: Window, limit: int, units: int, now_us: int) -> Decision:
    """Return what ``window`` says to ``units``; 0 only looks."""
    fits = units == 0 or window.used + units <= limit
    left = max(limit - window.used - (units if fits else 0), 0)
    ends_in_us = window.ends_us - now_us
    return Decision(left, 0 if fits else ends_in_us, ends_in_us)


def charged(window: Window, number: int, units: int) -> Window:
    """Return ``window`` with ``units`` more, or less, if it is still the one called ``number``."""
    if window.number != number:
        return window
    return replace(window, used=max(window.used + units, 0))
