"""What requests teach of a model: bytes per token, and the length of replies."""

import bisect
import math
import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.limits.learning import EDGES, REPLIES_MAX, Learned

PRIOR = Learned()
DRAWS: dict[str, tuple[Callable[[random.Random], float], float]] = {
    "even": (lambda draw: draw.uniform(1, 1_000), 950),
    "exponential": (lambda draw: draw.expovariate(1 / 200), 200 * math.log(20)),
    "lognormal": (lambda draw: draw.lognormvariate(5, 0.7), math.exp(5 + 0.7 * 1.6449)),
    "always the same": (lambda draw: draw.uniform(300, 300), 300),
    "very long": (lambda draw: draw.uniform(0, 2**19), 0.95 * 2**19),
}


def taught(known: Learned, times: int, *request: float) -> Learned:
    for _ in range(times):
        known = known.learn(*request)  # type: ignore[arg-type]
    return known


@pytest.mark.parametrize("kind", DRAWS)
@given(seed=st.integers(0, 2**32))
def test_the_percentile_is_within_one_bucket(kind: str, seed: int) -> None:
    """Of replies that keep their kind, from the two hundredth on, the 95th percentile is known."""
    drawn, true = DRAWS[kind]
    draw, known = random.Random(seed), PRIOR
    for _ in range(200):
        known = known.learn(0, 0, drawn(draw))
    for _ in range(200):
        known = known.learn(0, 0, drawn(draw))
        assert abs(EDGES.index(known.p95) - bisect.bisect_left(EDGES, true)) <= 1


@pytest.mark.parametrize(
    ("before", "after", "within"), [(100, 2_000, 20), (2_000, 100, 500), (10**9, 1, 500)]
)
def test_a_change_is_followed(before: int, after: int, within: int) -> None:
    """Longer replies are known after twenty, shorter ones after a few hundred."""
    known = taught(PRIOR, 1_000, 0, 0, before)
    assert known.p95 >= min(before, EDGES[-1])
    known = taught(known, within, 0, 0, after)
    assert after <= known.p95 < after * 2


def test_few_replies_say_little() -> None:
    """Until twenty came, 256 tokens are expected; then what came."""
    known = taught(PRIOR, 19, 0, 0, 5_000)
    assert known.p95 == 256
    assert known.learn(0, 0, 5_000).p95 == 6_144


@given(replies=st.lists(st.integers(0, 2**40) | st.floats(0, 1e12), max_size=600))
def test_memory_is_bounded(replies: list[float]) -> None:
    """At most forty small counts, whatever came; 95 of 100 of what is remembered fit."""
    known = PRIOR
    for tokens in replies:
        known = known.learn(0, 0, tokens)
        assert len(known.replies) <= len(EDGES) == 40
        assert 0 < sum(known.replies) <= REPLIES_MAX
        fit = sum(known.replies[: EDGES.index(known.p95) + 1])
        assert known.p95 == 256 or fit * 20 >= sum(known.replies) * 19


def test_the_edges() -> None:
    """Two an octave, so that an estimate is at most half above."""
    assert EDGES[:8] == (1, 2, 3, 4, 6, 8, 12, 16)
    assert EDGES[-1] == 2**20
    assert all(upper <= 2 * lower for lower, upper in pairwise(EDGES))
    assert all(upper <= 1.5 * lower for lower, upper in pairwise(EDGES[2:]))


@pytest.mark.parametrize(
    "bytes_per_token",
    [
        pytest.param(3.0, id="CJK"),
        pytest.param(1.3, id="base64"),
        pytest.param(4.6, id="English"),
        pytest.param(15.0, id="spaces"),
        pytest.param(0.5, id="rare signs"),
    ],
)
@given(seed=st.integers(0, 2**32))
def test_the_ratio_becomes_true(bytes_per_token: float, seed: int) -> None:
    """After a hundred prompts of one kind an estimate is at most a twentieth off."""
    draw, known = random.Random(seed), PRIOR
    for _ in range(100):
        text_bytes = draw.randrange(500, 8_000)
        known = known.learn(text_bytes, round(text_bytes / bytes_per_token), -1)
    assert known.bytes_per_token == pytest.approx(bytes_per_token, rel=0.05)
    assert known.input_tokens(9_000, 7) == 7 + math.ceil(9_000 / known.bytes_per_token)


@given(seed=st.integers(0, 2**32))
def test_estimates_sum_up_to_what_is_used(seed: int) -> None:
    """Of a mixed stream no single prompt may be right, but together they are, to a tenth."""
    draw, known, estimated, used = random.Random(seed), PRIOR, 0, 0
    for number in range(600):
        text_bytes = draw.randrange(200, 1_024)
        tokens = round(text_bytes / draw.choice([2.0, 3.0, 4.5]))
        if number >= 100:
            estimated += known.input_tokens(text_bytes, 0)
            used += tokens
        known = known.learn(text_bytes, tokens, -1)
    assert estimated == pytest.approx(used, rel=0.1)


def test_tiny_prompts_say_little_of_large_ones() -> None:
    """A hundred greetings, mostly their template's tokens, do not double a document's estimate."""
    known = taught(taught(PRIOR, 50, 4_000, 1_000, -1), 100, 2, 20, -1)
    assert known.bytes_per_token > 2


ABSURD = [0, 1, -1, -(10**9), 10**9]


@pytest.mark.parametrize("text_bytes", ABSURD)
@pytest.mark.parametrize("text_tokens", ABSURD)
@pytest.mark.parametrize("output_tokens", [*ABSURD, math.inf, math.nan])
def test_one_absurd_request_wrecks_nothing(text_bytes, text_tokens, output_tokens) -> None:
    """It moves the ratio by a ninth at most and the percentile not at all."""
    known = taught(PRIOR, 100, 3_000, 1_000, 100)
    after = known.learn(text_bytes, text_tokens, output_tokens)
    assert known.bytes_per_token / after.bytes_per_token == pytest.approx(1, abs=1 / 9)
    assert after.p95 == known.p95


@given(
    requests=st.lists(
        st.tuples(st.integers(-9, 2**50), st.integers(-9, 2**50), st.integers(-1, 2**50))
    )
)
def test_the_ratio_stays_in_bounds(requests: list[tuple[int, int, int]]) -> None:
    """A quarter of a byte to sixteen bytes a token, whatever is told."""
    known = PRIOR
    for request in requests:
        known = known.learn(*request)
        assert 0.25 <= known.bytes_per_token <= 16
