"""How much (CONTRACT §4), from outside: every way a request can end, and what it costs then."""

import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest

from serve_app.store import keys
from tests.running import RunningGate, chat, until
from tests.tally import EVERYWHERE, MODEL, NARROW, Tally, Used, frames, spoken

PATH = "/v1/chat/completions"
NOTHING = Used()
ONE_AT_ONCE = {"limit": 1, "burst": 1}


def charged(tally: Tally, doing: Callable[[], Used], model: str = MODEL) -> None:
    """Do something; all four scopes and the ledger must have counted just what it returns."""
    before, was = tally.settled().spent(model), tally.used()
    used = doing()
    after = tally.settled().spent(model)
    told = {
        scope: {letter: units - before[scope][letter] for letter, units in now.items()}
        for scope, now in after.items()
    }
    assert told == dict.fromkeys(before, used.in_units())
    assert tally.used() == was + used


@contextmanager
def no_seat_left(gate: RunningGate) -> Iterator[None]:
    """The one seat of the narrow model is taken as long as the block runs."""
    body = chat(max_tokens=1_500, stream=True) | {"model": NARROW}
    with gate.client() as client, client.stream("POST", PATH, json=body) as told:
        lines = told.iter_lines()  # kept: a forgotten iterator closes the reply
        next(lines)
        yield
    with gate.redis() as store:
        until(lambda: not store.hlen(keys.line(NARROW)[5]), 15, "the seat back")


def code(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
@pytest.mark.parametrize("stream", [False, True])
def test_success_is_charged_what_the_engine_counted(
    pair: RunningGate, path: str, stream: bool
) -> None:
    """Success: real usage."""
    tally = Tally(pair)
    body = chat("How long is a reply that nobody capped?")
    if path == "completions":
        body = {"model": MODEL, "prompt": "1, 2, 3,", "max_tokens": 5}

    def ask() -> Used:
        with pair.client(tally.key) as client:
            if not stream:
                return Used.of(client.post(f"/v1/{path}", json=body).json()["usage"])
            options = {"stream": True, "stream_options": {"include_usage": True}}
            text = client.post(f"/v1/{path}", json=body | options).text
        (told,) = [frame["usage"] for frame in frames(text) if frame.get("usage")]
        return Used.of(told)

    charged(tally, ask)
    charged(tally, ask)


def test_a_refusal_over_a_limit_costs_nothing(pair: RunningGate) -> None:
    """Refused: nothing, request count returned."""
    tally = Tally(pair, limits=EVERYWHERE | {"requests_per_minute": ONE_AT_ONCE})
    with pair.client(tally.key) as client:
        assert client.post(PATH, json=chat()).status_code == 200

        def ask() -> Used:
            assert code(client.post(PATH, json=chat())) == (429, "rate_limit_exceeded")
            return NOTHING

        charged(tally, ask)


def test_shed_at_the_door_of_the_line_costs_nothing(pair: RunningGate) -> None:
    """Shed: nothing, request count returned."""
    tally = Tally(pair, more={"class": "seatless"})

    def ask() -> Used:
        with pair.client(tally.key) as client:
            assert code(client.post(PATH, json=chat() | {"model": NARROW})) == (429, "queue_full")
        return NOTHING

    with no_seat_left(pair):
        charged(tally, ask, NARROW)


def test_timed_out_in_line_costs_nothing(pair: RunningGate) -> None:
    """Timed out in line: nothing, request count returned."""
    tally = Tally(pair, more={"class": "hasty"})

    def ask() -> Used:
        with pair.client(tally.key) as client:
            told = client.post(PATH, json=chat() | {"model": NARROW})
        assert code(told) == (429, "queue_timeout")
        return NOTHING

    with no_seat_left(pair):
        charged(tally, ask, NARROW)


def test_gone_while_waiting_costs_nothing(pair: RunningGate) -> None:
    """Gone while waiting: nothing, request count returned."""
    tally = Tally(pair)

    def leave() -> None:
        with pair.client(tally.key) as client, pytest.raises(httpx.TimeoutException):
            client.post(PATH, json=chat() | {"model": NARROW}, timeout=1.5)

    def ask() -> Used:
        with pair.redis() as store:
            leaving = threading.Thread(target=leave)
            leaving.start()
            until(lambda: store.zcard(keys.line(NARROW)[4]), 5, "the wait", every_s=0.02)
            assert tally.spent(NARROW)["key"]["R"] == 1, "who waits holds"
            leaving.join()
            until(lambda: not store.zcard(keys.line(NARROW)[4]), 10, "the leaving")
        return NOTHING

    with no_seat_left(pair):
        charged(tally, ask, NARROW)


@pytest.mark.parametrize(
    ("fault", "wanted"),
    [("error", (502, "upstream_failed")), ("hang", (504, "upstream_timeout"))],
)
def test_failed_before_the_first_byte_costs_nothing(
    pair: RunningGate, fault: str, wanted: tuple[int, str]
) -> None:
    """Failed before the first byte, on every try or in silence: nothing."""
    tally = Tally(pair)

    def ask() -> Used:
        with pair.client(tally.key) as client:
            told = client.post(PATH, json=chat(), headers={"x-simulated-fault": fault})
        assert code(told) == wanted
        return NOTHING

    charged(tally, ask)


def test_a_stream_that_breaks_costs_its_input_and_what_was_streamed(pair: RunningGate) -> None:
    """Broken mid-stream: input + tokens streamed so far."""
    tally = Tally(pair)

    def ask() -> Used:
        body, fault = chat("Hello", max_tokens=20, stream=True), {"x-simulated-fault": "break"}
        with pair.client(tally.key) as client:
            text = client.post(PATH, json=body, headers=fault).text
        assert "upstream_failed" in text
        assert spoken(text) == 10
        return Used(1, 6, 10)

    charged(tally, ask)


def test_a_whole_reply_that_breaks_costs_its_input(pair: RunningGate) -> None:
    """Broken after the first byte, in one piece: what it had used nobody told but its input."""
    tally = Tally(pair)

    def ask() -> Used:
        with pair.client(tally.key) as client, pytest.raises(httpx.RemoteProtocolError):
            client.post(PATH, json=chat(), headers={"x-simulated-fault": "break"})
        return Used(1, 6, 0)

    charged(tally, ask)


def test_who_leaves_mid_stream_pays_input_and_what_was_streamed(pair: RunningGate) -> None:
    """Left mid-stream: input + tokens streamed so far, and the engine's work is aborted."""
    tally, at = Tally(pair), pair.engine()
    before, made = tally.spent(), pair.gauge("generation_tokens_total", at)
    body = chat(max_tokens=1_500, stream=True)
    with pair.client(tally.key) as client, client.stream("POST", PATH, json=body) as told:
        text = ""
        for piece in told.iter_text():
            text += piece
            if spoken(text) >= 5:
                break
    until(lambda: pair.gauge("num_requests_running", at) == 0, 10, "the abort")
    used = tally.settled().used()
    made = pair.gauge("generation_tokens_total", at) - made
    assert (used.requests, used.input) == (1, 6)
    assert spoken(text) <= used.output <= made < 500
    for scope, units in tally.spent().items():
        assert {name: units[name] - before[scope][name] for name in units} == used.in_units()


def test_who_leaves_before_the_first_byte_pays_the_input(pair: RunningGate) -> None:
    """Left while an engine works for it: the request and its input, no output."""
    tally = Tally(pair)

    def ask() -> Used:
        with pair.client(tally.key) as client, pytest.raises(httpx.TimeoutException):
            client.post(PATH, json=chat(max_tokens=1_500), timeout=0.7)
        return Used(1, 6, 0)

    charged(tally, ask)


def test_a_forbidden_model_costs_nothing(pair: RunningGate) -> None:
    """Refused: nothing."""
    tally = Tally(pair, more={"models": [NARROW]})

    def ask() -> Used:
        with pair.client(tally.key) as client:
            assert code(client.post(PATH, json=chat())) == (403, "model_not_allowed")
        return NOTHING

    charged(tally, ask)


def test_what_the_engine_refuses_counts_as_a_request(pair: RunningGate) -> None:
    """An engine's own 400 is a reply: a request, and no tokens."""
    tally = Tally(pair)

    def ask() -> Used:
        with pair.client(tally.key) as client:
            assert client.post(PATH, json=chat(max_tokens=-1)).status_code == 400
        return Used(1, 0, 0)

    charged(tally, ask)


OF_REQUESTS = {
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "ratelimit",
    "ratelimit-policy",
}
OF_TOKENS = {f"x-ratelimit-{what}-tokens" for what in ("limit", "remaining", "reset")}
OF_ALL = {"x-queue-time-ms", "x-request-id", "x-served-class"}
JSON = {"content-type": "application/json"}
REPLIES: dict[str, tuple[int, dict[str, Any]]] = {
    "whole": (200, {"json": chat()}),
    "streamed": (200, {"json": chat(stream=True)}),
    "no JSON": (400, {"content": b"{", "headers": JSON}),
    "can never fit": (400, {"json": chat("Hello! " * 1_000)}),
    "the engine's 400": (400, {"json": chat(max_tokens=-1)}),
    "no such model": (404, {"json": chat() | {"model": "nope"}}),
    "too large": (413, {"content": b"x" * 11_000_000, "headers": JSON}),
    "no JSON type": (415, {"content": b"{}", "headers": {"content-type": "a/b"}}),
    "failed": (502, {"json": chat(), "headers": {"x-simulated-fault": "error"}}),
}
LIMITED = {
    "requests_per_minute": 60,
    "tokens_per_minute": {"limit": 6_000, "burst": 1_000},
    "requests_per_day": 1_000,
}


@pytest.mark.parametrize("reply", REPLIES)
def test_every_reply_tells_of_limits(any_gate: RunningGate, reply: str) -> None:
    """Headers on every inference reply, streams and errors included."""
    status, request = REPLIES[reply]
    with any_gate.client(any_gate.new_key(limits=LIMITED)) as client:
        told = client.post(PATH, **request)
    assert told.status_code == status, told.text
    assert not (OF_REQUESTS | OF_TOKENS | OF_ALL) - set(told.headers)
    assert told.headers["x-ratelimit-limit-requests"] == "60"
    assert told.headers["x-ratelimit-limit-tokens"] == "6000"
    assert told.headers["ratelimit-policy"] == (
        '"key:requests_per_minute";q=60;w=60, "key:tokens_per_minute";q=6000;w=60'
    )
    assert abs(int(told.headers["x-ratelimit-reset"]) - time.time()) <= 3


def test_tokens_are_told_of_only_where_tokens_are_limited(any_gate: RunningGate) -> None:
    """OpenAI's six; three where only requests are limited."""
    with any_gate.client(any_gate.new_key()) as client:
        told = client.post(PATH, json=chat())
    assert set(told.headers) >= OF_REQUESTS | OF_ALL
    assert not OF_TOKENS & set(told.headers)


REFUSALS: dict[str, tuple[dict[str, Any], tuple[int, str]]] = {
    "a rate": ({"requests_per_minute": ONE_AT_ONCE}, (429, "rate_limit_exceeded")),
    "tokens": ({"tokens_per_minute": {"limit": 60, "burst": 14}}, (429, "rate_limit_exceeded")),
    "a day": ({"requests_per_day": 1}, (429, "insufficient_quota")),
    "money": ({"cost_per_month": 0.000000001}, (400, "request_exceeds_limit")),
    "never": ({"requests_per_minute": 0}, (429, "insufficient_quota")),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_every_refusal_over_a_limit_tells_of_it(pair: RunningGate, why: str) -> None:
    """A refusal names the limit and has all headers; a wait where waiting helps, and only there."""
    limits, wanted = REFUSALS[why]
    with pair.client(pair.new_key(limits={**LIMITED, **limits})) as client:
        client.post(PATH, json=chat())
        told = client.post(PATH, json=chat())
    assert code(told) == wanted
    (name,) = limits
    details = told.json()["error"]["details"]
    assert (details["scope"], details["limit"]) == ("key", name)
    assert not (OF_REQUESTS | OF_ALL) - set(told.headers)
    if told.status_code == 429:
        assert told.headers["x-refused-by"] == f"key:{name}"
    assert ("retry-after" in told.headers) == (wanted[1] == "rate_limit_exceeded")
    spent = wanted[1] == "insufficient_quota"
    assert (told.headers.get("x-should-retry") == "false") == spent
    assert ("resets_at" in details) == (why == "a day")


@pytest.mark.parametrize(
    ("class_", "wanted"), [("seatless", "queue_full"), ("hasty", "queue_timeout")]
)
def test_refusals_of_the_line_tell_of_limits_too(
    pair: RunningGate, class_: str, wanted: str
) -> None:
    """Headers on every inference reply: of a line that is full or too slow as well."""
    key = pair.new_key(limits=LIMITED, **{"class": class_})
    with no_seat_left(pair), pair.client(key) as client:
        told = client.post(PATH, json=chat() | {"model": NARROW})
    assert code(told) == (429, wanted)
    assert not (OF_REQUESTS | OF_TOKENS | OF_ALL) - set(told.headers)
    assert told.headers["x-served-class"] == class_
    assert told.headers["x-refused-by"] == wanted
    assert (float(told.headers["x-queue-time-ms"]) >= 400) == (wanted == "queue_timeout")


def test_a_forbidden_model_tells_of_limits_too(any_gate: RunningGate) -> None:
    """Headers on every inference reply: 403 as well."""
    with any_gate.client(any_gate.new_key(models=["another"], limits=LIMITED)) as client:
        told = client.post(PATH, json=chat())
    assert code(told) == (403, "model_not_allowed")
    assert not (OF_REQUESTS | OF_TOKENS | OF_ALL) - set(told.headers)
    assert told.headers["x-ratelimit-remaining-requests"] == "59"


def milliseconds(span: str) -> float:
    """Return what OpenAI's headers say: ``850ms``, ``6m0s``."""
    units = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
    return sum(int(n) * units[unit] for n, unit in re.findall(r"(\d+)(ms|s|m|h)", span))


def test_whoever_waits_as_long_as_told_is_let_in(gate: RunningGate) -> None:
    """On a random walk: who waits is let in, who comes earlier is not; what is left never jumps."""
    limits = {
        "requests_per_minute": {"limit": 300, "burst": 3},
        "tokens_per_minute": {"limit": 3_600, "burst": 40},
    }
    dice, key, body = random.Random(7), gate.new_key(limits=limits), chat(max_tokens=1)
    refused, was, at_s = 0, 3.0, time.monotonic()
    with gate.client(key) as client:
        for _ in range(60):
            time.sleep(dice.choice([0, 0, 0, 0.1, 0.3]))  # the client's own pauses
            asked_s = time.monotonic()
            told = client.post(PATH, json=body | {"max_tokens": dice.choice([1, 1, 5])})
            left = int(told.headers["x-ratelimit-remaining-requests"])
            refilled = (time.monotonic() - at_s) * 5
            assert left <= was + refilled + 1e-3
            reset_ms = milliseconds(told.headers["x-ratelimit-reset-requests"])
            assert (2 - left) * 200 <= reset_ms <= 1_000
            was, at_s = left, asked_s
            if told.status_code == 200:
                continue
            refused += 1
            wait_s = int(told.headers["retry-after-ms"]) / 1_000
            assert 0 < wait_s <= int(told.headers["retry-after"]) < wait_s + 1
            if wait_s > 0.15:
                time.sleep(wait_s - 0.1 - (time.monotonic() - asked_s))
                assert (
                    client.post(PATH, content=told.request.content, headers=JSON).status_code == 429
                )
            time.sleep(max(0, asked_s + wait_s + 0.05 - time.monotonic()))
            again = client.post(PATH, content=told.request.content, headers=JSON)
            assert again.status_code == 200, "the wait was not true"
            was, at_s = 3.0, time.monotonic()
    assert refused >= 5


def test_the_official_client_waits_for_a_rate_and_gives_up_on_a_quota(gate: RunningGate) -> None:
    """OpenAI's client retries as told, within its own retries; a spent quota it does not retry."""
    key = gate.new_key(limits={"requests_per_minute": {"limit": 60, "burst": 1}})
    client = gate.openai(key).with_options(max_retries=2)
    began_s = time.monotonic()
    for _ in range(3):
        assert client.chat.completions.create(**chat()).choices
    assert 1.5 < time.monotonic() - began_s < 8
    tally = Tally(gate, limits={"requests_per_day": 1}, tenant_limits={})
    client = gate.openai(tally.key).with_options(max_retries=2)
    client.chat.completions.create(**chat())
    with pytest.raises(openai.RateLimitError, match="requests a day") as caught:
        client.chat.completions.create(**chat())
    assert caught.value.code == "insufficient_quota"
    until(lambda: tally.ledger()["refused"], 10, "the ledger's note")
    time.sleep(1)  # a retry would have come by now
    assert tally.ledger()["refused"] == 1
