"""What tokens cost, in nanos: billionths of the currency that prices and budgets are in. Pure.

Prices are taken as they were written, not as the nearest binary fraction, and added up in whole
numbers: a million tokens cost what the price list says, not a nano more.
"""

import math
from fractions import Fraction
from functools import lru_cache

from serve_app.model_settings import Prices

NANOS_PER_TOKEN = 1_000
"""Of one unit of money for a million tokens."""


def cost_nanos(input_tokens: int, cached_tokens: int, output_tokens: int, prices: Prices) -> int:
    """Return what a request costs, rounded up to a whole nano.

    Args:
        input_tokens: all tokens of the prompt, cached ones too.
        cached_tokens: those of them that the engine had cached; more than all are all.
        output_tokens: tokens of all replies.
        prices: the model's.
    """
    fresh, cached, output, whole = _rates(prices)
    cached_tokens = min(max(0, cached_tokens), max(0, input_tokens))
    parts = (max(0, input_tokens) - cached_tokens) * fresh + cached_tokens * cached
    parts += max(0, output_tokens) * output
    return -(-parts // whole)


def nanos_per_token(prices: Prices) -> tuple[float, float]:
    """Return what an input and an output token cost, for an estimate: none is thought cached."""
    fresh, _, output, whole = _rates(prices)
    return fresh / whole, output / whole


@lru_cache(maxsize=1_024)
def _rates(prices: Prices) -> tuple[int, int, int, int]:
    """Return what a fresh, a cached and an output token cost, in parts of a nano, and its parts."""
    cached = prices.cached_input_per_million
    told = (
        prices.input_per_million,
        prices.input_per_million if cached is None else cached,
        prices.output_per_million,
    )
    nanos = [Fraction(repr(float(price))) * NANOS_PER_TOKEN for price in told]
    whole = math.lcm(*(rate.denominator for rate in nanos))
    fresh, kept, output = (rate.numerator * (whole // rate.denominator) for rate in nanos)
    return fresh, kept, output, whole
