"""Every dialect of the chat model on real vLLM, by the official clients (CONTRACT §2, §4, §5)."""

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.running import RunningGate, chat
from tests.tally import Tally, Used

anthropic: Any = pytest.importorskip("anthropic", reason="it comes with vLLM")
MODEL = "smollm2-135m"
LIMITS = {"tokens_per_day": 1_000_000}
HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]
RESPONSE: dict[str, Any] = {"model": MODEL, "input": "Say hello.", "max_output_tokens": 8}
MESSAGE: dict[str, Any] = {"model": MODEL, "messages": HELLO, "max_tokens": 8}


@pytest.fixture
def tally(real_gate: RunningGate) -> Tally:
    """What a new key uses."""
    return Tally(real_gate, limits=LIMITS)


@pytest.fixture
def claude(real_gate: RunningGate, tally: Tally) -> Iterator[Any]:
    """Anthropic's client with that key."""
    with anthropic.Anthropic(
        base_url=real_gate.url, api_key=tally.key, max_retries=0, timeout=120
    ) as client:
        yield client


def test_a_response(real_gate: RunningGate, tally: Tally) -> None:
    """OpenAI's client: whole, streamed; what vLLM counted is charged."""
    client = real_gate.openai(tally.key)
    whole = client.responses.create(**RESPONSE)
    events = list(client.responses.create(**RESPONSE, stream=True))
    assert whole.output_text
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
    last = events[-1].response
    assert any(event.type == "response.output_text.delta" for event in events)
    sum_in = whole.usage.input_tokens + last.usage.input_tokens
    sum_out = whole.usage.output_tokens + last.usage.output_tokens
    used = tally.settled().used()
    assert (used.requests, used.input, used.output) == (2, sum_in, sum_out)


def test_a_message(tally: Tally, claude: Any) -> None:
    """Anthropic's client: whole, streamed; what vLLM counted is charged."""
    whole = claude.messages.create(**MESSAGE)
    events = list(claude.messages.create(**MESSAGE, stream=True))
    assert whole.content[0].type == "text"
    assert [events[0].type, events[-1].type] == ["message_start", "message_stop"]
    told = [event for event in events if event.type == "message_delta"][-1].usage
    sum_in = whole.usage.input_tokens + (told.input_tokens or 0)
    used = tally.settled().used()
    sum_out = whole.usage.output_tokens + told.output_tokens
    assert (used.requests, used.input, used.output) == (2, sum_in, sum_out)


def test_tokens_are_counted_before_they_are_sent(claude: Any) -> None:
    """``count_tokens`` tells what a message then uses."""
    told = claude.messages.count_tokens(model=MODEL, messages=HELLO)
    assert told.input_tokens == claude.messages.create(**MESSAGE).usage.input_tokens


def test_anthropics_client_hears_our_refusals(claude: Any) -> None:
    """By their own names: no such model, no such key, a mistake that vLLM finds."""
    with pytest.raises(anthropic.NotFoundError) as told:
        claude.messages.create(**{**MESSAGE, "model": "none"})
    assert told.value.body == {
        "type": "error",
        "error": {"type": "not_found_error", "message": "The model 'none' does not exist."},
    }
    with pytest.raises(anthropic.BadRequestError):
        claude.messages.create(**MESSAGE, extra_body={"temperature": "hot"})
    with pytest.raises(anthropic.AuthenticationError):
        claude.with_options(api_key="sg-wrong").messages.create(**MESSAGE)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", RESPONSE),
        ("/v1/messages", MESSAGE),
        ("/v1/chat/completions", chat(max_tokens=2)),
        ("/v1/completions", {"model": MODEL, "prompt": "1, 2,", "max_tokens": 2}),
        ("/v1/messages/count_tokens", {"model": MODEL, "messages": HELLO}),
        ("/tokenize", {"model": MODEL, "prompt": "1, 2,"}),
        ("/detokenize", {"model": MODEL, "tokens": [28, 33]}),
    ],
)
def test_a_lower_class_is_served_in_every_dialect(
    real_gate: RunningGate, path: str, body: dict[str, Any]
) -> None:
    """The rank is told where vLLM reads it; what the client says of it is nowhere a mistake."""
    with real_gate.client(real_gate.new_key()) as client:
        told = client.post(path, json=body | {"priority": -9}, headers={"x-priority": "batch"})
    assert (told.status_code, told.headers["x-served-class"]) == (200, "batch"), told.text


def test_text_becomes_tokens_and_comes_back(real_gate: RunningGate) -> None:
    """``/tokenize`` and ``/detokenize``; a model must be named, though vLLM could do without."""
    with real_gate.client() as client:
        told = client.post("/tokenize", json={"model": MODEL, "prompt": "Once upon a time"}).json()
        assert told["count"] == len(told["tokens"]) > 0
        asked = {"model": MODEL, "tokens": told["tokens"]}
        assert client.post("/detokenize", json=asked).json() == {"prompt": "Once upon a time"}
        unnamed = client.post("/tokenize", json={"prompt": "Once"})
    assert (unnamed.status_code, unnamed.json()["error"]["param"]) == (400, "model")


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/score", "/v1/rerank"])
def test_a_path_that_a_model_does_not_have_is_named(real_gate: RunningGate, path: str) -> None:
    """A chat model embeds nothing: 404 in our errors' shape, and it costs nothing."""
    with real_gate.client(real_gate.new_key()) as client:
        told = client.post(path, json={"model": MODEL, "input": "a", "query": "a"})
        error = told.json()["error"]
        assert (told.status_code, error["code"]) == (404, "not_found")
        assert f"'{MODEL}' does not serve {path}" in error["message"]
        assert client.get("/v1/usage").json()["totals"]["input_tokens"] == 0


@pytest.mark.parametrize(
    ("path", "body", "piece"),
    [
        ("/v1/responses", {**RESPONSE, "max_output_tokens": 1_500}, b"output_text.delta"),
        ("/v1/messages", {**MESSAGE, "max_tokens": 1_500}, b"content_block_delta"),
    ],
)
def test_who_leaves_in_the_middle_pays_what_was_streamed(
    real_gate: RunningGate, tally: Tally, path: str, body: dict[str, Any], piece: bytes
) -> None:
    """Input and the pieces that came, at least; the engine's work is aborted."""
    body = body | {"stream": True, "ignore_eos": True, "input": "Write a very long story."}
    got = b""
    with (
        real_gate.client(tally.key) as client,
        client.stream("POST", path, json=body) as told,
    ):
        for chunk in told.iter_bytes():
            got += chunk
            if got.count(piece) >= 10:
                break
    used = tally.settled().used()
    assert isinstance(used, Used)
    assert used.input > 0
    assert got.count(piece) // 2 <= used.output < 1_500


def test_a_kept_response_is_its_makers_alone(real_gate: RunningGate, tally: Tally) -> None:
    """Found again, gone on from and named by the gate; to other callers there is none of it."""
    maker = real_gate.openai(tally.key)
    told = maker.responses.create(**RESPONSE, extra_body={"request_id": "resp_mine"})
    assert told.id != "resp_mine"
    assert maker.responses.retrieve(told.id).output_text == told.output_text
    more = maker.responses.create(**RESPONSE, previous_response_id=told.id)
    assert more.usage.input_tokens > told.usage.input_tokens
    others = [real_gate.openai(tally.another()), real_gate.openai(real_gate.new_key())]
    for name, client in [("resp_mine", maker), *((told.id, other) for other in others)]:
        for ask in (client.responses.retrieve, client.responses.cancel):
            with pytest.raises(openai.NotFoundError, match="There is no response"):
                ask(name)
        with pytest.raises(openai.NotFoundError, match="There is no response"):
            client.responses.create(**RESPONSE, previous_response_id=name)
    unkept = maker.responses.create(**RESPONSE, store=False)
    with pytest.raises(openai.NotFoundError):
        maker.responses.retrieve(unkept.id)


def test_nothing_is_made_in_the_background(real_gate: RunningGate) -> None:
    """It would have no seat and be nobody's to pay; what is kept and done cannot be cancelled."""
    client = real_gate.openai(real_gate.new_key())
    with pytest.raises(openai.BadRequestError, match="background") as told:
        client.responses.create(**RESPONSE, background=True)
    assert told.value.param == "background"
    done = client.responses.create(**RESPONSE, background=False)
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(done.id)


def test_a_form_for_a_model_that_hears_nothing(real_gate: RunningGate) -> None:
    """The form goes to the engine, which has no such route; the caller is told which."""
    with real_gate.client() as client:
        told: httpx.Response = client.post(
            "/v1/audio/transcriptions",
            data={"model": MODEL},
            files={"file": ("a.wav", b"RIFF" * 100, "audio/wav")},
        )
    assert (told.status_code, told.json()["error"]["code"]) == (404, "not_found")
