"""Failures on demand: by the header ``x-simulated-fault``, or by chance as the settings say."""

import random
from enum import StrEnum

from serve_app.engine.simulated.request import Refusal
from serve_app.model_settings import Simulated

HEADER = b"x-simulated-fault"


class Fault(StrEnum):
    """How a request fails."""

    ERROR = "error"
    """500 before the first byte."""
    HANG = "hang"
    """No answer until the client goes away."""
    BREAK = "break"
    """The connection is closed in the middle of the reply."""
    CRASH = "crash"
    """The process exits with 1."""


def choose(wanted: str | None, model: Simulated, dice: random.Random) -> Fault | None:
    """Return how a request fails; the header ``wanted`` goes before chance.

    ``break_rate`` is for streams, but a reply in one piece can break just the same.

    Raises:
        Refusal: 400 when the header names no fault.
    """
    if wanted is not None:
        if wanted not in [*Fault]:
            known = ", ".join(Fault)
            raise Refusal(f"{HEADER.decode()} is one of {known}; got {wanted}")
        return Fault(wanted)
    if dice.random() < model.fail_rate:
        return Fault.ERROR
    return Fault.BREAK if dice.random() < model.break_rate else None
