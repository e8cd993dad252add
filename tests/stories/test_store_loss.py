"""Without the store: who was seen lately goes on for a while, under a share of its limits."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.running import ADMIN_KEY, RunningGate, chat, simulated, until
from tests.stores import Server, timed
from tests.tally import PRICES, Tally, Used

GRACE_S = 12
SLOWLY = {"limit": 4, "burst": 10_000}
"""Refills four units a minute: hardly any in this story's time."""

LIMITS = {"requests_per_day": 24, "tokens_per_day": 100_000, "tokens_per_minute": SLOWLY}
TENANTS = {"requests_per_day": 1_000, "cost_per_month": 9}


def two_gateways_on_their_own() -> dict[str, Any]:
    """Two gateways that let callers go on who were seen in the last seconds."""
    config = simulated(prices=PRICES, seats=16, simulated={"decode_ms": 20.0})
    args = config["applications"][0]["args"]
    args["gateway"] = {"min_replicas": 2, "max_replicas": 2, "num_cpus": 0.1}
    args["store"] = {"on_loss": "local", "grace_s": GRACE_S, "timeout_ms": 500}
    return config


@pytest.fixture
def lost(tmp_path: Path, gates) -> Iterator[tuple[RunningGate, Server]]:
    """A gate whose store we can take away."""
    server = Server(tmp_path / "store", "appendonly yes", "appendfsync always")
    env = {"SLUICEGATE_STORE_URL": server.url, "SLUICEGATE_ADMIN_KEY": ADMIN_KEY}
    gate = gates(two_gateways_on_their_own(), env)
    gate.store_url = lambda: server.url
    try:
        yield gate.start().ready(), server
    finally:
        gate.stop()
        server.end()


def seen_by_both(gate: RunningGate, key: str) -> None:
    """Return when both gateways serve, and have seen ``key``; they are asked in turn, about."""
    names: set[str] = set()

    def told() -> bool:
        for _ in range(3):
            with gate.client() as admin:
                names.update(gateways(admin.get("/metrics").text))
        return len(names) == 2

    until(told, 60, "both gateways")
    for _ in range(9):
        with gate.client(key) as client:
            assert client.get("/v1/models").status_code == 200


def gateways(figures: str) -> list[str]:
    """Return the name of the gateway that has told these figures."""
    return [one for one in figures.splitlines() if one.startswith("sluicegate_gateway_info{")]


def ready(gate: RunningGate) -> set[tuple[int, str]]:
    """Return what the gateways say of their readiness and of the store."""
    told = set()
    for _ in range(6):
        with gate.client(None) as client:
            reply = client.get("/health/ready")
        assert reply.json()["on_loss"] == "local"
        told.add((reply.status_code, reply.json()["store"]))
    return told


@contextmanager
def streaming(gate: RunningGate, key: str, **more: Any) -> Iterator[list[str]]:
    """Begin a stream; on leaving, its lines are in the list, to the last one."""
    body = chat(stream=True, stream_options={"include_usage": True}, **more)
    lines: list[str] = []
    path = "/v1/chat/completions"
    with gate.client(key) as client, client.stream("POST", path, json=body) as told:
        assert told.status_code == 200
        rest = told.iter_lines()
        lines.append(next(rest))
        yield lines
        lines += [line for line in rest if line]
    assert lines[-1] == "data: [DONE]"


def used(lines: list[str]) -> Used:
    """Return what a stream says that it used."""
    return Used.of(json.loads(lines[-2].removeprefix("data: "))["usage"])


def ask(gate: RunningGate, key: str) -> httpx.Response:
    with gate.client(key) as client:
        return client.post("/v1/chat/completions", json=chat(max_tokens=2))


def refused_at_once(gate: RunningGate, key: str, state: str) -> None:
    """Check that ``key`` gets the store's refusal, and does not wait for it."""
    with gate.client(key) as client, timed() as took:
        told = client.post("/v1/chat/completions", json=chat())
    assert (told.status_code, told.json()["error"]["code"]) == (503, "state_store_unavailable")
    assert told.headers["retry-after"] == "1"
    assert told.json()["error"]["details"] == {"state": state}
    assert took[0] < 0.4


@pytest.mark.parametrize(
    ("state", "take", "give"),
    [
        pytest.param("unreachable", Server.kill, Server.start, id="killed"),
        pytest.param("timeout", Server.pause, Server.go_on, id="silent"),
    ],
)
def test_callers_seen_lately_go_on_for_a_while(lost, state: str, take, give) -> None:
    """A store is lost, and comes back: what was let in meanwhile is counted, to the token.

    Known keys are served within their limits divided by two, streams too; unknown ones are refused
    at once; after the grace so is everybody. Nobody has to do anything when the store is back.
    """
    gate, server = lost
    tally, stranger = Tally(gate, LIMITS, TENANTS), gate.new_key()
    seen_by_both(gate, tally.key)
    with streaming(gate, tally.key, max_tokens=300) as before:
        seen_by_both(gate, tally.key)
        take(server)
        lost_s = time.monotonic()
        until(lambda: ready(gate) == {(200, state)}, 5, "the loss", every_s=0.02)
        refused_at_once(gate, stranger, state)
        with streaming(gate, tally.key) as meanwhile:
            says_so(gate)
        told = let_in_alone(gate, tally.key)
        assert time.monotonic() - lost_s < GRACE_S, "the machine is too slow for this story"
    until(lambda: ready(gate) == {(503, state)}, GRACE_S + 5, "the end of grace")
    refused_at_once(gate, tally.key, state)
    give(server)
    with timed() as took:
        until(lambda: ask(gate, stranger).status_code == 200, 10, "served again", every_s=0.02)
    print(f"{len(told)} were let in alone; served again {took[0] * 1e3:.0f} ms after the return")
    assert took[0] < 2
    until(lambda: ready(gate) == {(200, "ok")}, 10, "ready again")
    whole = sum([Used.of(one.json()["usage"]) for one in told], used(before) + used(meanwhile))
    counted(gate, tally, whole)


def let_in_alone(gate: RunningGate, key: str) -> list[httpx.Response]:
    """Return what was let in until one gateway's share of the day was used up; check both."""
    told = [ask(gate, key)]
    while told[-1].status_code == 200:
        assert told[-1].headers["x-ratelimit-limit-requests"] == "12"
        assert '"key:requests_per_day";q=12;w=86400' in told[-1].headers["ratelimit-policy"]
        told.append(ask(gate, key))
    last = told.pop()
    assert (last.status_code, last.headers["x-refused-by"]) == (429, "key:requests_per_day")
    assert 8 <= len(told) <= 22, "of 24, of which a stream has one, and one is to come"
    return told


def says_so(gate: RunningGate) -> None:
    """Check that figures tell of the loss and of the mode, to a static key."""
    with gate.client() as admin:
        told = admin.get("/metrics")
    assert told.status_code == 200
    assert "sluicegate_store_up 0.0" in told.text
    assert 'sluicegate_store_on_loss{mode="local"} 1.0' in told.text


def counted(gate: RunningGate, tally: Tally, whole: Used) -> None:
    """Check that ledger, report and buckets hold ``whole``, once."""
    until(lambda: tally.used() == whole, 10, f"the settling of {whole}")
    spent, units = tally.settled().spent(), whole.in_units()
    assert {kind: spent["key"][kind] for kind in "RT"} == {kind: units[kind] for kind in "RT"}
    assert units["t"] - 4 <= spent["key"]["t"] <= units["t"]
    assert {kind: spent["tenant"][kind] for kind in "RE"} == {kind: units[kind] for kind in "RE"}
    with gate.client(tally.key) as client:
        rows = client.get("/v1/usage", params={"group_by": "tenant"}).json()["data"]
    told = [(row["requests"], row["input_tokens"], row["output_tokens"]) for row in rows]
    assert told == [(whole.requests, whole.input, whole.output)]
