"""Replicas follow the line, on real Serve."""

import threading
import time

from tests.running import ADMIN_KEY, chat, simulated, until


def test_replicas_follow_the_line_up_down_and_from_zero(gates) -> None:
    """Asleep, one request wakes a replica; a line calls a second; quiet sends both away.

    Nobody is refused on the way, and nothing that runs is cut off by a scale-down.
    """
    scaling = {
        "min_replicas": 0,
        "max_replicas": 2,
        "target_utilization": 0.5,
        "upscale_delay_s": 0.5,
        "downscale_delay_s": 2.0,
    }
    config = simulated(seats=2, autoscaling=scaling, simulated={"decode_ms": 40.0})
    gate = gates(config, {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY}).start().ready()
    try:
        assert not gate.replicas(), "asleep until somebody calls"
        with gate.client() as client:
            told = client.post("/v1/chat/completions", json=chat())
        assert told.status_code == 200
        assert float(told.headers["x-queue-time-ms"]) > 0, "it waited for its replica"

        statuses: list[int] = []
        stop = threading.Event()

        def ask() -> None:
            with gate.client() as client:
                while not stop.is_set():
                    body = chat(max_tokens=30)
                    statuses.append(client.post("/v1/chat/completions", json=body).status_code)

        callers = [threading.Thread(target=ask) for _ in range(6)]
        for caller in callers:
            caller.start()
        until(lambda: len(gate.replicas()) == 2, 60, "the second replica")
        time.sleep(1)  # both work for a while
        stop.set()
        for caller in callers:
            caller.join()
        assert set(statuses) == {200}
        until(lambda: not gate.replicas(), 60, "the last replica's leaving")
    finally:
        gate.stop()


def test_a_replica_drains_before_it_goes(gates) -> None:
    """Scaled down in the middle of a long stream, the replica finishes it first."""
    scaling = {
        "min_replicas": 0,
        "max_replicas": 1,
        "target_utilization": 1.0,
        "upscale_delay_s": 0.0,
        "downscale_delay_s": 0.0,
    }
    config = simulated(seats=4, autoscaling=scaling, simulated={"decode_ms": 50.0})
    gate = gates(config, {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY}).start().ready()
    try:
        with gate.client() as client:
            body = chat(max_tokens=100, stream=True)
            with client.stream("POST", "/v1/chat/completions", json=body) as told:
                lines = [line for line in told.iter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        until(lambda: not gate.replicas(), 60, "the replica's leaving")
    finally:
        gate.stop()
