"""How much (CONTRACT §4), from outside: every way a request can end, and what it costs then."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
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
