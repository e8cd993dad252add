"""OpenAI's own package for Python against the gate, as its users write it."""

import asyncio
import json
import os
from typing import Any

import openai
from cases import MODEL, case, chat, run
from pydantic import BaseModel

PLAIN = openai.OpenAI(max_retries=0)


def keyed(name: str, **more: Any) -> openai.OpenAI:
    """Return a client with the key that the test put into the environment under ``name``."""
    return openai.OpenAI(**{"api_key": os.environ[name], "max_retries": 0, **more})


@case
def models() -> Any:
    listed = [model.id for model in PLAIN.models.list()]
    return {"listed": listed, "one": PLAIN.models.retrieve(MODEL).id}


@case
def talk() -> Any:
    told = PLAIN.chat.completions.create(**chat(temperature=0))
    again = PLAIN.chat.completions.with_raw_response.create(**chat(temperature=0))
    return {
        "text": told.choices[0].message.content,
        "role": told.choices[0].message.role,
        "finish": told.choices[0].finish_reason,
        "tokens": told.usage.completion_tokens,
        "request_id": told._request_id,
        "again": again.parse().choices[0].message.content,
        "headers": dict(again.headers),
    }


@case
def stream() -> Any:
    parts = list(PLAIN.chat.completions.create(**chat(temperature=0), stream=True))
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    *_, last = PLAIN.chat.completions.create(**chat(temperature=0), **asked)
    return {
        "text": "".join(part.choices[0].delta.content or "" for part in parts),
        "finish": parts[-1].choices[0].finish_reason,
        "usage_unasked": [part.usage for part in parts if part.usage],
        "usage_asked": last.usage.completion_tokens,
        "ids": len({part.id for part in parts}),
    }


@case
def stream_helper() -> Any:
    asked = chat(temperature=0, max_tokens=None)
    with PLAIN.chat.completions.stream(**asked) as events:
        kinds = {event.type for event in events}
        final = events.get_final_completion()
    whole = PLAIN.chat.completions.create(**asked).choices[0].message.content
    return {"kinds": sorted(kinds), "text": final.choices[0].message.content, "whole": whole}


@case
async def many_at_once() -> Any:
    async with openai.AsyncOpenAI(max_retries=0) as client:

        async def one() -> str:
            parts = await client.chat.completions.create(**chat(temperature=0), stream=True)
            return "".join([part.choices[0].delta.content or "" async for part in parts])

        told = await asyncio.gather(*(one() for _ in range(20)))
        whole = await client.chat.completions.create(**chat(temperature=0))
    return {"texts": told, "whole": whole.choices[0].message.content}


@case
def complete() -> Any:
    asked = {"model": MODEL, "prompt": "1, 2, 3,", "max_tokens": 6, "temperature": 0}
    parts = PLAIN.completions.create(**asked, stream=True)
    return {
        "text": PLAIN.completions.create(**asked).choices[0].text,
        "streamed": "".join(part.choices[0].text for part in parts),
    }


@case
def wrong_key() -> Any:
    openai.OpenAI(api_key="sg-wrong").models.list()


@case
def may_only_read() -> Any:
    keyed("KEY_READER").chat.completions.create(**chat())


@case
def wrong_model() -> Any:
    PLAIN.chat.completions.create(**chat(model="nope"))


@case
def wrong_cap() -> Any:
    PLAIN.chat.completions.create(**chat(max_tokens=-1))


@case
def long_prompt() -> Any:
    PLAIN.chat.completions.create(**chat("word " * 2_100))


@case
def broken_replica() -> Any:
    PLAIN.chat.completions.create(**chat(), extra_headers={"x-simulated-fault": "error"})


@case
def broken_stream() -> Any:
    fault = {"x-simulated-fault": "break"}
    list(PLAIN.chat.completions.create(**chat(), stream=True, extra_headers=fault))


@case
def too_slow() -> Any:
    keyed("OPENAI_API_KEY", timeout=0.3).chat.completions.create(**chat(max_tokens=1_500))


@case
def left_early() -> Any:
    with PLAIN.chat.completions.create(**chat(max_tokens=1_500), stream=True) as parts:
        next(iter(parts))


@case
def over_the_limit() -> Any:
    client = keyed("KEY_ONE_AT_A_TIME")
    client.chat.completions.create(**chat())
    client.chat.completions.create(**chat())


@case
def retried() -> Any:
    client = keyed("KEY_RETRIED", max_retries=1).chat.completions.with_raw_response
    return {"retries": [client.create(**chat(max_tokens=1)).retries_taken for _ in range(2)]}


@case
def quota_spent() -> Any:
    client = keyed("KEY_SPENT", max_retries=3)
    client.chat.completions.create(**chat())
    client.chat.completions.create(**chat())


# What follows needs a real model.


class Answer(BaseModel):
    """What the model is made to say."""

    city: str
    country: str


class Weather(BaseModel):
    """Look up the weather of a city."""

    city: str


WEATHER = openai.pydantic_function_tool(Weather)
ASKED = "What is the capital of France, and how is the weather there?"


@case
def parse() -> Any:
    asked = chat(ASKED, max_tokens=120, temperature=0, response_format=Answer)
    told = PLAIN.chat.completions.parse(**asked)
    with PLAIN.chat.completions.stream(**asked) as events:
        streamed = events.get_final_completion()
    parsed = [one.choices[0].message.parsed for one in (told, streamed)]
    return [one.model_dump() for one in parsed if isinstance(one, Answer)]


@case
def structured() -> Any:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}
    schema["additionalProperties"] = False
    shape = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    told = PLAIN.chat.completions.create(**chat(max_tokens=40, response_format=shape))
    choice = PLAIN.chat.completions.create(
        **chat("Is water wet?"), extra_body={"structured_outputs": {"choice": ["yes", "no"]}}
    )
    return {
        "json": json.loads(told.choices[0].message.content),
        "choice": choice.choices[0].message.content,
    }


@case
def tools() -> Any:
    named = {"type": "function", "function": {"name": "Weather"}}
    asked = chat(ASKED, max_tokens=120, temperature=0, tools=[WEATHER], tool_choice=named)
    told = PLAIN.chat.completions.parse(**asked)
    with PLAIN.chat.completions.stream(**asked) as events:
        kinds = {event.type for event in events}
        streamed = events.get_final_completion()
    calls = [one.choices[0].message.tool_calls[0].function for one in (told, streamed)]
    reply = {"role": "tool", "tool_call_id": "1", "content": "sunny"}
    told.choices[0].message.tool_calls[0].id = reply["tool_call_id"]
    asked["messages"] += [told.choices[0].message.to_dict(), reply]
    after = PLAIN.chat.completions.create(**{**asked, "tool_choice": "none", "max_tokens": 8})
    return {
        "names": [call.name for call in calls],
        "parsed": [type(call.parsed_arguments).__name__ for call in calls],
        "same": calls[0].arguments == calls[1].arguments,
        "kinds": sorted(kinds),
        "after": after.choices[0].message.content,
    }


@case
def logprobs() -> Any:
    asked = chat(temperature=0, logprobs=True, top_logprobs=2)
    told = PLAIN.chat.completions.create(**asked).choices[0].logprobs.content
    return {"tokens": len(told), "top": [len(one.top_logprobs) for one in told]}


@case
def embeddings() -> Any:
    PLAIN.embeddings.create(model=MODEL, input="Hello")


@case
def respond() -> Any:
    asked = {"model": MODEL, "input": "Hello", "max_output_tokens": 8, "temperature": 0}
    told = PLAIN.responses.create(**asked)
    with PLAIN.responses.stream(**asked) as events:
        kinds = [event.type for event in events]
        streamed = events.get_final_response()
    return {
        "text": told.output_text,
        "streamed": streamed.output_text,
        "kinds": kinds,
        "tokens": told.usage.output_tokens,
        "status": told.status,
    }


@case
def respond_parsed() -> Any:
    told = PLAIN.responses.parse(
        model=MODEL, input=ASKED, max_output_tokens=120, temperature=0, text_format=Answer
    )
    return told.output_parsed.model_dump()


@case
def respond_wrong() -> Any:
    PLAIN.responses.create(model="nope", input="Hello")


if __name__ == "__main__":
    run()
