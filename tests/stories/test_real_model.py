"""The main job with a real model: the official client, a hang-up, a killed engine."""

import asyncio
import contextlib
import os
import re
import signal
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from serve_app.store import keys
from tests.running import ADMIN_KEY, RunningGate, chat, until
from tests.tally import Tally, Used, spoken


def test_the_official_client_talks_to_a_real_model(real_gate: RunningGate) -> None:
    """List models, chat, stream, wrong key: the openai package, unchanged, and a true answer."""
    client = real_gate.openai(real_gate.new_key())
    assert [model.id for model in client.models.list()] == ["smollm2-135m"]
    body = chat("What is the capital of France?", max_tokens=20, temperature=0)
    told = client.chat.completions.create(**body)
    assert "Paris" in (told.choices[0].message.content or "")
    assert told.usage
    assert told.usage.completion_tokens > 0
    parts = list(client.chat.completions.create(**body, stream=True))
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    assert text == told.choices[0].message.content
    plain = client.completions.create(model="smollm2-135m", prompt="1, 2, 3,", max_tokens=6)
    assert plain.choices[0].text
    with pytest.raises(openai.AuthenticationError):
        real_gate.openai("sg-wrong").models.list()


def test_an_engine_on_the_cpu_lets_the_gate_go_first(real_gate: RunningGate) -> None:
    """Gateway, proxy and store are as near to the cores as any program; the engine stands back."""
    ours, told = os.nice(0), {pid: psutil.Process(pid) for pid in real_gate.family()}
    by_name: dict[str, set[int]] = {}
    for process in told.values():
        with contextlib.suppress(psutil.NoSuchProcess):  # some live for a moment only
            by_name.setdefault(role(process), set()).add(process.nice())
    (gateway,) = real_gate.actors("Gateway")
    assert psutil.Process(gateway).nice() == ours
    assert by_name["haproxy"] == by_name["valkey-server"] == {ours}
    assert by_name["engine"] == {min(ours + 15, 19)}


def role(process: psutil.Process) -> str:
    """What a process is there for: vLLM's server, or what its name says."""
    argv = process.cmdline()
    serves = "vllm.entrypoints.openai.api_server" in argv and "serve_app.reaper" not in argv
    return "engine" if serves else process.name()


def test_the_official_client_asks_for_a_lower_class(real_gate: RunningGate) -> None:
    """By OpenAI's tier or our header; vLLM takes the rank that it is told, the client's own not."""
    asking = real_gate.openai(real_gate.new_key()).chat.completions.with_raw_response
    for more, served in (
        ({}, "standard"),
        ({"service_tier": "flex"}, "batch"),
        ({"service_tier": "priority"}, "standard"),
        ({"extra_headers": {"x-priority": "batch"}, "extra_body": {"priority": -9}}, "batch"),
        ({"extra_headers": {"x-max-wait-s": "0"}}, "standard"),
    ):
        told = asking.create(**chat(max_tokens=2), **more)  # type: ignore[call-overload]
        assert told.headers["x-served-class"] == served


async def test_an_interactive_request_does_not_stand_behind_batch_work(
    real_gate: RunningGate,
) -> None:
    """Batch work fills all its seats, and more waits: the first token comes long before theirs.

    Those that wait are not in the engine's queue, and above the nominal seats there is room.
    """
    keys_of = {one: real_gate.new_key(**{"class": one}) for one in ("batch", "interactive")}
    batch, interactive = (
        openai.AsyncOpenAI(base_url=f"{real_gate.url}/v1", api_key=one, max_retries=0)
        for one in keys_of.values()
    )
    done: list[float] = []
    clock = asyncio.get_running_loop().time

    async def ask() -> None:
        more: dict[str, Any] = {"extra_body": {"min_tokens": 60}}
        await batch.chat.completions.create(**chat(max_tokens=60), **more)
        done.append(clock())

    asking = [asyncio.create_task(ask()) for _ in range(24)]
    with real_gate.client() as client:

        def waiting() -> int:
            return int(client.get("/v1/queue").json()["models"][0]["waiting"])

        async with asyncio.timeout(60):
            while await asyncio.to_thread(waiting) < 12:
                await asyncio.sleep(0.05)
    began_s = clock()
    stream = await interactive.chat.completions.create(**chat(max_tokens=4), stream=True)
    await anext(aiter(stream))
    first_s = clock()
    await stream.close()
    await asyncio.gather(*asking)
    await asyncio.gather(batch.close(), interactive.close())
    later = [ended for ended in done if ended > began_s]
    print(f"first token after {(first_s - began_s) * 1e3:.0f} ms; the last of the batch after "
          f"{(max(done) - began_s) * 1e3:.0f} ms")  # fmt: skip
    assert len(later) >= 12
    assert first_s - began_s < (max(done) - began_s) / 5


def test_usage_of_a_stream_is_the_engines_own(real_gate: RunningGate) -> None:
    """The client did not ask for usage; it is written all the same, to the token."""
    key = real_gate.new_key()
    body = chat("Say one word.", max_tokens=5, temperature=0)
    with real_gate.client(key) as client:
        told = client.post("/v1/chat/completions", json=body).json()["usage"]
        with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as reply:
            assert '"usage"' not in "".join(reply.iter_text())

    def written() -> dict[str, str]:
        with real_gate.redis() as store:
            names = store.keys(f"sg:{{t:default}}:usage:{key.split('-')[2]}:*")
            found = store.hgetall(names[0]) if names else {}
        own = "smollm2-135m\tstandard\t"
        return {name.removeprefix(own): count for name, count in found.items()}

    until(lambda: written().get("requests") == "2", 10, "both settled")
    assert written()["input_tokens"] == str(2 * told["prompt_tokens"])
    assert written()["output_tokens"] == str(2 * told["completion_tokens"])


@pytest.mark.parametrize("stream", [True, False])
def test_a_hang_up_aborts_the_engines_work(real_gate: RunningGate, stream: bool) -> None:
    """Seen in vLLM's own gauge: the request runs, the client leaves, nothing runs."""
    body = chat("Write a very long story.", max_tokens=1_800, stream=stream, ignore_eos=True)
    at = real_gate.engine()
    with real_gate.client() as client:
        if stream:
            with client.stream("POST", "/v1/chat/completions", json=body) as told:
                lines = told.iter_lines()  # kept: a forgotten iterator closes the reply
                next(lines)
                until(lambda: real_gate.gauge("num_requests_running", at) == 1, 10, "the work")
        else:
            with pytest.raises(httpx.TimeoutException):
                client.post("/v1/chat/completions", json=body, timeout=2)
    until(lambda: real_gate.gauge("num_requests_running", at) == 0, 10, "the abort")
    with real_gate.redis() as store:
        until(lambda: not store.hlen(keys.line("smollm2-135m")[5]), 10, "the seat back")


TOKENS = {
    "tokens_per_day": 1_000_000,
    "input_tokens_per_day": 1_000_000,
    "output_tokens_per_day": 1_000_000,
}


def test_a_small_limit_caps_vllm_and_is_charged_its_count(real_gate: RunningGate) -> None:
    """No cap given and a small limit: the gate sets one, vLLM obeys, and its own count is charged.

    Of two replies to one request, each gets half.
    """
    limits = TOKENS | {"tokens_per_minute": {"limit": 1, "burst": 120}}
    tally = Tally(real_gate, limits=limits, tenant_limits=TOKENS)
    body = chat("Write a very long story.", ignore_eos=True, n=2)
    del body["max_tokens"]
    with real_gate.client(tally.key) as client:
        told = client.post("/v1/chat/completions", json=body)
        again = client.post("/v1/chat/completions", json=body)
    cap, usage = int(told.headers["x-output-cap"]), told.json()["usage"]
    assert 40 <= cap <= 60
    assert usage["completion_tokens"] == 2 * cap
    assert again.status_code == 429
    assert tally.settled().used() == Used.of(usage)
    for scope in ("key", "tenant"):
        spent = tally.spent()[scope]
        assert (spent["I"], spent["O"]) == (usage["prompt_tokens"], usage["completion_tokens"])
        assert spent["T"] == usage["total_tokens"]


def test_who_leaves_vllm_mid_stream_pays_input_and_what_was_streamed(
    real_gate: RunningGate,
) -> None:
    """Left mid-stream: input + tokens streamed so far; nothing is held any more."""
    tally = Tally(real_gate, limits=TOKENS, tenant_limits=TOKENS)
    body, text = chat("Write a very long story.", max_tokens=1_800, ignore_eos=True), ""
    path, more = "/v1/chat/completions", {"stream": True}
    with real_gate.client(tally.key) as client, client.stream("POST", path, json=body | more) as it:
        for piece in it.iter_text():
            text += piece
            if spoken(text) >= 20:
                break
    used = tally.settled().used()
    assert (used.requests, used.input > 0) == (1, True)
    assert spoken(text) <= used.output < 1_800
    spent = tally.spent()
    assert (spent["key"]["I"], spent["key"]["O"]) == (used.input, used.output)
    assert (spent["tenant"]["T"], spent["key"]["T"]) == (used.input + used.output,) * 2


def test_the_engines_port_refuses_every_path_without_the_key(real_gate: RunningGate) -> None:
    """Every path that vLLM says it has, and some it does not say: 401, whatever the method."""
    at = real_gate.engine()
    told = httpx.get(f"{at.url}/openapi.json", headers=at.headers).json()
    paths = [*told["paths"], "/metrics", "/docs", "/openapi.json", "/health", "/nope", "/"]
    assert len(paths) > 20
    for path in paths:
        for method in ("GET", "POST"):
            bearer = {"authorization": f"Bearer {at.key}"}
            for headers in ({}, {"x-sluicegate-internal-key": "x"}, bearer):
                status = httpx.request(method, at.url + path, headers=headers).status_code
                assert status == 401, (method, path)


def test_the_admin_key_and_the_store_do_not_reach_the_engine(real_gate: RunningGate) -> None:
    """The engine's environment holds its own key and none of ours."""
    for pid in engine_pids(real_gate):
        environment = Path(f"/proc/{pid}/environ").read_text()
        assert ADMIN_KEY not in environment
        assert not re.search(r"SLUICEGATE_(ADMIN|API|PROXY|STORE)|RAY_AUTH_", environment)


def test_whole_memory_stays_small(real_gate: RunningGate) -> None:
    """The whole gate with a real model stays under 6 GB, a gateway replica under 300 MB."""
    resident = {}
    for pid in real_gate.family():
        process = psutil.Process(pid)
        resident[pid] = (process.memory_info().rss, " ".join(process.cmdline()))
    gateways = [rss for rss, line in resident.values() if "Gateway" in line]
    assert gateways
    assert max(gateways) < 300e6
    assert sum(rss for rss, _ in resident.values()) < 6e9


def engine_pids(gate: RunningGate) -> list[int]:
    """Return vLLM's processes, server first."""
    lines = {pid: psutil.Process(pid).cmdline() for pid in gate.family()}
    return [
        pid
        for pid, line in lines.items()
        if line
        and (
            "VLLM" in line[0] or ("api_server" in " ".join(line) and "reaper" not in " ".join(line))
        )
    ]


def test_a_killed_engine_is_replaced(real_gate: RunningGate) -> None:
    """Kill -9 of vLLM's server: gone from the registry within 2 s, its family too, then a new one.

    Runs last: it takes a model's start.
    """
    before = set(real_gate.replicas())
    server, *others = engine_pids(real_gate)
    os.kill(server, signal.SIGKILL)
    until(lambda: not before & set(real_gate.replicas()), 2, "the withdrawal", every_s=0.02)
    until(lambda: not [pid for pid in others if psutil.pid_exists(pid)], 15, "the family's end")
    until(real_gate.replicas, 240, "a new replica")
    with real_gate.client() as client:
        told = client.post("/v1/chat/completions", json=chat(temperature=0))
    assert told.status_code == 200
