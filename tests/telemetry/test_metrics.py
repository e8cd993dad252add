"""The figures of one gateway."""

import re
from typing import get_args

import pytest

from serve_app.errors import StoreUnavailable
from serve_app.ingress.docs.shapes import Readiness
from serve_app.store import STATES, Store, keys
from serve_app.telemetry import Metrics


def told(metrics: Metrics, name: str) -> float | None:
    """Return the figure ``name``, labels included; None if it is not told."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", metrics.text().decode(), re.MULTILINE)
    return float(found[1]) if found else None


def test_each_gateway_counts_for_itself() -> None:
    """Two in one process, as in tests, know nothing of each other."""
    one, other = Metrics(), Metrics()
    one.refused("rate_limit_exceeded")
    name = 'sluicegate_refusals_total{code="rate_limit_exceeded"}'
    assert (told(one, name), told(other, name)) == (1.0, None)


def test_what_waits_is_told_by_model_and_class() -> None:
    """Figures are asked for at each scrape; what is no longer told is gone."""
    metrics, figures = Metrics(), {("m", "batch"): 3.0}
    metrics.tell_each("sluicegate_queue_waiting", "In line.", ("model", "class"), lambda: figures)
    metrics.waited("m", "batch", 0.2)
    text = metrics.text().decode()
    assert 'sluicegate_queue_waiting{class="batch",model="m"} 3.0' in text
    assert 'sluicegate_queue_seconds_bucket{class="batch",le="0.5",model="m"} 1.0' in text
    figures.clear()
    assert "sluicegate_queue_waiting{" not in metrics.text().decode()


async def test_calls_of_the_store_are_counted_by_step(store_url: str) -> None:
    """Each with its seconds; the store is up, and this gateway is named."""
    metrics = Metrics()
    store = Store(store_url, timeout_ms=5_000, watch=metrics.store_call)
    metrics.follow(store, "g1", on_loss="closed")
    for _ in range(3):
        await store.run("user_read", [keys.user_record("t", "ada")], [])
    await store.exists("x")
    assert told(metrics, 'sluicegate_store_seconds_count{step="user_read"}') == 3.0
    assert told(metrics, 'sluicegate_store_seconds_count{step="exists"}') == 1.0
    assert told(metrics, "sluicegate_store_up") == 1.0
    assert told(metrics, 'sluicegate_store_state{state="ok"}') == 1.0
    assert told(metrics, 'sluicegate_gateway_info{gateway="g1"}') == 1.0
    await store.close()


async def test_a_store_that_is_away_shows() -> None:
    """Its state is told and each refused call counted; those not sent took no time."""
    metrics = Metrics()
    store = Store("redis://127.0.0.1:1/0", timeout_ms=100, watch=metrics.store_call)
    metrics.follow(store, "g1", on_loss="closed")
    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            await store.exists("x")
    assert told(metrics, "sluicegate_store_up") == 0.0
    states = {
        state: told(metrics, f'sluicegate_store_state{{state="{state}"}}') for state in STATES
    }
    assert states == {state: float(state == "unreachable") for state in STATES}
    assert told(metrics, 'sluicegate_store_errors_total{state="unreachable"}') == 5.0
    assert told(metrics, 'sluicegate_store_seconds_count{step="exists"}') == 1.0
    await store.close()


def test_readiness_knows_every_state() -> None:
    """The document names each state that the store may be in, and that of not having asked."""
    documented = set(get_args(Readiness.model_fields["store"].annotation))
    assert documented == set(STATES) - {"command_refused"} | {"unknown"}
