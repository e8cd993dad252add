"""What the store learns of a model is what its pure twin learns."""

from pathlib import Path

import redis
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serve_app.limits.learning import Learned
from serve_app.store import keys
from serve_app.store.scripts import whole

PROBE = whole(Path(__file__).with_name("learning_probe.lua").read_text())
NAME = keys.learned("t", "m")
THIRTY_DAYS_S = 30 * 86_400

SIZES = st.integers(0, 20_000) | st.sampled_from([0, 1, 1_023, 1_024, 10**9, 2**40])
TOKENS = st.integers(-5, 9_000) | st.sampled_from([0, 1, 10**9])
REPLIES = (
    st.integers(-1, 5_000)
    | st.integers(0, 41).map(lambda octave: 2**octave)
    | st.floats(0, 3_000)
    | st.sampled_from([-1, 0, 1, 10**9])
)
REQUESTS = st.tuples(SIZES, TOKENS, REPLIES)


@example(first=[(1_000, 300, 40), (3_000, 2_000, 700)], times=250, then=[(1, 1, 1)])
@example(first=[(1_024, 10**9, 10**9)], times=60, then=[(10**9, 1, 0)] * 90)
@settings(max_examples=300, deadline=None)
@given(first=st.lists(REQUESTS, max_size=30), times=st.integers(1, 12), then=st.lists(REQUESTS))
def test_the_store_learns_what_its_twin_learns(store_url, first, times, then) -> None:
    """After every request both say the same, to the last bit; thirty days are started anew."""
    with redis.Redis.from_url(store_url, decode_responses=True) as client:
        client.delete(NAME)
        probe, twin = client.register_script(PROBE), Learned()
        assert told(probe([NAME])) == (twin.bytes_per_token, twin.p95)
        for request in [*first * times, *then]:
            twin = twin.learn(*request)
            said = probe([NAME], [repr(number) for number in request])
            assert told(said) == (twin.bytes_per_token, twin.p95)
        assert told(probe([NAME])) == (twin.bytes_per_token, twin.p95)
        if first or then:
            assert THIRTY_DAYS_S - 2 <= client.ttl(NAME) <= THIRTY_DAYS_S
            assert client.hget(NAME, "replies") == (",".join(map(str, twin.replies)) or None)


def told(said: list[str]) -> tuple[float, int]:
    ratio, p95 = said
    return float(ratio), int(p95)


def test_a_look_writes_nothing(store_url: str) -> None:
    """Whoever only asks leaves no trace: an idle tenant has no state."""
    with redis.Redis.from_url(store_url) as client:
        client.delete(NAME)
        client.register_script(PROBE)([NAME])
        assert not client.exists(NAME)


def test_what_is_kept_is_small(store_url: str) -> None:
    """Three fields and less than 600 bytes, whatever was learned."""
    with redis.Redis.from_url(store_url) as client:
        client.delete(NAME)
        probe = client.register_script(PROBE)
        for number in range(2_000):
            probe([NAME], [1_000, 300, 2 ** (number % 24)])
        assert client.hlen(NAME) == 3
        assert client.memory_usage(NAME) < 600
