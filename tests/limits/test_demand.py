"""What a request is expected to use, and the cap that is set so that it is so."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.limits.bound import bind
from serve_app.limits.demand import Demand, Estimate, Terms, counted, estimated
from tests.holding import limits

LEARNED = 256
ONE = Demand(choices=1)
PLAIN = Terms()


def of(demand: Demand, terms: Terms = PLAIN, tokens: int = 100, **wanted: Any) -> Estimate:
    """Return the estimate for a caller whose own limits are ``wanted``."""
    return estimated(demand, terms, bind(limits(**wanted), "", "", "m"), tokens, LEARNED)


def capped(**caps: int) -> Estimate:
    """Return the estimate where the named scopes and the model have these caps."""
    own = {"models": {"m": _cap(caps.get("key_model"))}, **_cap(caps.get("key"))}
    tenant = {"models": {"m": _cap(caps.get("tenant_model"))}, **_cap(caps.get("tenant"))}
    binds = bind(limits(**own), "", limits(**tenant), "m")
    demand = replace(ONE, cap=caps.get("client"))
    return estimated(demand, Terms(caps.get("model")), binds, 100, LEARNED)


def _cap(value: int | None) -> dict[str, int]:
    return {} if value is None else {"output_cap": value}


def test_the_cap_is_the_clients_else_the_narrowest_default_else_learned() -> None:
    """Client, key on the model, key, tenant on the model, tenant, model, learned, in that order.

    A cap that the client named is not set again; one that was learned binds nobody.
    """
    caps = {"client": 1, "key_model": 2, "key": 3, "tenant_model": 4, "tenant": 5, "model": 6}
    for place in [*caps]:
        told = capped(**caps)
        assert told.output_tokens == caps[place]
        assert told.cap == (None if place == "client" else caps[place])
        del caps[place]
    assert capped() == Estimate(100, LEARNED, None)


@pytest.mark.parametrize(
    ("wanted", "choices", "expected"),
    [
        pytest.param({}, 1, (LEARNED, None), id="no limit: what was learned"),
        pytest.param({"tokens_per_minute": 356}, 1, (256, None), id="it just fits: no cap"),
        pytest.param(
            {"tokens_per_minute": 355}, 1, (255, 255), id="a small limit: a cap that fits"
        ),
        pytest.param({"tokens_per_day": 110}, 1, (10, 10), id="of a day, too"),
        pytest.param({"tokens_per_month": 110}, 2, (5, 5), id="two replies share what fits"),
        pytest.param({"tokens_per_month": 111}, 2, (5, 5), id="rounded down"),
        pytest.param({"output_tokens_per_minute": 9}, 1, (9, 9), id="output has its own limit"),
        pytest.param({"output_tokens_per_day": 9}, 4, (2, 2), id="and four replies share it"),
        pytest.param({"input_tokens_per_minute": 9}, 1, (LEARNED, None), id="input sets no cap"),
        pytest.param({"requests_per_day": 1}, 1, (LEARNED, None), id="nor do requests"),
        pytest.param({"concurrency": 1}, 1, (LEARNED, None), id="nor concurrency"),
        pytest.param(
            {"tokens_per_minute": {"limit": 1, "burst": 130}}, 1, (30, 30), id="the burst counts"
        ),
        pytest.param(
            {"tokens_per_minute": {"limit": 130, "burst": 999}}, 1, (256, None), id="not the limit"
        ),
        pytest.param({"tokens_per_day": 100}, 1, (1, 1), id="no room at all: one token"),
        pytest.param(
            {"tokens_per_day": 9}, 1, (9, 9), id="input that may not fit: what fits it at best"
        ),
        pytest.param({"tokens_per_day": 0}, 1, (1, 1), id="a limit of nothing: one token"),
        pytest.param(
            {"shadow": {"tokens_per_day": 9}}, 1, (LEARNED, None), id="a shadow caps none"
        ),
        pytest.param({"output_cap": 50, "tokens_per_day": 130}, 1, (30, 30), id="default, clamped"),
        pytest.param({"output_cap": 20, "tokens_per_day": 130}, 1, (20, 20), id="default, smaller"),
        pytest.param(
            {"tokens_per_day": 130, "models": {"m": {"tokens_per_day": 120}}},
            1,
            (20, 20),
            id="the tightest of all scopes",
        ),
        pytest.param({"tokens_per_day": 120, "exempt": False}, 0, (0, None), id="no reply, no cap"),
    ],
)
def test_a_small_limit_sets_a_cap(wanted, choices: int, expected) -> None:
    """Where the client names none; a prompt of 100 tokens."""
    told = of(Demand(choices=choices), **wanted)
    assert (told.input_tokens, told.output_tokens, told.cap) == (100, *expected)


@pytest.mark.parametrize("cap", [0, 1, 10**9])
def test_the_clients_cap_is_never_changed(cap: int) -> None:
    """It asked for so much: what never fits is refused, not cut."""
    told = of(Demand(choices=2, cap=cap), tokens_per_day=9, output_cap=3)
    assert told == Estimate(100, cap, None)


@pytest.mark.parametrize(
    ("nanos", "budget", "expected"),
    [
        ((0.0, 2.0), 0.000_000_1, (50, 50)),  # 100 nanos
        ((0.5, 2.0), 0.000_000_1, (25, 25)),  # 50 of them for the prompt
        ((1.5, 2.0), 0.000_000_1, (50, 50)),  # the prompt may cost less than it seems
        ((0.5, 0.0), 0.000_000_1, (LEARNED, None)),  # replies are free
        ((0.0, 1 / 3), 0.000_000_01, (30, 30)),  # 10 nanos
    ],
)
def test_a_small_budget_sets_a_cap(nanos, budget: float, expected) -> None:
    """By the model's prices, the prompt's cost taken off first."""
    told = of(ONE, Terms(None, *nanos), cost_per_day=budget)
    assert (told.output_tokens, told.cap) == expected


def test_a_request_counts_in_every_unit() -> None:
    """Replies times tokens, a request, a seat, and money rounded up to a nano."""
    assert counted(Demand(choices=3), Terms(None, 0.5, 0.25), 101, 7) == {
        "requests": 1,
        "seats": 1,
        "input": 101,
        "output": 21,
        "tokens": 122,
        "cost": 56,
    }


def test_what_generates_nothing_has_no_output() -> None:
    """Embeddings: the prompt is all, whatever caps there are."""
    told = of(Demand(choices=0, cap=9), output_cap=5, tokens_per_day=3)
    assert (told.input_tokens, told.cap) == (100, None)
    assert counted(Demand(choices=0), PLAIN, 100, told.output_tokens)["output"] == 0


@given(
    choices=st.integers(1, 5),
    tokens=st.integers(0, 300),
    tight=st.dictionaries(
        st.sampled_from(["tokens_per_minute", "output_tokens_per_day", "tokens_per_month"]),
        st.integers(1, 2_000),
    ),
    budget=st.none() | st.integers(1, 4_000),
    prices=st.tuples(*[st.sampled_from([0.0, 1.0, 2.0, 3.0])] * 2),
)
def test_what_is_set_fits_and_a_token_more_does_not(
    choices: int, tokens: int, tight, budget, prices
) -> None:
    """A cap that a limit asked for is the largest that a full limit holds, if any is."""
    wanted = dict(tight) if budget is None else {**tight, "cost_per_day": budget / 10**9}
    demand, terms = Demand(fixed_tokens=tokens, choices=choices), Terms(None, *prices)
    told = of(demand, terms, tokens, **wanted)
    bounds = [bound for one in bind(limits(**wanted), "", "", "m") for bound in one.bounds]

    def fits(output: int) -> bool:
        counts = counted(demand, terms, tokens, output)
        return all(counts[bound.kind.unit] <= bound.burst for bound in bounds)

    if told.cap is None:
        assert told.output_tokens == LEARNED
        assert fits(LEARNED) or not fits(0)
    else:
        assert 1 <= told.cap == told.output_tokens < LEARNED
        assert told.cap == 1 or fits(told.cap) or not fits(0)
        assert not fits(told.cap + 1)
