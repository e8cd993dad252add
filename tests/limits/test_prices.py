"""What tokens cost, in nanos."""

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.limits import cost_nanos, nanos_per_token
from serve_app.model_settings import Prices

MILLION = 1_000_000
TOKENS = st.integers(0, 10**10)
PRICE = st.floats(0, MILLION) | st.decimals(0, 100, places=4).map(float)
PRICES = st.builds(
    Prices,
    input_per_million=PRICE,
    output_per_million=PRICE,
    cached_input_per_million=st.none() | PRICE,
)


def prices(put: float, out: float, cached: float | None = None) -> Prices:
    return Prices(input_per_million=put, output_per_million=out, cached_input_per_million=cached)


@pytest.mark.parametrize(
    ("tokens", "priced", "nanos"),
    [
        pytest.param((1_000, 0, 1_000), prices(0, 0), 0, id="free"),
        pytest.param((MILLION, 0, 0), prices(0.15, 0.6), 150_000_000, id="a million in"),
        pytest.param((0, 0, MILLION), prices(0.15, 0.6), 600_000_000, id="a million out"),
        pytest.param((1, 0, 0), prices(0.15, 0.6), 150, id="one token"),
        pytest.param((3, 0, 0), prices(1.005, 0), 3_015, id="no binary fraction"),
        pytest.param((7, 0, 0), prices(0.0007, 0), 5, id="rounded up to a nano"),
        pytest.param((1, 0, 0), prices(1e-300, 0), 1, id="next to nothing"),
        pytest.param((10, 0, 0), prices(1, 1), 10_000, id="whole numbers"),
        pytest.param((100, 40, 0), prices(2, 0), 200_000, id="cached as other input"),
        pytest.param((100, 40, 0), prices(2, 0, 0.5), 140_000, id="cached for less"),
        pytest.param((100, 40, 0), prices(2, 0, 0), 120_000, id="cached for nothing"),
        pytest.param((100, 400, 0), prices(2, 0, 0.5), 50_000, id="more cached than there are"),
        pytest.param((-5, -5, -5), prices(2, 2, 2), 0, id="less than nothing"),
    ],
)
def test_cost(tokens: tuple[int, int, int], priced: Prices, nanos: int) -> None:
    """To the nano what the price list says."""
    assert cost_nanos(*tokens, priced) == nanos


@given(tokens=st.tuples(TOKENS, TOKENS, TOKENS), priced=PRICES)
def test_a_cost_is_exact(tokens: tuple[int, int, int], priced: Prices) -> None:
    """Price by price as written, rounded up once, at the end; never negative."""
    put, cached, out = tokens[0], min(tokens[:2]), tokens[2]
    kept = priced.cached_input_per_million
    each = [priced.input_per_million, priced.input_per_million if kept is None else kept]
    each.append(priced.output_per_million)
    parts = zip((put - cached, cached, out), each, strict=True)
    exact = sum(count * Fraction(Decimal(repr(float(price)))) * 1_000 for count, price in parts)
    assert cost_nanos(*tokens, priced) == math.ceil(exact) >= 0


@given(put=TOKENS, cached=TOKENS, out=TOKENS, more=TOKENS, priced=PRICES)
def test_more_never_costs_less(put: int, cached: int, out: int, more: int, priced: Prices) -> None:
    """A longer prompt or reply costs as much or more."""
    cost = cost_nanos(put, cached, out, priced)
    assert cost_nanos(put + more, cached, out, priced) >= cost
    assert cost_nanos(put, cached, out + more, priced) >= cost


@given(put=st.integers(0, 10**7), out=st.integers(0, 10**7), priced=PRICES)
def test_an_estimate_is_the_cost(put: int, out: int, priced: Prices) -> None:
    """Nanos per token, multiplied as doubles, are what it costs, but for a nano in a billion."""
    a, b = nanos_per_token(priced)
    assert math.ceil(put * a + out * b) == pytest.approx(
        cost_nanos(put, 0, out, priced), rel=1e-9, abs=1
    )
