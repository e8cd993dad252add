"""How many replicas each model should have: (running + waiting) ÷ (seats × target utilisation).

Every gateway reports what the store counts, so all report the same; the policy takes the largest.
Serve applies bounds, delays and draining.

Source: Ray Serve's application-level autoscaling (Ray >= 2.51).
"""

from collections.abc import Mapping
from math import ceil
from typing import Any

REPORT_INTERVAL_S = 0.5
LOOK_BACK_S = 1.0
_WORK = "work:"
_SEATS = "seats:"


def wanted_replicas(work: float, seats: int, target_utilization: float) -> int:
    """Return the replicas that ``work`` requests fill to ``target_utilization``.

    Args:
        work: requests running and waiting (>= 0).
        seats: seats of one replica (>= 1).
        target_utilization: share of the seats that should be taken, in (0, 1].
    """
    return ceil(work / (seats * target_utilization) - 1e-9)


def report(deployment: str, *, running: int, waiting: int, capacity: float) -> dict[str, float]:
    """Return one model's figures as a gateway hands them to Serve.

    ``capacity`` is seats × target utilisation of one replica: all the policy needs to know.
    """
    return {_WORK + deployment: running + waiting, _SEATS + deployment: capacity}


def replicas_for_line(contexts: Mapping[Any, Any]) -> tuple[dict[Any, int], dict[Any, Any]]:
    """Decide the replicas of every deployment; the policy that ``serve_config.yaml`` names.

    A model nobody has reported on keeps what it has; the gateway follows the requests it holds.
    """
    reported = _reported(contexts.values())
    wanted = {}
    for deployment, context in contexts.items():
        name = context.deployment_name
        if _WORK + name in reported:
            wanted[deployment] = wanted_replicas(reported[_WORK + name], 1, reported[_SEATS + name])
        elif _reports(context):
            target = context.config.target_ongoing_requests
            wanted[deployment] = max(1, ceil(context.total_num_requests / target))
        else:
            wanted[deployment] = context.target_num_replicas
    return {at: _bounded(n, contexts[at]) for at, n in wanted.items()}, {}


def _reports(context: Any) -> bool:
    """Return whether this deployment is the one that reports, the gateway."""
    return any(name.startswith(_WORK) for name in context.aggregated_metrics or ())


def _reported(contexts: Any) -> dict[str, float]:
    """Return the largest value that any gateway reported for each figure."""
    largest: dict[str, float] = {}
    for context in contexts:
        for name, by_replica in (context.aggregated_metrics or {}).items():
            values = [value for value in by_replica.values() if value is not None]
            if values:
                largest[name] = max(largest.get(name, 0.0), *values)
    return largest


def _bounded(wanted: int, context: Any) -> int:
    low = context.capacity_adjusted_min_replicas
    high = context.capacity_adjusted_max_replicas
    return int(min(max(wanted, low), high))
