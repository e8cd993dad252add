"""Anthropic's own package for Python against the gate, as its users write it."""

import asyncio
import os
from typing import Any

import anthropic
from cases import MODEL, case, chat, run

PLAIN = anthropic.Anthropic(max_retries=0)
GREEDY = {"temperature": 0}
"""What this package no longer names, and vLLM takes."""


def keyed(name: str, **more: Any) -> anthropic.Anthropic:
    """Return a client with the key that the test put into the environment under ``name``."""
    return anthropic.Anthropic(**{"api_key": os.environ[name], "max_retries": 0, **more})


@case
def message() -> Any:
    told = PLAIN.messages.create(**chat("What is the capital of France?", extra_body=GREEDY))
    return {
        "role": told.role,
        "type": told.type,
        "text": told.content[0].text,
        "stop": told.stop_reason,
        "tokens": told.usage.output_tokens,
        "input": told.usage.input_tokens,
        "request_id": told._request_id,
    }


@case
def stream() -> Any:
    with PLAIN.messages.stream(
        **chat("What is the capital of France?", extra_body=GREEDY)
    ) as events:
        kinds = [event.type for event in events]
        final = events.get_final_message()
    return {
        "kinds": kinds,
        "text": final.content[0].text,
        "stop": final.stop_reason,
        "tokens": final.usage.output_tokens,
    }


@case
def system_and_turns() -> Any:
    talk = [
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": "Hello, who are you?"},
        {"role": "user", "content": "Somebody."},
    ]
    asked = {"model": MODEL, "max_tokens": 8, "system": "Be brief.", "messages": talk}
    return (
        PLAIN.messages.create(**asked, stop_sequences=["."], extra_body={"top_k": 1})
        .content[0]
        .text
    )


@case
async def many_at_once() -> Any:
    async with anthropic.AsyncAnthropic(max_retries=0) as client:

        async def one() -> int:
            async with client.messages.stream(**chat()) as events:
                return (await events.get_final_message()).usage.output_tokens

        return await asyncio.gather(*(one() for _ in range(12)))


@case
def count() -> Any:
    asked = {"model": MODEL, "messages": chat()["messages"]}
    told = PLAIN.messages.count_tokens(**asked)
    used = PLAIN.messages.create(**asked, max_tokens=1).usage
    return {"counted": told.input_tokens, "used": used.input_tokens}


@case
def tools() -> Any:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool = {"name": "weather", "description": "The weather of a city.", "input_schema": schema}
    asked = chat("How is the weather in Paris?", max_tokens=120, extra_body=GREEDY, tools=[tool])
    asked["tool_choice"] = {"type": "tool", "name": "weather"}
    told = PLAIN.messages.create(**asked)
    with PLAIN.messages.stream(**asked) as events:
        streamed = events.get_final_message()
    (call,) = [block for block in told.content if block.type == "tool_use"]
    (again,) = [block for block in streamed.content if block.type == "tool_use"]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    asked["messages"] += [
        {"role": "assistant", "content": [call.to_dict()]},
        {"role": "user", "content": [result]},
    ]
    after = PLAIN.messages.create(**{**asked, "tool_choice": {"type": "none"}, "max_tokens": 8})
    return {
        "names": [call.name, again.name],
        "inputs": [sorted(call.input), sorted(again.input)],
        "stop": told.stop_reason,
        "after": after.content[0].type,
    }


@case
def models() -> Any:
    return [model.id for model in PLAIN.models.list()]


@case
def wrong_key() -> Any:
    keyed("KEY_WRONG").messages.create(**chat())


@case
def bearer() -> Any:
    client = anthropic.Anthropic(auth_token=os.environ["ANTHROPIC_API_KEY"], api_key=None)
    return client.models.list().data[0].id


@case
def may_only_read() -> Any:
    keyed("KEY_READER").messages.create(**chat())


@case
def wrong_model() -> Any:
    PLAIN.messages.create(**chat(model="nope"))


@case
def wrong_cap() -> Any:
    PLAIN.messages.create(**chat(max_tokens=-1))


@case
def long_prompt() -> Any:
    PLAIN.messages.create(**chat("word " * 2_100))


@case
def large_body() -> Any:
    PLAIN.messages.create(**chat("w" * 11_000_000))


@case
def over_the_limit() -> Any:
    client = keyed("KEY_ONE_AT_A_TIME")
    client.messages.create(**chat())
    client.messages.create(**chat())


@case
def retried() -> Any:
    client = keyed("KEY_RETRIED", max_retries=1).messages.with_raw_response
    return {"retries": [client.create(**chat(max_tokens=1)).retries_taken for _ in range(2)]}


@case
def quota_spent() -> Any:
    client = keyed("KEY_SPENT", max_retries=3)
    client.messages.create(**chat())
    client.messages.create(**chat())


if __name__ == "__main__":
    run()
