"""How much (CONTRACT §4), from outside: every way a request can end, and what it costs then."""

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest

from serve_app.allowance import KINDS
from serve_app.store import keys
from tests.running import RunningGate, chat, until
from tests.tally import (
    EVERY_KIND,
    EVERYWHERE,
    MODEL,
    NARROW,
    Tally,
    Used,
    frames,
    of_windows,
    spoken,
)

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


FORGET = """
local tally = cmsgpack.unpack(redis.call("GET", KEYS[1]))
for at = 4, 7 do tally[at] = 0 end
redis.call("SET", KEYS[1], cmsgpack.pack(tally))
"""
"""Nobody remembers how fast seats came free, so that nobody is refused for what is predicted."""


@contextmanager
def no_seat_left(gate: RunningGate) -> Iterator[None]:
    """The one seat of the narrow model is taken as long as the block runs."""
    body = chat(max_tokens=1_500, stream=True) | {"model": NARROW}
    with gate.client() as client, client.stream("POST", PATH, json=body) as told:
        lines = told.iter_lines()  # kept: a forgotten iterator closes the reply
        next(lines)
        with gate.redis() as store:
            store.eval(FORGET, 1, keys.line(NARROW)[-1])
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
            until(lambda: store.zcard(keys.line(NARROW)[7]), 5, "the wait", every_s=0.02)
            assert tally.spent(NARROW)["key"]["R"] == 1, "who waits holds"
            leaving.join()
            until(lambda: not store.zcard(keys.line(NARROW)[7]), 10, "the leaving")
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
    "tokens_per_minute": {"limit": 6_000, "burst": 400},
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


def together(jobs: list[Callable[[], Any]], apart_s: float = 0.0) -> list[Any]:
    """Run ``jobs`` at once, begun one after the other, and return what each returned."""
    found: list[Any] = [None] * len(jobs)

    def run(place: int) -> None:
        found[place] = jobs[place]()

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(jobs))]
    for thread in threads:
        thread.start()
        time.sleep(apart_s)  # the order in which they come is the subject
    for thread in threads:
        thread.join()
    return found


WAITING = {"over_limit": "wait"}
EVERY_HALF_SECOND = {"requests_per_minute": {"limit": 120, "burst": 1}}


def test_who_would_rather_wait_is_served_in_turn(gate: RunningGate) -> None:
    """over_limit wait: served when the refill comes, in order; nobody else is held up."""
    tally = Tally(gate, limits=EVERY_HALF_SECOND, tenant_limits={}, more=WAITING)
    other, done = tally.another(limits={}), []
    clients = [gate.client(tally.key) for _ in range(6)]  # each costs more time than a request

    def ask(number: int) -> httpx.Response:
        with clients[number] as client:
            told = client.post(PATH, json=chat(max_tokens=1))
            done.append(number)
            return told

    def ask_meanwhile() -> tuple[int, float]:
        time.sleep(0.3)  # by now the others wait
        began_s = time.monotonic()
        with gate.client(other) as client:
            status = client.post(PATH, json=chat(max_tokens=1)).status_code
        return status, time.monotonic() - began_s

    jobs: list[Callable[[], Any]] = [ask_meanwhile, *(lambda n=n: ask(n) for n in range(6))]
    (status, took_s), *told = together(jobs, apart_s=0.1)
    assert (status, took_s < 1) == (200, True), took_s
    assert [one.status_code for one in told] == [200] * 6
    assert done == [*range(6)]
    waits = [float(one.headers["x-queue-time-ms"]) for one in told]
    assert waits[0] < 300
    for place, wait_ms in enumerate(waits[1:], 1):
        assert 400 * place - 200 < wait_ms < 400 * place + 800
    assert tally.settled().used(tally.key).requests == 6


def test_who_would_wait_too_long_is_refused_at_once(gate: RunningGate) -> None:
    """over_limit wait: only if the refill comes before the deadline, behind all who wait already.

    Ten seconds a turn and thirty of patience: three may wait, the others hear so at once. Those
    who hang up while they wait leave nothing behind.
    """
    limits = EVERYWHERE | {"requests_per_minute": {"limit": 6, "burst": 1}}
    tally = Tally(gate, limits=limits, more=WAITING | {"class": "interactive"})

    def ask() -> httpx.Response | None:
        with gate.client(tally.key) as client:
            try:
                return client.post(PATH, json=chat(max_tokens=1), timeout=2)
            except httpx.TimeoutException:
                return None

    assert ask().status_code == 200

    before, was = tally.settled().spent(), tally.used()
    began_s = time.monotonic()
    refused = [one for one in together([ask] * 8) if one is not None]
    assert time.monotonic() - began_s < 5
    assert 8 - len(refused) in (2, 3)
    for one in refused:
        assert code(one) == (429, "rate_limit_exceeded")
        assert 25 < int(one.headers["retry-after"]) <= 50
    assert tally.settled().used() == was
    assert {who: of_windows(units) for who, units in tally.spent().items()} == {
        who: of_windows(units) for who, units in before.items()
    }


@pytest.mark.parametrize("limit", ["requests_per_day", "requests_per_minute"])
def test_a_wait_beyond_the_deadline_is_no_wait(pair: RunningGate, limit: str) -> None:
    """over_limit wait: a refusal at once if the refill comes later than the class may wait."""
    key = pair.new_key(limits={limit: 1}, **WAITING, **{"class": "patient"})
    with pair.client(key) as client:
        assert client.post(PATH, json=chat(max_tokens=1)).status_code == 200
        began_s = time.monotonic()
        assert client.post(PATH, json=chat(max_tokens=1)).status_code == 429
    assert time.monotonic() - began_s < 1.5


def test_a_wait_for_a_place_ends_when_one_is_free(pair: RunningGate) -> None:
    """over_limit wait: of as many requests as may run at once, too."""
    key = pair.new_key(limits={"concurrency": 1}, **WAITING)

    def ask() -> tuple[int, float]:
        with pair.client(key) as client:
            told = client.post(PATH, json=chat(max_tokens=20))
        return told.status_code, float(told.headers["x-queue-time-ms"])

    told = together([ask] * 3)
    assert [status for status, _ in told] == [200] * 3
    assert sum(wait_ms > 200 for _, wait_ms in told) == 2


def test_shadow_limits_refuse_nobody_and_say_what_they_would_have_done(pair: RunningGate) -> None:
    """Shadow rules evaluate, count and set a header; they refuse nobody."""
    shadow = {"shadow": {"requests_per_minute": ONE_AT_ONCE, "requests_per_day": 0}}
    tally = Tally(pair, limits=EVERYWHERE | shadow, tenant_limits=EVERYWHERE | shadow)
    with pair.client(tally.key) as client:
        told = [client.post(PATH, json=chat()) for _ in range(3)]
    assert [one.status_code for one in told] == [200] * 3
    names = "requests_per_minute", "requests_per_day"
    every = {f"{scope}:{name}" for scope in ("key", "tenant") for name in names}
    never = {one for one in every if one.endswith("day")}
    said = [set(one.headers["x-ratelimit-shadow"].split(", ")) for one in told]
    assert said == [never, every, every]
    assert tally.settled().used().requests == 3
    until(lambda: tally.ledger()["shadow_refused"], 10, "the ledger's note")
    assert tally.ledger()["refused"] == 0


def test_exempt_keys_are_bound_by_nothing_and_all_others_by_their_limits(pair: RunningGate) -> None:
    """Admins are limited like everyone unless marked exempt."""
    tally = Tally(pair, limits={"exempt": True}, tenant_limits={"requests_per_day": 1})
    admins = tally.another(
        limits={"requests_per_minute": 1}, permissions=["run_inference", "manage_keys"]
    )
    with pair.client(tally.key) as client:
        told = [client.post(PATH, json=chat()) for _ in range(3)]
        assert client.get("/v1/auth/whoami").json()["limits"] == []
    assert [one.status_code for one in told] == [200] * 3
    assert not [name for name in told[0].headers if name.startswith("x-ratelimit")]
    with pair.client(admins) as client:
        assert client.post(PATH, json=chat()).status_code == 200
        assert code(client.post(PATH, json=chat()))[0] == 429
    with pair.client() as admin:
        assert admin.post(PATH, json=chat()).headers["x-ratelimit-limit-requests"] == "600"


SMALL = {"tokens_per_minute": {"limit": 60, "burst": 16}}
CAPS = {
    "a small limit": ({"limits": SMALL}, 10),
    "the key's": ({"limits": {"output_cap": 7}}, 7),
    "the key's on a model": ({"limits": {"models": {MODEL: {"output_cap": 3}}}}, 3),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("why", CAPS)
def test_a_reply_that_nobody_capped_is_capped_by_the_gate(
    pair: RunningGate, why: str, stream: bool
) -> None:
    """No cap given and a small limit: the gate sets one, says so, and the engine obeys."""
    asked, cap = CAPS[why]
    body = chat("Hello") | {"stream": stream, "stream_options": {"include_usage": True}}
    del body["max_tokens"]
    if not stream:
        del body["stream_options"]
    with pair.client(pair.new_key(**asked)) as client:
        told = client.post(PATH, json=body)
    assert told.headers["x-output-cap"] == str(cap)
    usage = (
        [one["usage"] for one in frames(told.text) if one.get("usage")]
        if stream
        else [told.json()["usage"]]
    )
    assert usage[0]["completion_tokens"] == cap


def test_a_completion_that_nobody_capped_is_capped_by_the_gate(pair: RunningGate) -> None:
    """Output cap: the client's, else the key's; an engine's own default is neither."""
    body = {"model": MODEL, "prompt": "1, 2, 3"}
    for limits, cap in (({"output_cap": 5}, 5), (SMALL, 14), ({"output_cap": 30}, 30)):
        with pair.client(pair.new_key(limits=limits)) as client:
            told = client.post("/v1/completions", json=body)
        assert told.headers["x-output-cap"] == str(cap)
        assert told.json()["usage"]["completion_tokens"] == cap
    with pair.client(pair.new_key()) as client:
        told = client.post("/v1/completions", json=body)
    assert "x-output-cap" not in told.headers
    assert told.json()["usage"]["completion_tokens"] == 16


def test_the_clients_own_cap_is_kept(pair: RunningGate) -> None:
    """Output cap: the client's; a limit that is smaller is clamped to, and owed."""
    with pair.client(pair.new_key(limits=SMALL | {"output_cap": 7})) as client:
        told = client.post(PATH, json=chat("Hello", max_tokens=20))
    assert "x-output-cap" not in told.headers
    assert told.json()["usage"]["completion_tokens"] == 20
    assert told.headers["x-ratelimit-remaining-tokens"] == "0"


def test_of_two_caps_the_larger_is_held(pair: RunningGate) -> None:
    """max_tokens and max_completion_tokens both: the larger counts; n replies hold n times it."""
    for fields, output in (
        ({"max_tokens": 5, "max_completion_tokens": 20}, 20),
        ({"max_tokens": 20, "max_completion_tokens": 5}, 20),
        ({"max_tokens": 20, "n": 3}, 60),
    ):
        tally, body = Tally(pair), chat("Hello") | fields | {"model": NARROW}

        def leave(tally: Tally = tally, body: dict[str, Any] = body) -> None:
            with pair.client(tally.key) as client, pytest.raises(httpx.TimeoutException):
                client.post(PATH, json=body, timeout=1)

        with no_seat_left(pair):
            leaving = threading.Thread(target=leave)
            leaving.start()
            until(tally.leases, 5, "the hold", every_s=0.02)
            held = tally.spent(NARROW)["key"]
            leaving.join()
            assert tally.settled().spent(NARROW)["key"]["T"] == 0
        assert (held["i"], held["o"], held["t"]) == (6, output, 6 + output)


def limits_of(scope: str, small: dict[str, Any]) -> dict[str, Any]:
    """Return every kind of limit, wide, and ``small`` ones for the caller or on the model."""
    if scope.endswith("_model"):
        return EVERYWHERE | {"models": {MODEL: EVERY_KIND | small, NARROW: EVERY_KIND}}
    return EVERYWHERE | small


SMALL_ONES = {
    "requests_per_minute": (ONE_AT_ONCE, "rate_limit_exceeded"),
    "output_tokens_per_minute": ({"limit": 1, "burst": 12}, "rate_limit_exceeded"),
    "tokens_per_day": (20, "insufficient_quota"),
    "cost_per_month": (0.00003, "insufficient_quota"),
}


@pytest.mark.parametrize("kind", SMALL_ONES)
@pytest.mark.parametrize("scope", ["key", "key_model", "tenant", "tenant_model"])
def test_one_limit_refuses_and_no_other_is_touched(
    pair: RunningGate, scope: str, kind: str
) -> None:
    """One step, all scopes, all or nothing. A refusal consumes nothing and names the scope."""
    limit, wanted = SMALL_ONES[kind]
    whose = "limits" if scope.startswith("key") else "tenant_limits"
    tally = Tally(pair, **{whose: limits_of(scope, {kind: limit})})
    with pair.client(tally.key) as client:
        assert client.post(PATH, json=chat()).status_code == 200

        def ask() -> Used:
            told = client.post(PATH, json=chat())
            assert code(told) == (429, wanted)
            details = told.json()["error"]["details"]
            assert (details["scope"], details["limit"]) == (scope, kind)
            assert told.headers["x-refused-by"] == f"{scope}:{kind}"
            return NOTHING

        charged(tally, ask)
        other_model = client.post(PATH, json=chat() | {"model": NARROW})
        assert other_model.status_code == (200 if scope.endswith("_model") else 429)


@pytest.mark.parametrize("scope", ["key", "tenant_model"])
def test_as_many_run_at_once_as_may(pair: RunningGate, scope: str) -> None:
    """Concurrency is leases: one more is refused, and let in when one has ended."""
    whose = "limits" if scope == "key" else "tenant_limits"
    tally = Tally(pair, **{whose: limits_of(scope, {"concurrency": 1})})
    body = chat(max_tokens=1_000, stream=True)
    with pair.client(tally.key) as client:
        with client.stream("POST", PATH, json=body) as running:
            lines = running.iter_lines()
            next(lines)
            told = client.post(PATH, json=chat())
            assert code(told) == (429, "rate_limit_exceeded")
            assert told.headers["x-refused-by"] == f"{scope}:concurrency"
            assert told.headers["retry-after"] == "1"
            assert tally.spent()["key"]["R"] == 1
        tally.settled()
        assert client.post(PATH, json=chat()).status_code == 200


def test_changed_limits_bind_the_next_request(pair: RunningGate) -> None:
    """Under load, on two gateways: in force at once. A limit of 0 means never, and says so."""
    tally, stop, answers = Tally(pair, limits={}), threading.Event(), []
    callers = threading.Thread(target=lambda: together([call] * 4))

    def call() -> None:
        with pair.client(tally.key) as client:
            while not stop.is_set() and len(answers) < 5_000:
                began_s = time.monotonic()
                answers.append((began_s, client.post(PATH, json=chat(max_tokens=1))))

    def change(limits: dict[str, Any]) -> float:
        with pair.client() as admin:
            path, whose = f"/v1/auth/api-keys/{tally.key_id}", {"tenant": tally.tenant}
            changed = admin.patch(path, params=whose, json={"limits": limits})
        assert changed.status_code == 200, changed.text
        return time.monotonic()

    def seen(more: int) -> None:
        more += len(answers)
        until(lambda: len(answers) >= more, 30, "the load", every_s=0.01)

    callers.start()
    seen(20)
    never_s = change({"requests_per_minute": 0})
    seen(60)
    asked_s, again_s = time.monotonic(), change({"requests_per_minute": 1_000_000})
    seen(20)
    stop.set()
    callers.join()
    first, *others = (told for began_s, told in answers if never_s < began_s < asked_s)
    assert {code(told) for told in (first, *others[:50])} == {(429, "insufficient_quota")}
    assert "requests_per_minute is 0" in first.json()["error"]["message"]
    assert (first.headers["x-should-retry"], "retry-after" in first.headers) == ("false", False)
    assert {told.status_code for began_s, told in answers if began_s > again_s} == {200}


def used_by_two(pair: RunningGate) -> tuple[Tally, str]:
    """Return a tenant whose key asked three times, and its admin who asked twice."""
    tally = Tally(pair)
    other = tally.another(permissions=["run_inference", "use_streaming", "manage_keys"])
    for key, times in ((tally.key, 3), (other, 2)):
        with pair.client(key) as client:
            for _ in range(times):
                assert client.post(PATH, json=chat("Hello")).status_code == 200
    return tally.settled(), other


def test_who_asks_is_told_what_it_may_see_of_the_use(pair: RunningGate) -> None:
    """GET /v1/usage: own; the tenant's and all with permission; JSON and CSV."""
    tally, other = used_by_two(pair)
    with pair.client(tally.key) as client:
        own = client.get("/v1/usage").json()
        assert client.get("/v1/usage", params={"key": other.split("-")[2]}).status_code == 403
    assert (own["totals"]["requests"], own["totals"]["output_tokens"]) == (3, 24)
    assert {row["key"] for row in own["data"]} == {tally.key_id}
    with pair.client(other) as client:
        rows = client.get("/v1/usage").json()["data"]
        assert client.get("/v1/usage", params={"tenant": "default"}).status_code == 403
    expected = {tally.key_id: 3, other.split("-")[2]: 2}
    assert {row["key"]: row["requests"] for row in rows} == expected
    with pair.client() as admin:
        assert admin.post(PATH, json=chat()).status_code == 200
        asked = {"tenant": tally.tenant, "format": "csv", "group_by": "tenant,model,class"}
        lines = admin.get("/v1/usage", params=asked).text.splitlines()
        everyone = admin.get("/v1/usage", params={"group_by": "tenant"}).json()
    assert lines[1].startswith(f"{tally.tenant},{MODEL},standard,5,30,40,")
    assert {"default", tally.tenant} <= {row["tenant"] for row in everyone["data"]}


def test_who_asks_is_told_what_is_left_of_every_limit(pair: RunningGate) -> None:
    """GET /v1/auth/whoami: what is left of every limit in every scope, and when it refills."""
    tally, _ = used_by_two(pair)
    with pair.client(tally.key) as client:
        left = client.get("/v1/auth/whoami").json()["limits"]
    used, kinds = {"key": Used(3, 18, 24), "tenant": Used(5, 30, 40)}, {k.name: k for k in KINDS}
    for one in left:
        whose, kind = one["scope"].removesuffix("_model"), kinds[one["limit"]]
        units = (used[whose] if one["model"] != NARROW else NOTHING).in_units()
        gone = units.get(kind.letter, 0) / (1e9 if kind.is_money else 1)
        assert one["remaining"] == pytest.approx(one["burst"] - gone, abs=1e-12)
        assert one["resets_at"]
    on_models = {
        (f"{who}_model", name): 12 for who in ("key", "tenant") for name in (MODEL, NARROW)
    }
    scopes = Counter((one["scope"], one["model"]) for one in left)
    assert scopes == {("key", None): 12, ("tenant", None): 12, **on_models}
