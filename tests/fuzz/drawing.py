"""Draws examples of a property, and tells how many there were and how long they took."""

import gc
import time
from dataclasses import dataclass

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

from tests.fuzz.properties import PROPERTIES


@dataclass
class Drawn:
    """How the examples of a property went.

    Attributes:
        slowest_s: CPU seconds of the slowest.
    """

    count: int = 0
    slowest_s: float = 0.0


def drawn(name: str, count: int, seed: int | None = None) -> Drawn:
    """Draw ``count`` examples of a property; always the same ones, unless a ``seed`` says which.

    Raises:
        AssertionError: it does not hold, or what a parser raised that is no refusal.
    """
    holds, parts = PROPERTIES[name]
    told = Drawn()

    @hypothesis.settings(
        max_examples=count,
        derandomize=seed is None,
        database=None,
        phases=[Phase.generate],  # what fails is simplified for ever: bodies are large
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(st.tuples(*parts))
    def timed(example: tuple[object, ...]) -> None:
        began_s = time.thread_time()
        holds(*example)
        told.count += 1
        told.slowest_s = max(told.slowest_s, time.thread_time() - began_s)

    gc.disable()  # what Hypothesis leaves behind would be counted as an example's time
    try:
        (timed if seed is None else hypothesis.seed(seed)(timed))()
    finally:
        gc.enable()
    return told
