"""What is asked of an engine through the gate and past it: the behaviour of vLLM's OpenAI server.

After vLLM 0.32's own tests of its entry points (tests/entrypoints/openai): parameters, streams,
logprobs, stops, structured output, tools, and what is refused. Greedy or seeded, so that one
engine answers twice alike.
"""

from dataclasses import dataclass
from typing import Any

MODEL = "smollm2-135m"
CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"


@dataclass(frozen=True)
class Case:
    """One request.

    Attributes:
        name: what it is about.
        path: where it goes.
        body: what is asked.
        simulated: whether the simulated engine knows it, too.
    """

    name: str
    path: str
    body: dict[str, Any]
    simulated: bool = False

    def __str__(self) -> str:
        return self.name


def chat(text: str = "Name three colours.", **more: Any) -> dict[str, Any]:
    """Return a greedy chat."""
    said = [{"role": "user", "content": text}]
    return {"model": MODEL, "messages": said, "max_tokens": 12, "temperature": 0, **more}


def completion(prompt: Any = "1, 2, 3,", **more: Any) -> dict[str, Any]:
    """Return a greedy completion."""
    return {"model": MODEL, "prompt": prompt, "max_tokens": 8, "temperature": 0, **more}


STREAM: dict[str, Any] = {"stream": True}
USAGE: dict[str, Any] = {**STREAM, "stream_options": {"include_usage": True}}
EACH_USAGE = {
    **STREAM,
    "stream_options": {"include_usage": True, "continuous_usage_stats": True},
}

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "warm": {"type": "boolean"}},
    "required": ["city", "warm"],
    "additionalProperties": False,
}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "city", "schema": CITY, "strict": True},
}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": CITY}}
NAMED = {"type": "function", "function": {"name": "look_up"}}
PARTS = [{"type": "text", "text": "Name a"}, {"type": "text", "text": "colour."}]
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": PARTS},
    {"role": "assistant", "content": "Red."},
    {"role": "user", "content": "Écris «☕» et 😀."},
]
PICTURE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
GRAMMAR = 'root ::= "a" | "b"'
LONG = "1 " * 2_100

CHATS = [
    Case("chat", CHAT, chat(), simulated=True),
    Case("chat stream", CHAT, chat(**STREAM), simulated=True),
    Case("usage", CHAT, chat(**USAGE), simulated=True),
    Case("usage in each frame", CHAT, chat(**EACH_USAGE), simulated=True),
    Case("empty stream options", CHAT, chat(**STREAM, stream_options={}), simulated=True),
    Case("null stream options", CHAT, chat(**STREAM, stream_options=None), simulated=True),
    Case("turns, parts and emoji", CHAT, chat(messages=TURNS), simulated=True),
    Case("emoji streamed", CHAT, chat(messages=TURNS, max_tokens=30, **STREAM), simulated=True),
    Case("the newer cap", CHAT, chat(max_tokens=None, max_completion_tokens=5), simulated=True),
    Case("no cap", CHAT, chat("Say yes.", max_tokens=None, stop=["."]), simulated=True),
    Case("n", CHAT, chat(n=2)),
    Case("n streamed, seeded", CHAT, chat(n=2, temperature=1, seed=7, **USAGE)),
    Case("seed", CHAT, chat(temperature=0.9, top_p=0.9, seed=42), simulated=True),
    Case("top_k and min_p", CHAT, chat(temperature=1, top_k=5, min_p=0.1, seed=3), simulated=True),
    Case("penalties", CHAT, chat(presence_penalty=1.5, frequency_penalty=1, repetition_penalty=1.2),
         simulated=True),
    Case("logprobs", CHAT, chat(logprobs=True, top_logprobs=3)),
    Case("logprobs streamed", CHAT, chat(logprobs=True, top_logprobs=2, **STREAM)),
    Case("prompt logprobs", CHAT, chat(prompt_logprobs=1, max_tokens=2)),
    Case("logit bias", CHAT, chat(logit_bias={"1000": 100}), simulated=True),
    Case("stop", CHAT, chat(stop=["o", ","])),
    Case("stop streamed", CHAT, chat(stop="e", **USAGE)),
    Case("stop kept", CHAT, chat(stop=["o"], include_stop_str_in_output=True)),
    Case("stop token", CHAT, chat(stop_token_ids=[28], max_tokens=20)),
    Case("least tokens", CHAT, chat("Say yes.", min_tokens=12), simulated=True),
    Case("bad words", CHAT, chat(bad_words=["Red"]), simulated=True),
    Case("token ids", CHAT, chat(return_token_ids=True)),
    Case("token ids streamed", CHAT, chat(return_token_ids=True, **STREAM)),
    Case("a reply begun", CHAT, chat(
        messages=[{"role": "user", "content": "Count."}, {"role": "assistant", "content": "1, 2,"}],
        continue_final_message=True, add_generation_prompt=False)),
    Case("echo", CHAT, chat(echo=True)),
    Case("JSON object", CHAT, chat("A city as JSON.", response_format={"type": "json_object"})),
    Case("JSON schema", CHAT, chat("A city.", response_format=SCHEMA, max_tokens=60)),
    Case("JSON schema streamed", CHAT, chat("A city.", response_format=SCHEMA, max_tokens=60,
                                            **USAGE)),
    Case("a choice", CHAT, chat(structured_outputs={"choice": ["red", "blue"]})),
    Case("a pattern", CHAT, chat(structured_outputs={"regex": "[0-9]{4}"})),
    Case("a grammar", CHAT, chat(structured_outputs={"grammar": GRAMMAR})),
    Case("a named tool", CHAT, chat("Paris?", tools=[TOOL], tool_choice=NAMED, max_tokens=60)),
    Case("a named tool streamed", CHAT, chat("Paris?", tools=[TOOL], tool_choice=NAMED,
                                             max_tokens=60, **USAGE)),
    Case("a tool is required", CHAT, chat("Paris?", tools=[TOOL], tool_choice="required",
                                          max_tokens=80)),
    Case("a required tool streamed", CHAT, chat("Paris?", tools=[TOOL], tool_choice="required",
                                                max_tokens=80, **STREAM)),
    Case("tools, none wanted", CHAT, chat(tools=[TOOL], tool_choice="none")),
    Case("tools, if it likes", CHAT, chat(tools=[TOOL], tool_choice="auto")),
    Case("what no API knows", CHAT, chat(colour="red", metadata={"a": "b"}), simulated=True),
]  # fmt: skip

COMPLETIONS = [
    Case("completion", COMPLETION, completion(), simulated=True),
    Case("completion stream", COMPLETION, completion(**STREAM), simulated=True),
    Case("completion usage", COMPLETION, completion(**USAGE), simulated=True),
    Case("completion usage in each frame", COMPLETION, completion(**EACH_USAGE), simulated=True),
    Case("no cap of a completion", COMPLETION, completion(max_tokens=None), simulated=True),
    Case("two prompts", COMPLETION, completion(["1, 2,", "a, b,"])),
    Case("two prompts streamed", COMPLETION, completion(["1, 2,", "a, b,"], **USAGE)),
    Case("prompt ids", COMPLETION, completion([504, 3575, 282, 4649, 314]), simulated=True),
    Case("n of a completion", COMPLETION, completion(n=3, temperature=1, seed=5)),
    Case("echo of a completion", COMPLETION, completion(echo=True)),
    Case("echo, logprobs, nothing new", COMPLETION, completion(echo=True, logprobs=1,
                                                               max_tokens=0)),
    Case("completion logprobs", COMPLETION, completion(logprobs=2)),
    Case("completion logprobs streamed", COMPLETION, completion(logprobs=2, **STREAM)),
    Case("completion stop", COMPLETION, completion(stop=[" 5"])),
    Case("completion bias", COMPLETION, completion(logit_bias={"1000": -100}), simulated=True),
    Case("completion schema", COMPLETION, completion("A city: ", response_format=SCHEMA,
                                                     max_tokens=60)),
    Case("completion seed", COMPLETION, completion(temperature=1, seed=9), simulated=True),
]  # fmt: skip

REFUSED = [
    Case("suffix", COMPLETION, completion(suffix="end")),
    Case("no prompt", COMPLETION, {"model": MODEL}, simulated=True),
    Case("prompt of a wrong type", COMPLETION, completion({"a": 1}), simulated=True),
    Case("no messages", CHAT, {"model": MODEL}, simulated=True),
    Case("empty messages", CHAT, chat(messages=[]), simulated=True),
    Case("an unknown role", CHAT, chat(messages=[{"role": "king", "content": "x"}])),
    Case("a picture", CHAT, chat(messages=[{"role": "user", "content": PICTURE}])),
    Case("cap below zero", CHAT, chat(max_tokens=-1), simulated=True),
    Case("cap of a wrong type", CHAT, chat(max_tokens="many"), simulated=True),
    Case("temperature below zero", CHAT, chat(temperature=-1)),
    Case("temperature of a wrong type", CHAT, chat(temperature="hot"), simulated=True),
    Case("top_p above one", CHAT, chat(top_p=2)),
    Case("n of zero", CHAT, chat(n=0), simulated=True),
    Case("too many logprobs", CHAT, chat(logprobs=True, top_logprobs=50)),
    Case("top logprobs without logprobs", CHAT, chat(top_logprobs=2)),
    Case("stream options without a stream", CHAT, chat(stream_options={"include_usage": True})),
    Case("a bias out of range", CHAT, chat(logit_bias={"999999": 1})),
    Case("a tool nobody gave", CHAT, chat(tools=[TOOL], tool_choice={
        "type": "function", "function": {"name": "nope"}})),
    Case("a choice without tools", CHAT, chat(tool_choice="required")),
    Case("a schema that is none", CHAT, chat(response_format={"type": "json_schema"})),
    Case("a broken grammar", CHAT, chat(structured_outputs={"grammar": "root ::= ("})),
    Case("two shapes at once", CHAT, chat(structured_outputs={"regex": "a", "choice": ["b"]})),
    Case("longer than the context", CHAT, chat(LONG),
         simulated=True),
    Case("refused, though streamed", CHAT, chat(temperature=-1, **STREAM)),
    Case("refused, with usage", CHAT, chat(max_tokens=-1, **USAGE), simulated=True),
]  # fmt: skip

RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
SHAPE = {"format": {"type": "json_schema", "name": "city", "schema": CITY, "strict": True}}
ANTHROPIC_TOOL = {"name": "look_up", "input_schema": CITY}


def response(said: Any = "Name three colours.", **more: Any) -> dict[str, Any]:
    """Return a greedy request for a response."""
    return {"model": MODEL, "input": said, "max_output_tokens": 12, "temperature": 0, **more}


OTHERS = [
    Case("response", RESPONSES, response()),
    Case("response stream", RESPONSES, response(**STREAM)),
    Case("response with instructions", RESPONSES, response(TURNS[:1], instructions="Be brief.")),
    Case("response of a shape", RESPONSES, response("A city.", text=SHAPE, max_output_tokens=60)),
    Case("response that cannot be", RESPONSES, response(temperature=-1)),
    Case("response without input", RESPONSES, {"model": MODEL}),
    Case("message", MESSAGES, chat()),
    Case("message stream", MESSAGES, chat(**STREAM)),
    Case("message with a system prompt", MESSAGES, chat(system="Be brief.", stop_sequences=["e"])),
    Case("message that calls", MESSAGES, chat("Paris?", tools=[ANTHROPIC_TOOL], max_tokens=60,
                                              tool_choice={"type": "tool", "name": "look_up"})),
    Case("message that calls, streamed", MESSAGES, chat(
        "Paris?", tools=[ANTHROPIC_TOOL], max_tokens=60, **STREAM,
        tool_choice={"type": "tool", "name": "look_up"})),
    Case("message without messages", MESSAGES, {"model": MODEL, "max_tokens": 3}),
    Case("message that cannot be", MESSAGES, chat(temperature="hot")),
    Case("count of tokens", "/v1/messages/count_tokens", chat()),
    Case("tokens", "/tokenize", {"model": MODEL, "prompt": "Écris «☕» et 😀."}),
    Case("tokens of a talk", "/tokenize", {"model": MODEL, "messages": TURNS[:1]}),
    Case("text of tokens", "/detokenize", {"model": MODEL, "tokens": [504, 3575, 282]}),
]  # fmt: skip

CASES = [*CHATS, *COMPLETIONS, *REFUSED, *OTHERS]
