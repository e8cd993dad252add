"""What a body asks for, and the text it gets."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.engine.simulated.faults import Fault, choose
from serve_app.engine.simulated.reply import NATURAL_TOKENS, Reply, compose, count_tokens, cut
from serve_app.engine.simulated.request import Ask, Refusal, Served, read_chat, read_completion
from serve_app.model_settings import Simulated

SERVED = Served("sim", context_tokens=200)
HELLO = {"messages": [{"role": "user", "content": "hello"}]}


def chat(**fields: object) -> Ask:
    return read_chat(json.dumps({**HELLO, **fields}).encode(), SERVED)


def completion(**fields: object) -> Ask:
    return read_completion(json.dumps({"prompt": "hello", **fields}).encode(), SERVED)


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 1), ("a", 1), ("abcd", 1), ("abcde", 2), ("ä" * 4, 2)]
)
def test_tokens(text: str, tokens: int) -> None:
    """A token is four bytes begun, and even nothing is one."""
    assert count_tokens(text) == tokens


def test_prompt_tokens() -> None:
    """A chat adds four tokens to each message, parts without text add none, ids are counted."""
    parts = [{"type": "text", "text": "12345678"}, {"type": "image_url", "image_url": {}}]
    assert chat().prompt_tokens == 2 + 4
    assert chat(messages=[{"role": "user", "content": parts}]).prompt_tokens == 2 + 4
    assert completion().prompt_tokens == 2
    assert completion(prompt=["hello"]).prompt_tokens == 2
    assert completion(prompt=[1, 2, 3]).prompt_tokens == 3


def test_the_cap_is_the_length() -> None:
    """A capped reply has exactly that many tokens and ends for length; completions cap at 16."""
    for ask, tokens in [
        (chat(max_tokens=5), 5),
        (chat(max_tokens=5, max_completion_tokens=3), 3),
        (completion(), 16),
        (completion(max_tokens=100), 100),
    ]:
        assert (len(ask.reply.pieces), ask.reply.finish_reason) == (tokens, "length")


@given(prompt=st.binary(max_size=40), seed=st.none() | st.integers(), room=st.integers(1, 300))
def test_without_a_cap_a_reply_ends_by_itself(prompt, seed, room) -> None:
    """It has 8 to 128 tokens by its prompt alone, and ends for length only when room is short."""
    reply = compose(prompt, seed, None, room)
    natural = len(compose(prompt, None, None, 1_000).pieces)
    assert natural in NATURAL_TOKENS
    assert len(reply.pieces) == min(natural, room)
    assert reply.finish_reason == ("stop" if natural <= room else "length")


def test_the_text_is_deterministic() -> None:
    """The same prompt and seed say the same; another seed or prompt says something else."""
    told = [completion(prompt=p, seed=s).reply.pieces for p in "ab" for s in (None, 1, 1)]
    assert told[1] == told[2]
    assert len(set(told)) == 4


PIECES = ("one", " two", " three")


@pytest.mark.parametrize(
    ("stops", "pieces", "reason"),
    [
        (["zzz"], PIECES, None),
        ([" two"], ("one", ""), " two"),
        (["tw"], ("one", " "), "tw"),
        (["e t"], ("on", ""), "e t"),
        (["three", "two"], ("one", " "), "two"),
        (["one"], ("",), "one"),
    ],
)
def test_a_stop_string_ends_the_reply(stops, pieces, reason) -> None:
    """The first stop string to be complete ends the text before itself; its token is counted."""
    said = cut(Reply(PIECES, "length"), stops)
    assert (said.pieces, said.stop_reason) == (pieces, reason)
    assert said.finish_reason == ("stop" if reason else "length")


@pytest.mark.parametrize(
    ("fields", "status", "kind", "param"),
    [
        ({"model": "other"}, 404, "NotFoundError", "model"),
        ({"n": 2}, 400, "BadRequestError", "n"),
        ({"max_tokens": 0}, 400, "BadRequestError", "max_tokens"),
        ({"max_tokens": 195}, 400, "BadRequestError", "input_tokens"),
        ({"max_tokens": "x"}, 400, "Bad Request", "body.max_tokens"),
        ({"messages": []}, 400, "Bad Request", "body.messages"),
        ({"messages": None}, 400, "Bad Request", "body.messages"),
        ({"messages": [{"role": 1}]}, 400, "Bad Request", "body.messages.0.role"),
    ],
)
def test_refusals(fields, status, kind, param) -> None:
    """What cannot be served names its field, with vLLM's status and type."""
    with pytest.raises(Refusal) as told:
        chat(**fields)
    assert (told.value.status, told.value.kind, told.value.param) == (status, kind, param)


@pytest.mark.parametrize("prompt", [[], ["a", "b"], [[1], [2]], [1, "a"], [True]])
def test_one_prompt_at_a_time(prompt) -> None:
    """Several prompts in one body, or none, are refused rather than half served."""
    with pytest.raises(Refusal, match="one text or one list"):
        completion(prompt=prompt)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'"x"', b"\xff", b"{}"])
def test_what_is_no_body(raw: bytes) -> None:
    """Anything but a JSON object with the required fields is a bad request."""
    for read in (read_chat, read_completion):
        with pytest.raises(Refusal) as told:
            read(raw, SERVED)
        assert (told.value.status, told.value.kind) == (400, "Bad Request")


@pytest.mark.parametrize(
    ("wanted", "rates", "fault"),
    [
        (None, {}, None),
        (None, {"fail_rate": 1.0}, Fault.ERROR),
        (None, {"break_rate": 1.0}, Fault.BREAK),
        (None, {"fail_rate": 1.0, "break_rate": 1.0}, Fault.ERROR),
        ("hang", {"fail_rate": 1.0}, Fault.HANG),
        ("crash", {}, Fault.CRASH),
    ],
)
def test_who_fails(wanted, rates, fault) -> None:
    """The header decides; without it chance does, and an error comes before a break."""
    assert choose(wanted, Simulated(**rates), random.Random(0)) is fault


def test_a_rate_is_a_share() -> None:
    """Of many requests about ``fail_rate`` fail, and the same ones in every run."""
    runs = [random.Random(0), random.Random(0)]
    fates = [[choose(None, Simulated(fail_rate=0.1), dice) for _ in range(1_000)] for dice in runs]
    assert fates[0] == fates[1]
    assert 70 < fates[0].count(Fault.ERROR) < 130
