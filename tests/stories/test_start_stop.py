"""Starting and stopping: told early what is wrong, nothing left behind."""

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from serve_app import reaper
from serve_app.store import EmbeddedStore
from tests.running import ADMIN_KEY, RunningGate, chat, simulated, until
from tests.stores import timed

STREAMED = 200
"""Tokens of a stream, some seconds long."""


def alive(pids: list[int]) -> list[str]:
    """Return the command lines of those that still run."""
    lines = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                lines.append(" ".join(process.cmdline()))
    return lines


def listening(pids: list[int]) -> set[int]:
    """Return the ports on which any of these processes listens."""
    ports = set()
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            found = psutil.Process(pid).net_connections("tcp")
            ports |= {one.laddr.port for one in found if one.status == psutil.CONN_LISTEN}
    return ports


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_keys_outlive_the_gate_and_nothing_else_does(gates) -> None:
    """The whole first day: a key is shown once, works, and still works after SIGTERM and restart.

    In between nothing is left: no process, no port, no lock.
    """
    gate = gates(simulated()).start().ready()
    key = gate.first_key
    assert gate.said().count(key) == 2, "once to keep, once in the line to paste"
    assert f"Sluicegate is ready at {gate.url}" in gate.said()
    with gate.client(key) as client:
        assert client.post("/v1/chat/completions", json=chat()).status_code == 200
    family = gate.family()
    ports = listening(family)
    assert any("haproxy" in line for line in alive(family))
    assert gate.stop(signal.SIGTERM) == 0
    until(lambda: not alive(family), 10, "the end of all")
    assert all(is_free(port) for port in ports)

    gate.start().ready()
    assert "shown this once" not in gate.said()
    assert not (gate.data / "admin-key").exists()
    with gate.client(key) as client:
        assert client.get("/v1/models").status_code == 200
    assert gate.stop(signal.SIGINT) == 0


def test_a_killed_launcher_leaves_nothing_behind(gates) -> None:
    """SIGKILL gives no chance to tidy up; the kernel tells the reaper."""
    gate = gates(simulated()).start()
    until(lambda: any("gcs_server" in line for line in alive(gate.family())), 60, "Ray")
    family = gate.family()
    gate.process.kill()
    gate.process.wait()
    until(lambda: not alive(family), 30, "the end of all")


def changed(**args: Any) -> dict[str, Any]:
    config = simulated()
    config["applications"][0]["args"] |= args
    return config


@pytest.mark.parametrize(
    ("config", "says"),
    [
        pytest.param(
            changed(queue={"classes": [{"max_wait": 1}]}),
            "args.queue.classes.0.max_wait: unknown setting; did you mean max_wait_s?",
            id="misspelt",
        ),
        pytest.param(
            changed(store={"timeout_ms": "5s"}), "args.store.timeout_ms: ", id="wrong unit"
        ),
        pytest.param(
            simulated(engine="vllm", source="builtin:gpt-17"), "no builtin 'gpt-17'", id="no model"
        ),
        pytest.param(
            simulated(engine="vllm", source="/no/such/folder"),
            "/no/such/folder is not a model folder",
            id="no folder",
        ),
        pytest.param({"applications": []}, "needs one application", id="not our file"),
    ],
)
def test_what_is_known_early_is_told_early(gates, config, says: str) -> None:
    """One line that names it, exit code 1, and nothing was started."""
    gate = gates(config).start()
    assert gate.process.wait(20) == 1
    assert says in gate.said()
    assert gate.said().count("\n") == 1
    assert not gate.data.exists()


def test_a_port_in_use_is_named(gates) -> None:
    """The start stops before anything runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        gate = gates(simulated(), port=taken.getsockname()[1]).start()
        assert gate.process.wait(20) == 1
    assert f"port {gate.port} on 127.0.0.1 is in use" in gate.said()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        pytest.param("redis://:wrong@{at}", "refuses our user or password", id="wrong password"),
        pytest.param("redis://127.0.0.1:1/0", "cannot be reached", id="nobody there"),
        pytest.param("http://{at}", "SLUICEGATE_STORE_URL", id="not a store's URL"),
    ],
)
def test_a_store_that_does_not_take_us_is_told_early(gates, store_url: str, url, says) -> None:
    """A wrong password would otherwise be a gate that never gets ready."""
    env = {"SLUICEGATE_STORE_URL": url.format(at=store_url.rpartition("@")[2])}
    gate = gates(simulated(), env).start()
    assert gate.process.wait(30) == 1
    assert says in gate.said()
    assert "wrong" not in gate.said()


def test_a_port_that_is_none_is_named(gates) -> None:
    """One line, no traceback."""
    gate = gates(simulated(), port=99_999).start()
    assert gate.process.wait(20) == 1
    assert gate.said() == "sluicegate: port 99999 is not a port: choose 1 to 65535\n"


def test_a_request_that_meets_a_dead_engine_waits_for_the_next_one(gates) -> None:
    """Kill -9 of the only engine: whoever comes then is served, once Serve has started another."""
    gate = gates(simulated(), {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY}).start().ready()
    lines = {pid: psutil.Process(pid).cmdline() for pid in gate.family()}
    (engine,) = [
        pid
        for pid, line in lines.items()
        if "serve_app.engine.simulated" in line and "serve_app.reaper" not in line
    ]
    os.kill(engine, signal.SIGKILL)
    with gate.client() as client:
        told = client.post("/v1/chat/completions", json=chat())
    assert told.status_code == 200
    assert float(told.headers["x-queue-time-ms"]) > 0


def test_an_engine_that_does_not_start_ends_the_start(gates) -> None:
    """Its last words and its log are named, the exit code is 1, nothing is left."""
    config = simulated(engine_args={"max_model_len": "none"})
    gate = gates(config).start()
    family: list[int] = []

    def ended() -> bool:
        family.extend(gate.family())
        return gate.process.poll() is not None

    until(ended, 120, "the end", every_s=0.5)
    assert gate.process.returncode == 1
    assert "failed to start" in gate.said()
    assert "engine-smollm2-135m-" in gate.said()
    until(lambda: not alive(family), 10, "the end of all")


def test_two_gates_on_one_data_folder_are_one_too_many(gates, gate: RunningGate) -> None:
    """The second is told who is in the way; the first does not notice."""
    env = {"XDG_DATA_HOME": str(gate.data.parent)}
    second = gates(simulated(), env).start()
    assert second.process.wait(20) == 1
    assert "another Sluicegate uses the data folder" in second.said()
    with gate.client() as client:
        assert client.get("/v1/models").status_code == 200


def test_a_store_of_ones_own_is_used_and_its_loss_lets_nobody_in(tmp_path: Path, gates) -> None:
    """With SLUICEGATE_STORE_URL no Valkey of ours runs; while it is silent, 503 at once, for all.

    What streams is streamed to its end, and paid afterwards. When the store answers again, so does
    the gate; nobody has to do anything.
    """
    own = EmbeddedStore(tmp_path / "own")
    (valkey,) = [pid for pid in reaper.descendants(os.getpid()) if lies_in(pid, tmp_path / "own")]
    env = {"SLUICEGATE_STORE_URL": own.url, "SLUICEGATE_ADMIN_KEY": ADMIN_KEY}
    config = simulated(simulated={"decode_ms": 20.0})
    config["applications"][0]["args"]["store"] = {"timeout_ms": 250}
    gate = gates(config, env).start().ready()
    try:
        assert not any("valkey-server" in line for line in alive(gate.family()))
        with gate.client(gate.new_key()) as client, gate.client() as admin:
            with streaming(client) as tokens:
                os.kill(valkey, signal.SIGSTOP)
                refuses_all(client)
                assert "sluicegate_store_up 0.0" in admin.get("/metrics").text
            assert (tokens, used(client)) == ([STREAMED], None)
            os.kill(valkey, signal.SIGCONT)
            served_again(client)
            until(lambda: client.get("/health/ready").status_code == 200, 10, "ready again")
            until(lambda: used(client) == STREAMED + 8, 10, "the settling")
            figures = admin.get("/metrics").text
        assert "sluicegate_store_up 1.0" in figures
        assert 'sluicegate_store_errors_total{state="timeout"}' in figures
        assert 'sluicegate_refusals_total{code="state_store_unavailable"}' in figures
        assert own.url.split("@")[0] not in gate.log()
    finally:
        gate.stop()
        own.stop()


def refuses_all(client: httpx.Client) -> None:
    """Check that a gate whose store is silent says so, the second time at once."""
    for _ in range(2):
        with timed() as took:
            told = client.post("/v1/chat/completions", json=chat())
        assert (told.status_code, told.headers["retry-after"]) == (503, "1")
        assert told.headers["x-refused-by"] == "state_store_unavailable"
        assert told.json()["error"]["code"] == "state_store_unavailable"
        assert told.json()["error"]["details"] == {"state": "timeout"}
    assert took[0] < 0.25
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json()["store"]) == (503, "timeout")
    assert "does not answer in time" in ready.json()["store_message"]
    assert client.get("/health").status_code == 200


@contextlib.contextmanager
def streaming(client: httpx.Client) -> Iterator[list[int]]:
    """Begin a stream of :data:`STREAMED` tokens; on leaving, the list says how many came."""
    body = chat(stream=True, max_tokens=STREAMED, stream_options={"include_usage": True})
    tokens: list[int] = []
    with client.stream("POST", "/v1/chat/completions", json=body) as told:
        lines = (line for line in told.iter_lines() if line)
        next(lines)
        yield tokens
        *_, usage, end = lines
    assert end == "data: [DONE]"
    tokens.append(json.loads(usage.removeprefix("data: "))["usage"]["completion_tokens"])


def used(client: httpx.Client) -> int | None:
    """Return the output tokens that the ledger says were used; None if it cannot be read."""
    told = client.get("/v1/usage", params={"group_by": "tenant"})
    if told.status_code == 503:
        return None
    return sum(row["output_tokens"] for row in told.json()["data"])


def served_again(client: httpx.Client) -> None:
    """Check that the gate serves within moments of its store's return."""
    with timed() as took:
        until(lambda: served(client), 10, "served again", every_s=0.02)
    print(f"served again {took[0] * 1e3:.0f} ms after the store was back")
    assert took[0] < 1.5


def served(client: httpx.Client) -> bool:
    """Return whether a request is answered by an engine."""
    return client.post("/v1/chat/completions", json=chat()).status_code == 200


def lies_in(pid: int, folder: Path) -> bool:
    """Return whether ``pid`` is the server that works in ``folder``."""
    process = psutil.Process(pid)
    return process.cwd() == str(folder) and "valkey-server" in process.cmdline()[0]
