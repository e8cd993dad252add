"""Gates that several stories share."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from tests.running import ADMIN_KEY, RunningGate, simulated
from tests.tally import NARROW, PRICES

HOLD_TTL_S = 5
FIRST_BYTE_S = 4.0


def with_two_gateways() -> dict[str, Any]:
    """Two gateways, a wide model and one with a single seat, and classes of little patience."""
    slow = {"decode_ms_per_sequence": 1.0}  # two hundred at once take a fifth of a second a token
    config = simulated(prices=PRICES, seats=256, autoscaling={"max_replicas": 1}, simulated=slow)
    args = config["applications"][0]["args"]
    narrow = {**copy.deepcopy(args["models"][0]), "name": NARROW, "seats": 1}
    args["models"].append(narrow)
    args["gateway"] = {
        "min_replicas": 2,
        "max_replicas": 2,
        "num_cpus": 0.1,
        "first_byte_timeout_s": FIRST_BYTE_S,
    }
    args["limits"] = {"hold_ttl_s": HOLD_TTL_S}
    args["store"] = {"timeout_ms": 5_000}
    args["queue"] = {
        "classes": [
            {"name": "standard", "max_wait_s": 30, "max_tickets": 2_000},
            {"name": "patient", "max_wait_s": 4, "max_tickets": 100},
            {"name": "hasty", "max_wait_s": 0.5, "max_tickets": 100},
            {"name": "seatless", "max_wait_s": 5, "max_tickets": 0},
        ]
    }
    return config


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGate]:
    """A gate with two gateways whose holds live for five seconds."""
    env = {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY}
    running = RunningGate(tmp_path_factory.mktemp("pair"), with_two_gateways(), env).start()
    try:
        yield running.ready()
    finally:
        running.stop()
