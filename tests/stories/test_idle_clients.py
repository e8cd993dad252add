"""Clients that neither send nor read: how long they may hold a connection, and a seat."""

import socket
import time
from collections.abc import Iterator

import pytest

from tests.running import ADMIN_KEY, RunningGate, chat, simulated, until

IDLE_S = 3


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGate]:
    """A gate that waits for idle clients for three seconds; its engine thinks for six."""
    slow = {"decode_ms": 6_000.0, "decode_ms_per_sequence": 0.0, "prefill_tokens_per_s": 1e9}
    env = {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY, "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(IDLE_S)}
    gate = RunningGate(tmp_path_factory.mktemp("strict"), simulated(simulated=slow), env)
    gate.start()
    try:
        yield gate.ready()
    finally:
        gate.end()


@pytest.mark.parametrize("key", ["", f"authorization: Bearer {ADMIN_KEY}\r\n"])
def test_a_body_that_does_not_come_frees_its_connection(strict: RunningGate, key: str) -> None:
    """Refused or not: 7,800 such clients, of whom nobody knows a key, would fill the proxy."""
    with socket.create_connection(("127.0.0.1", strict.port), timeout=30) as client:
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        client.sendall(f"{head}{key}content-length: 500\r\n\r\n".encode())
        began_s = time.monotonic()
        while client.recv(65_536):
            pass
        assert time.monotonic() - began_s < 4 * IDLE_S


@pytest.mark.parametrize("stream", [False, True])
def test_whoever_waits_for_an_engine_is_not_idle(strict: RunningGate, stream: bool) -> None:
    """An answer may take longer than a client may be idle, whole or between two chunks."""
    with strict.client() as client:
        began_s = time.monotonic()
        told = client.post("/v1/chat/completions", json=chat(max_tokens=2, stream=stream))
        assert time.monotonic() - began_s > IDLE_S
        assert told.status_code == 200
        assert not stream or told.text.endswith("data: [DONE]\n\n")
    until(lambda: strict.gauge("num_requests_running") == 0, 30, "the engine's end")
