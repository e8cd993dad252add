"""A replica offers what its engine can hold (DESIGN §4, adaptive seats)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.engine.offer import EngineLoad, Offer

FULL_KV, IN_QUEUE, FREE = EngineLoad(8, 0, 0.97), EngineLoad(8, 3, 0.6), EngineLoad(4, 0, 0.4)
LOADS = st.builds(EngineLoad, st.integers(0, 50), st.integers(0, 9), st.floats(0, 1))


@pytest.mark.parametrize(
    ("seen", "seats"),
    [
        ([FREE], [8]),
        ([FULL_KV], [6]),
        ([FULL_KV, FULL_KV, EngineLoad(6, 0, 0.97)], [6, 6, 4]),
        ([EngineLoad(10, 0, 0.97)] * 23, [6] * 20 + [4] * 3),
        ([FULL_KV, None, FREE], [6, 6, 7]),
        ([IN_QUEUE], [8]),
        ([IN_QUEUE, IN_QUEUE, FREE, FREE, FREE], [8, 6, 7, 8, 8]),
        ([IN_QUEUE, FREE, IN_QUEUE], [8, 8, 8]),
        ([FULL_KV, EngineLoad(5, 0, 0.9)], [6, 6]),
        ([FULL_KV, EngineLoad(5, 0, 0.97)], [6, 4]),
        ([EngineLoad(0, 0, 1.0)] * 3, [1, 1, 1]),
    ],
    ids=str,
)
def test_seats_follow_the_engine(seen: list[EngineLoad | None], seats: list[int]) -> None:
    """Full: a fifth less once that shows; a queue only if it lasts; room: one more, up to all."""
    offer = Offer(8)
    assert [offer.seen(one) for one in seen] == seats


@given(st.lists(LOADS), st.integers(1, 64))
def test_never_none_and_never_more_than_there_are(seen: list[EngineLoad], nominal: int) -> None:
    """Whatever an engine says; and once there is room for long, all are offered again."""
    offer = Offer(nominal)
    assert all(1 <= offer.seen(one) <= nominal for one in seen)
    for _ in range(nominal + 1):
        offer.seen(FREE)
    assert offer.seats == nominal


def test_the_load_is_read_from_what_vllm_writes() -> None:
    """One line a gauge and engine; of several engines of one server the fullest cache counts."""
    text = (
        "# HELP vllm:num_requests_running Number of requests in model execution batches.\n"
        "# TYPE vllm:num_requests_running gauge\n"
        'vllm:num_requests_running{engine="0",model_name="m}"} 3.0\n'
        'vllm:num_requests_running{engine="1",model_name="m}"} 2.0\n'
        'vllm:num_requests_waiting{engine="0",model_name="m}"} 1.0\n'
        'vllm:num_requests_waiting_by_reason{reason="x"} 7.0\n'
        'vllm:kv_cache_usage_perc{engine="0",model_name="m}"} 0.25\n'
        'vllm:kv_cache_usage_perc{engine="1",model_name="m}"} 0.5\n'
    )
    assert EngineLoad.from_metrics(text) == EngineLoad(5, 1, 0.5)
    assert EngineLoad.from_metrics("") == EngineLoad()
    assert EngineLoad.from_metrics("vllm:num_requests_running NaN\n") == EngineLoad()
