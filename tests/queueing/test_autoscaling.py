"""How many replicas each model should have."""

import inspect
import warnings
from dataclasses import dataclass, field, fields
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.queueing import replicas_for_line, report, wanted_replicas

with warnings.catch_warnings(action="ignore"):  # Ray 2.60 uses what pydantic deprecates
    from ray.serve.config import AutoscalingConfig, AutoscalingContext

WORK = st.integers(0, 10**6)
SEATS = st.integers(1, 4_096)
SHARES = st.floats(0.01, 1.0)


@pytest.mark.parametrize(
    ("work", "seats", "target_utilization", "replicas"),
    [
        pytest.param(0, 8, 0.8, 0, id="nobody calls"),
        pytest.param(1, 8, 0.8, 1, id="one request wakes one replica"),
        pytest.param(8, 8, 1.0, 1, id="exactly full"),
        pytest.param(9, 8, 1.0, 2, id="one too many"),
        pytest.param(6, 8, 0.8, 1, id="below the target"),
        pytest.param(7, 8, 0.8, 2, id="above the target"),
        pytest.param(64, 8, 0.8, 10, id="exactly ten"),
        pytest.param(21, 1, 0.7, 30, id="21 / 0.7 is a hair over thirty; rounding errors add none"),
        pytest.param(7_000, 10, 0.7, 1_000, id="a thousand, exactly"),
        pytest.param(5, 1, 1.0, 5, id="one seat each"),
    ],
)
def test_wanted(work: int, seats: int, target_utilization: float, replicas: int) -> None:
    """Enough replicas that the work fills their seats to the target, and none more."""
    assert wanted_replicas(work, seats, target_utilization) == replicas


@given(work=WORK, seats=SEATS, share=SHARES)
def test_wanted_is_enough_and_no_more(work: int, seats: int, share: float) -> None:
    """The work fits into what is wanted, and not into one replica less."""
    wanted = wanted_replicas(work, seats, share)
    room = seats * share
    assert wanted * room >= work * (1 - 1e-6)
    assert wanted == 0 or (wanted - 1) * room < work * (1 + 1e-6)


@given(work=WORK, more=WORK, seats=SEATS, share=SHARES)
def test_more_work_never_wants_fewer(work: int, more: int, seats: int, share: float) -> None:
    """Wanted grows with the work, and shrinks as seats are added."""
    assert wanted_replicas(work + more, seats, share) >= wanted_replicas(work, seats, share)
    assert wanted_replicas(work, seats + 1, share) <= wanted_replicas(work, seats, share)


@dataclass
class PaperContext:
    """What Serve tells a policy of one deployment, as far as we read it (Ray 2.60)."""

    deployment_name: str
    target_num_replicas: int = 1
    capacity_adjusted_min_replicas: int = 0
    capacity_adjusted_max_replicas: int = 10
    total_num_requests: float = 0.0
    aggregated_metrics: dict[str, dict[str, float | None]] | None = None
    config: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(target_ongoing_requests=256)
    )


def test_the_paper_context_is_like_serves() -> None:
    """Serve's own context has every field that the paper one has, and its config the target."""
    real = inspect.signature(AutoscalingContext).parameters
    assert {one.name for one in fields(PaperContext)} <= set(real)
    assert AutoscalingConfig(target_ongoing_requests=256).target_ongoing_requests == 256


def gateway(*reports: dict[str, float], **more: object) -> PaperContext:
    """A gateway deployment whose replicas reported ``reports``, one each."""
    metrics: dict[str, dict[str, float | None]] = {}
    for at, figures in enumerate(reports):
        for name, value in figures.items():
            metrics.setdefault(name, {})[f"gateway-{at}"] = value
    bounds = {"capacity_adjusted_min_replicas": 1, **more}
    return PaperContext("Gateway", aggregated_metrics=metrics, **bounds)


def small(work: int, capacity: float = 6.4) -> dict[str, float]:
    """One gateway's report on the model ``small``: eight seats, filled to 0.8."""
    return report("model-small", running=work // 2, waiting=work - work // 2, capacity=capacity)


def decided(*contexts: PaperContext) -> dict[str, int]:
    """What the policy decides, by deployment."""
    numbers, state = replicas_for_line({one.deployment_name: one for one in contexts})
    assert state == {}
    return numbers


@pytest.mark.parametrize(
    ("work", "now", "low", "high", "replicas"),
    [
        pytest.param(0, 0, 0, 3, 0, id="asleep"),
        pytest.param(1, 0, 0, 3, 1, id="woken from zero"),
        pytest.param(7, 1, 0, 3, 2, id="up"),
        pytest.param(64, 1, 0, 3, 3, id="no higher than its bound"),
        pytest.param(6, 3, 0, 3, 1, id="down"),
        pytest.param(0, 3, 1, 3, 1, id="no lower than its bound"),
        pytest.param(0, 3, 0, 3, 0, id="to sleep"),
    ],
)
def test_a_model_follows_its_line(work: int, now: int, low: int, high: int, replicas: int) -> None:
    """The replicas follow running and waiting work, between the bounds."""
    model = PaperContext("model-small", now, low, high)
    assert decided(gateway(small(work)), model)["model-small"] == replicas


@pytest.mark.parametrize(
    "reporting",
    [
        pytest.param(PaperContext("Gateway"), id="nothing reported yet"),
        pytest.param(PaperContext("Gateway", aggregated_metrics={}), id="no metrics"),
        pytest.param(gateway(report("model-other", running=9, waiting=9, capacity=1)), id="others"),
        pytest.param(
            PaperContext("Gateway", aggregated_metrics={"work:model-small": {"g": None}}),
            id="reported and lost",
        ),
        pytest.param(
            PaperContext("Gateway", aggregated_metrics={"work:model-small": {}}), id="by nobody"
        ),
    ],
)
def test_a_model_nobody_reported_on_keeps_what_it_has(reporting: PaperContext) -> None:
    """A gateway that starts, or lost its store, takes no replica away."""
    assert decided(reporting, PaperContext("model-small", 3))["model-small"] == 3


def test_gateways_that_disagree() -> None:
    """All count the same line, so the largest figure counts, and is not added up."""
    reporting = gateway(small(7), small(20), small(0))
    assert decided(reporting, PaperContext("model-small", 1))["model-small"] == 4


def test_each_model_for_itself() -> None:
    """One model's line does not scale another."""
    figures = {**small(20), **report("model-large", running=0, waiting=0, capacity=2.0)}
    numbers = decided(gateway(figures), PaperContext("model-small", 1), PaperContext("model-large"))
    assert (numbers["model-small"], numbers["model-large"]) == (4, 0)


@pytest.mark.parametrize(
    ("requests", "replicas"), [(0, 1), (1, 1), (256, 1), (257, 2), (1_000, 4), (10_000, 5)]
)
def test_the_gateway_follows_the_requests_it_holds(requests: int, replicas: int) -> None:
    """Its own replicas come from Serve's count, at least one, within its bounds."""
    reporting = gateway(small(0), total_num_requests=requests, capacity_adjusted_max_replicas=5)
    assert decided(reporting)["Gateway"] == replicas
    reporting.capacity_adjusted_min_replicas = 0
    assert decided(reporting)["Gateway"] == replicas
