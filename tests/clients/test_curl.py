"""curl, as people type it, behind each of Serve's proxies."""

import json
import shutil
import subprocess
import time
from dataclasses import dataclass

import pytest

from tests.running import ADMIN_KEY, RunningGate, chat, until

PATH = "/v1/chat/completions"
JSON = ["-H", "Content-Type: application/json"]


@dataclass(frozen=True)
class Told:
    """What curl printed, and how it ended."""

    exit: int
    status: int
    body: str


def line(gate: RunningGate, path: str, *options: str, key: str | None = ADMIN_KEY) -> list[str]:
    program = shutil.which("curl")
    if program is None:
        pytest.skip("curl is not installed here.")
    bearer = ["-H", f"Authorization: Bearer {key}"] if key else []
    return [program, "-sS", "--max-time", "60", gate.url + path, *bearer, *options]


def curl(
    gate: RunningGate, path: str, *options: str, key: str | None = ADMIN_KEY, send: str = ""
) -> Told:
    """Run curl once; ``send`` is what it reads from its standard input."""
    argv = [*line(gate, path, *options, key=key), "-w", "\n%{http_code}"]
    done = subprocess.run(argv, capture_output=True, text=True, input=send, timeout=90, check=False)
    body, _, status = done.stdout.rpartition("\n")
    return Told(done.returncode, int(status), body)


def test_a_chat_is_answered(any_gate: RunningGate) -> None:
    """As the README has it: a body on the command line."""
    told = curl(any_gate, PATH, *JSON, "-d", json.dumps(chat()))
    assert told.status == 200
    assert json.loads(told.body)["choices"][0]["message"]["content"]


def test_a_stream_comes_piece_by_piece(any_gate: RunningGate) -> None:
    """With -N the first frame is read long before the last one."""
    body = json.dumps(chat(max_tokens=60, stream=True))
    argv = line(any_gate, PATH, *JSON, "-N", "-d", body)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        times_s = [(text, time.monotonic()) for text in running.stdout if text.strip()]
    assert running.returncode == 0
    assert times_s[-1][0] == "data: [DONE]\n"
    assert len(times_s) > 60
    assert times_s[-1][1] - times_s[0][1] > 0.6, "sixty steps of the simulated engine last 1.2 s"


def test_who_stops_curl_stops_the_engine(any_gate: RunningGate) -> None:
    """Ctrl-C in the terminal."""
    body = json.dumps(chat(max_tokens=1_500, stream=True))
    argv = line(any_gate, PATH, *JSON, "-N", "-d", body)
    at = any_gate.engine()
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        running.stdout.readline()
        until(lambda: any_gate.gauge("num_requests_running", at) == 1, 10, "the work")
        running.terminate()
    until(lambda: any_gate.gauge("num_requests_running", at) == 0, 10, "the abort")


def test_a_refusal_is_told_in_status_and_words(any_gate: RunningGate) -> None:
    """--fail-with-body ends with 22 and prints what to do."""
    for key, code in ((None, "missing_credentials"), ("sg-wrong", "invalid_api_key")):
        told = curl(any_gate, PATH, *JSON, "--fail-with-body", "-d", json.dumps(chat()), key=key)
        assert (told.exit, told.status) == (22, 401)
        assert json.loads(told.body)["error"]["code"] == code


def test_a_form_is_no_json(any_gate: RunningGate) -> None:
    """-d without a content type: the commonest slip gets 415 and the mend."""
    told = curl(any_gate, PATH, "-d", json.dumps(chat()))
    assert told.status == 415
    assert "application/json" in json.loads(told.body)["error"]["message"]


def test_a_body_may_come_in_chunks(any_gate: RunningGate) -> None:
    """From a pipe: its length is not known when it begins."""
    chunked = ["-H", "Transfer-Encoding: chunked", "-d", "@-"]
    told = curl(any_gate, PATH, *JSON, *chunked, send=json.dumps(chat()))
    assert told.status == 200


def test_a_body_that_waits_for_a_go_ahead_gets_it(any_gate: RunningGate) -> None:
    """`Expect: 100-continue`, which curl sends before bodies of a megabyte."""
    expecting = ["-H", "Expect: 100-continue", "-d", "@-"]
    body = json.dumps({**chat(), "padding": "x" * 1_500_000})
    began_s = time.monotonic()
    told = curl(any_gate, PATH, *JSON, *expecting, send=body)
    assert told.status == 200
    assert time.monotonic() - began_s < 30


@pytest.mark.parametrize("expects", ["Expect: 100-continue", "Expect:"])
def test_a_body_that_is_too_large_hears_so(any_gate: RunningGate, expects: str) -> None:
    """413 with its words, not a reset, whether the client asked first or just sends."""
    told = curl(any_gate, PATH, *JSON, "-H", expects, "-d", "@-", send='{"x":"' + "x" * 11_000_000)
    assert told.status == 413
    assert json.loads(told.body)["error"]["code"] == "request_too_large"


def test_older_ways_to_speak_are_understood(any_gate: RunningGate) -> None:
    """HTTP/1.0, HEAD, a compressed reply that nobody compresses."""
    body = ["-d", json.dumps(chat())]
    assert curl(any_gate, PATH, *JSON, *body, "--http1.0").status == 200
    assert curl(any_gate, PATH, *JSON, *body, "--compressed").status == 200
    assert curl(any_gate, "/v1/models", "-I").status == 200
