"""The simulated engine as a process, over HTTP."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import openai
import pytest

FAST = {"start_s": 0, "decode_ms": 0, "decode_ms_per_sequence": 0, "prefill_tokens_per_s": 1e9}
SLOW = {**FAST, "decode_ms": 50}
CHAT = {"model": "sim", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
STREAM = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
USAGE = {"prompt_tokens": 6, "total_tokens": 14, "completion_tokens": 8}


Running = tuple[str, subprocess.Popen[str]]


@contextmanager
def running(settings: dict[str, float], *options: str, path: str = "") -> Iterator[Running]:
    """URL and process of an engine of our own on a free loopback port; ended by its pid."""
    options = ("--port", "0", "--served-model-name", "sim", *options)
    command = [sys.executable, "-m", "serve_app.engine.simulated", *options]
    popen = subprocess.Popen(
        [*command, "--settings", json.dumps(settings)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), path])},
    )
    assert popen.stderr is not None
    line = popen.stderr.readline()
    try:
        listening = re.fullmatch(r"simulated engine sim on 127.0.0.1 port (\d+)\n", line)
        assert listening, line + popen.stderr.read()
        yield f"http://127.0.0.1:{listening[1]}", popen
    finally:
        popen.kill()
        popen.wait()
        popen.stderr.close()


@pytest.fixture(scope="module")
def fast() -> Iterator[str]:
    with running(FAST, "--max-model-len", "512") as (url, _):
        yield url


@pytest.fixture(scope="module")
def slow() -> Iterator[str]:
    with running(SLOW) as (url, _):
        yield url


async def post(url: str, body: object, path: str = "chat/completions", **headers: str):
    """Return status and JSON of one call."""
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(f"{url}/v1/{path}", json=body) as reply,
    ):
        return reply.status, await reply.json()


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(url) as reply:
        return reply.status, await reply.text()


async def frames(url: str, body: object, path: str = "chat/completions", **headers: str):
    """Return the data of every SSE frame of one stream, decoded; the last is the text [DONE]."""
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(f"{url}/v1/{path}", json=body) as reply,
    ):
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        told = (await reply.read()).decode().split("\n\n")
    assert told.pop() == ""
    data = [frame.removeprefix("data: ") for frame in told]
    return [one if one == "[DONE]" else json.loads(one) for one in data]


async def metric(url: str, name: str) -> float:
    _, text = await get(f"{url}/metrics")
    found = re.search(rf'^{name}{{engine="0",model_name="sim"}} (\S+)$', text, re.M)
    assert found, text
    return float(found[1])


async def until(url: str, name: str, value: float) -> None:
    """Wait for a gauge; another process changes it, so there is nothing to await but time."""
    async with asyncio.timeout(5):
        while await metric(url, name) != value:
            await asyncio.sleep(0.01)


async def test_not_up_before_its_time() -> None:
    """Until ``start_s`` has passed, health and requests answer 503; then 200, empty."""
    began = time.monotonic()
    with running({**FAST, "start_s": 0.5}) as (url, _):
        assert (await get(f"{url}/health"))[0] == 503
        status, body = await post(url, CHAT)
        assert (status, body["error"]["type"]) == (503, "ServiceUnavailableError")
        while (await get(f"{url}/health")) != (200, ""):
            assert time.monotonic() < began + 10
            await asyncio.sleep(0.01)  # another process's start; nothing to await but time
        assert (await post(url, CHAT))[0] == 200


async def test_what_it_says_of_itself(fast) -> None:
    """The model list names the model and its context; a version and unknown paths answer too."""
    _, text = await get(f"{fast}/v1/models")
    (card,) = json.loads(text)["data"]
    assert (card["id"], card["object"], card["max_model_len"]) == ("sim", "model", 512)
    assert (await get(f"{fast}/version"))[1] == '{"version":"0.32.0+simulated"}'
    assert (await get(f"{fast}/nowhere")) == (404, '{"detail":"Not Found"}')
    assert (await get(f"{fast}/v1/completions")) == (405, '{"detail":"Method Not Allowed"}')


async def test_a_whole_chat_reply(fast) -> None:
    """One JSON body with vLLM's fields; asked again, the same text under the id we name."""
    status, body = await post(fast, CHAT)
    (choice,) = body["choices"]
    assert status == 200
    assert re.fullmatch(r"chatcmpl-[0-9a-f]{32}", body["id"])
    assert (body["object"], body["model"]) == ("chat.completion", "sim")
    assert abs(body["created"] - time.time()) < 60
    assert choice["message"]["role"] == "assistant"
    assert len(choice["message"]["content"].split()) == 8
    assert (choice["finish_reason"], choice["stop_reason"]) == ("length", None)
    nothing = {"prompt_tokens_details": None, "completion_tokens_details": None}
    assert body["usage"] == {**USAGE, **nothing}
    _, again = await post(fast, CHAT, **{"x-request-id": "abc"})
    assert (again["id"], again["choices"]) == ("chatcmpl-abc", body["choices"])


async def test_a_streamed_chat(fast) -> None:
    """Role first, a frame for each token, the reason on the last, usage if asked for, [DONE]."""
    _, whole = await post(fast, CHAT)
    first, *tokens, used, done = await frames(fast, STREAM)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    said = [frame["choices"][0] for frame in tokens]
    text = "".join(choice["delta"]["content"] for choice in said)
    assert text == whole["choices"][0]["message"]["content"]
    assert [choice["finish_reason"] for choice in said] == [None] * 7 + ["length"]
    assert {frame["object"] for frame in [first, *tokens, used]} == {"chat.completion.chunk"}
    assert len({frame["id"] for frame in [first, *tokens, used]}) == 1
    assert (used["choices"], used["usage"], done) == ([], USAGE, "[DONE]")
    assert not any("usage" in frame for frame in tokens)


async def test_a_streamed_completion(fast) -> None:
    """No role frame, ``text`` instead of a delta, and no usage frame unless asked for."""
    body = {"prompt": "hello", "max_tokens": 4}
    _, whole = await post(fast, body, "completions")
    *tokens, done = await frames(fast, {**body, "stream": True}, "completions")
    text = "".join(frame["choices"][0]["text"] for frame in tokens)
    assert whole["id"].startswith("cmpl-")
    assert (text, len(tokens), done) == (whole["choices"][0]["text"], 4, "[DONE]")
    assert {frame["object"] for frame in [whole, *tokens]} == {"text_completion"}
    assert (whole["usage"]["prompt_tokens"], whole["usage"]["completion_tokens"]) == (2, 4)


async def test_a_refusal_has_vllms_shape(fast) -> None:
    """Four fields under ``error``, whatever is wrong: model, size, media type."""
    status, body = await post(fast, {**CHAT, "model": "other"})
    message = "The model `other` does not exist."
    told = {"message": message, "type": "NotFoundError", "param": "model", "code": 404}
    assert (status, body) == (404, {"error": told})
    status, body = await post(fast, {**CHAT, "max_tokens": 507})
    assert (status, body["error"]["param"]) == (400, "input_tokens")
    async with aiohttp.ClientSession() as http:
        headers = {"content-type": "text/plain"}
        async with http.post(f"{fast}/v1/completions", data=b"{}", headers=headers) as reply:
            assert (reply.status, (await reply.json())["error"]["type"]) == (400, "Bad Request")


async def test_an_openai_client_reads_it(fast) -> None:
    """The official client parses both a whole and a streamed reply."""
    async with openai.AsyncOpenAI(base_url=f"{fast}/v1", api_key="none") as client:
        whole = await client.chat.completions.create(**CHAT)
        stream = await client.chat.completions.create(**STREAM)
        chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == openai.types.CompletionUsage(**USAGE)


async def test_metrics(fast) -> None:
    """The counters grow by what was served, and an idle engine's gauges are zero."""
    names = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")
    before = [await metric(fast, name) for name in names]
    await post(fast, CHAT)
    after = [await metric(fast, name) for name in names]
    assert [b - a for a, b in zip(before, after, strict=True)] == [6, 8]
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        assert await metric(fast, f"vllm:{name}") == 0
    assert await metric(fast, "vllm:num_preemptions_total") == 0


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["whole", "stream"])
async def test_a_hang_up_frees_the_seat(slow, body) -> None:
    """A client that goes away takes its sequence out of the batch, waiting or streaming."""
    call = asyncio.create_task(post(slow, {**body, "max_tokens": 1_000}))
    await until(slow, "vllm:num_requests_running", 1)
    assert await metric(slow, "vllm:kv_cache_usage_perc") > 0
    call.cancel()
    await until(slow, "vllm:num_requests_running", 0)
    assert await metric(slow, "vllm:kv_cache_usage_perc") == 0


async def test_tokens_come_one_by_one(slow) -> None:
    """A stream's headers come at once and its tokens a decode step apart, not all at the end."""
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{slow}/v1/chat/completions", json=STREAM) as reply,
    ):
        at = [time.monotonic() async for chunk, _ in reply.content.iter_chunks()]
    assert at[-1] - at[0] >= 0.25


async def test_faults_before_the_first_byte(fast) -> None:
    """``error`` is a 500 in vLLM's shape, an unknown fault a 400, ``hang`` never answers."""
    status, body = await post(fast, STREAM, **{"x-simulated-fault": "error"})
    assert (status, body["error"]["type"]) == (500, "InternalServerError")
    assert (await post(fast, CHAT, **{"x-simulated-fault": "typo"}))[0] == 400
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):  # longer than any answer of this engine takes
            await post(fast, CHAT, **{"x-simulated-fault": "hang"})


async def test_a_break_in_the_middle(fast) -> None:
    """A broken stream has shown tokens and no end; a broken whole reply lacks half its body."""
    headers = {"x-simulated-fault": "break"}
    async with aiohttp.ClientSession(headers=headers) as http:
        async with http.post(f"{fast}/v1/chat/completions", json=STREAM) as reply:
            seen = [await reply.content.readline() for _ in range(2 * 5)]
            with pytest.raises(aiohttp.ClientPayloadError):
                await reply.content.readline()
        assert [line[:6] for line in seen] == [b"data: ", b"\n"] * (1 + 4)
        async with http.post(f"{fast}/v1/chat/completions", json=CHAT) as reply:
            with pytest.raises(aiohttp.ClientPayloadError):
                await reply.read()


async def test_a_crash() -> None:
    """``crash`` ends the process with 1 and the caller's connection with it."""
    with running(FAST) as (url, popen):
        with pytest.raises(aiohttp.ClientConnectionError):
            await post(url, CHAT, **{"x-simulated-fault": "crash"})
        assert popen.wait(5) == 1


async def test_sigterm_ends_it_soon() -> None:
    """It ends within seconds although a long stream runs, and does not call that a failure."""
    with running(SLOW) as (url, popen):
        call = asyncio.create_task(post(url, {**STREAM, "max_tokens": 4_000}))
        await until(url, "vllm:num_requests_running", 1)
        popen.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(popen.wait, 5) == -signal.SIGTERM
        with pytest.raises((aiohttp.ClientError, TimeoutError)):
            await call


GUARD = """
class Guard:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if (b"x-key", b"right") in scope["headers"]:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body"})
"""


async def test_middleware_wraps_every_path(tmp_path) -> None:
    """A guard refuses each path, unknown ones and WebSockets too, and lets the right key in."""
    (tmp_path / "fake_guard.py").write_text(GUARD)
    options = ("--middleware", "fake_guard.Guard")
    with running(FAST, *options, path=str(tmp_path)) as (url, _):
        for path in ("health", "metrics", "version", "v1/models", "v1/completions", "nowhere"):
            assert (await get(f"{url}/{path}"))[0] == 401
        async with aiohttp.ClientSession() as http:
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                await http.ws_connect(f"{url}/v1/realtime")
        assert (await post(url, CHAT, **{"x-key": "right"}))[0] == 200
