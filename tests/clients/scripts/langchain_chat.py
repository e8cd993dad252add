"""LangChain's ChatOpenAI against the gate, as its users write it."""

import os
from typing import Any

from cases import MODEL, case, run
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

TALK = [SystemMessage("Be brief."), HumanMessage("Hello")]


def model(**more: Any) -> ChatOpenAI:
    """Return the model behind the gate."""
    return ChatOpenAI(
        **{"model": MODEL, "max_tokens": 8, "temperature": 0, "max_retries": 0} | more
    )


@case
def talk() -> Any:
    told = model().invoke(TALK)
    return {
        "text": told.content,
        "tokens": told.usage_metadata["output_tokens"],
        "finish": told.response_metadata["finish_reason"],
    }


@case
def stream() -> Any:
    parts = list(model(stream_usage=True).stream(TALK))
    whole = parts[0]
    for part in parts[1:]:
        whole += part
    return {"text": whole.content, "tokens": whole.usage_metadata["output_tokens"]}


@case
async def many_at_once() -> Any:
    told = await model().abatch([TALK] * 12)
    return [one.content for one in told]


@case
def wrong_key() -> Any:
    model(api_key="sg-wrong").invoke(TALK)


@case
def wrong_model() -> Any:
    model(model="nope").invoke(TALK)


@case
def over_the_limit() -> Any:
    limited = model(api_key=os.environ["KEY_ONE_AT_A_TIME"])
    limited.invoke(TALK)
    limited.invoke(TALK)


# What follows needs a real model.


class Answer(BaseModel):
    """What the model is made to say."""

    city: str


@tool
def weather(city: str) -> str:
    """Look up the weather of a city."""
    return f"sunny in {city}"


@case
def structured() -> Any:
    asked = "What is the capital of France?"
    ways = ("json_schema", "function_calling")
    longer = model(max_tokens=120)
    told = [longer.with_structured_output(Answer, method=way).invoke(asked) for way in ways]
    return [type(one).__name__ for one in told]


@case
def tools() -> Any:
    bound = model(max_tokens=120).bind_tools([weather], tool_choice="weather")
    called = bound.invoke("How is the weather in Paris?")
    (call,) = called.tool_calls
    told = [HumanMessage("How is the weather in Paris?"), called, weather.invoke(call)]
    return {
        "name": call["name"],
        "args": sorted(call["args"]),
        "after": model().invoke(told).content,
    }


@case
def respond() -> Any:
    return model(use_responses_api=True).invoke(TALK).text


if __name__ == "__main__":
    run()
