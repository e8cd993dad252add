"""The relay on a whole gate: who leaves, who reads slowly, what is large (CONTRACT §3, §4)."""

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import pytest

from tests.running import ADMIN_KEY, RunningGate, chat, simulated, until

PATH = "/v1/chat/completions"
READERS, BYTES_A_SECOND, LONG = 200, 1_024, 6_000
MEGABYTE = 1e6


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGate]:
    """A gate before one replica with seats and context for 200 long replies at once."""
    fast = {"decode_ms": 0.5, "decode_ms_per_sequence": 0.02, "prefill_tokens_per_s": 1e9}
    fast["kv_tokens"] = READERS * LONG * 2
    config = simulated(
        seats=256,
        simulated=fast,
        engine_args={"max_model_len": 100_000},
        autoscaling={"max_replicas": 1},
    )
    env = {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY}
    running = RunningGate(tmp_path_factory.mktemp("wide"), config, env).start()
    try:
        yield running.ready()
    finally:
        running.stop()


def asked(key: str, body: dict[str, Any]) -> bytes:
    """The bytes of a request, for a socket of our own."""
    raw = json.dumps(body).encode()
    lines = [f"POST {PATH} HTTP/1.1", "host: gate", "content-type: application/json"]
    lines += [f"authorization: Bearer {key}", f"content-length: {len(raw)}", "", ""]
    return "\r\n".join(lines).encode() + raw


def leaves(gate: RunningGate, body: dict[str, Any], *, after_a_byte: bool) -> float:
    """Ask, see the engine at work, hang up; return when that was, by the clock."""
    with socket.create_connection(("127.0.0.1", gate.port), timeout=30) as wire:
        wire.sendall(asked(ADMIN_KEY, body))
        if after_a_byte:
            assert wire.recv(4_096)
        at = gate.engine()
        until(lambda: gate.gauge("num_requests_running", at) == 1, 10, "the work", every_s=0.02)
    return time.monotonic()


@pytest.mark.parametrize(
    ("body", "after_a_byte"),
    [
        pytest.param(chat("word " * 1_000, max_tokens=50, stream=True), False, id="before a byte"),
        pytest.param(chat(max_tokens=1_900, stream=True), True, id="in the middle of a stream"),
        pytest.param(chat(max_tokens=1_900), False, id="while a whole reply is made"),
    ],
)
def test_a_hang_up_ends_the_engines_work_within_a_second(
    gate: RunningGate, gates: Callable[..., RunningGate], body: dict[str, Any], after_a_byte: bool
) -> None:
    """Wherever it comes: by the engine's own gauge."""
    if body.get("stream") and not after_a_byte:
        slow = simulated(simulated={"prefill_tokens_per_s": 20.0}, autoscaling={"max_replicas": 1})
        gate = gates(slow, {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY}).start().ready()
    at = gate.engine()
    left_s = leaves(gate, body, after_a_byte=after_a_byte)
    until(lambda: gate.gauge("num_requests_running", at) == 0, 10, "the abort", every_s=0.02)
    took_s = time.monotonic() - left_s
    print(f"aborted after {took_s * 1e3:.0f} ms")
    assert took_s < 1


async def read_slowly(gate: RunningGate, request: bytes, got: list[int], number: int) -> None:
    """Ask, and read a kilobyte each second, through a window that holds little more."""
    loop = asyncio.get_running_loop()
    with socket.socket() as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        wire.setblocking(False)
        await loop.sock_connect(wire, ("127.0.0.1", gate.port))
        await loop.sock_sendall(wire, request)
        while True:
            got[number] += len(await loop.sock_recv(wire, BYTES_A_SECOND))
            await asyncio.sleep(1)  # as slow as it is said to be


async def test_slow_readers_do_not_grow_the_gateway(wide: RunningGate) -> None:
    """Two hundred read a kilobyte a second: what they do not read stays in the engine."""
    gateway = psutil.Process(wide.actors("Gateway")[0])
    key = wide.new_key(limits={"requests_per_minute": 10_000})
    request = asked(key, chat(max_tokens=LONG, stream=True, ignore_eos=True))
    got, before, looks = [0] * READERS, gateway.memory_info().rss / MEGABYTE, []
    slow = [asyncio.create_task(read_slowly(wide, request, got, at)) for at in range(READERS)]
    try:
        async with asyncio.timeout(60):
            while not all(got):
                await asyncio.sleep(0.1)
        for _ in range(4):
            await asyncio.sleep(5)
            looks.append(gateway.memory_info().rss / MEGABYTE)
    finally:
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
    print(f"resident {before:.0f} MB, then {[round(one) for one in looks]} MB")
    assert min(got) > 5 * BYTES_A_SECOND
    assert max(looks) - before < 64, "200 times what two buffers hold"
    assert looks[-1] - looks[0] < 8, "it does not grow with what waits"
    until(lambda: wide.gauge("num_requests_running") == 0, 30, "the abort of all")


def test_large_bodies_leave_nothing_behind(wide: RunningGate) -> None:
    """Ten megabytes a request, an image in base64: each arrives, and the memory comes back.

    It once waited for the collector, because an exchange and its scope name each other: 20 MB more
    with each request.
    """
    (pid,) = wide.actors("Gateway")
    image = "data:image/png;base64," + "A" * 10_000_000
    parts = [{"type": "text", "text": "Hello"}, {"type": "image_url", "image_url": {"url": image}}]
    body = {**chat(max_tokens=2), "messages": [{"role": "user", "content": parts}]}
    raw, looks = json.dumps(body).encode(), []
    with wide.client(wide.new_key()) as client:
        for _ in range(16):
            told = client.post(PATH, content=raw, headers={"content-type": "application/json"})
            assert told.status_code in (200, 400), told.text  # what it says is the engine's affair
            looks.append(psutil.Process(pid).memory_info().rss / MEGABYTE)
    print(f"resident {[round(one) for one in looks]} MB")
    assert looks[-1] - looks[1] < 60, "three copies of two bodies"


@pytest.mark.parametrize("header", ["x-sluicegate-internal-key", "x-vllm-priority", "connection"])
def test_no_header_of_ours_or_of_the_engines_comes_out(gate: RunningGate, header: str) -> None:
    """What opens the engine, what ranks a request, who serves: a client sees none of it."""
    with gate.client() as client:
        told: httpx.Response = client.post(PATH, json=chat(), headers={header: "x"})
    assert told.status_code == 200
    assert not {"x-sluicegate-internal-key", "x-vllm-priority", "set-cookie"} & set(told.headers)
