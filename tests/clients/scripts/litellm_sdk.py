"""LiteLLM's SDK against the gate, as its users write it."""

import asyncio
import os
from typing import Any

import litellm
from cases import MODEL, case, chat, run

OPENAI = {"api_base": os.environ["OPENAI_BASE_URL"], "api_key": os.environ["OPENAI_API_KEY"]}
ANTHROPIC = {**OPENAI, "api_base": os.environ["ANTHROPIC_BASE_URL"]}
PROVIDERS = {"openai": OPENAI, "hosted_vllm": OPENAI}


def asked(provider: str = "openai", text: str = "Hello", **more: Any) -> dict[str, Any]:
    """Return the arguments of a completion by ``provider``."""
    known = {**PROVIDERS, "anthropic": ANTHROPIC}[provider]
    named = {"model": f"{provider}/{more.pop('model', MODEL)}"}
    return {**chat(text), **known, "num_retries": 0, "max_retries": 0, **more, **named}


@case
def talk() -> Any:
    return {one: _both(one) for one in PROVIDERS}


@case
def talk_as_anthropic() -> Any:
    return _both("anthropic")


def _both(provider: str) -> list[str]:
    """Return the text of one chat, whole and streamed."""
    whole = litellm.completion(**asked(provider, temperature=0))
    parts = litellm.completion(**asked(provider, temperature=0), stream=True)
    streamed = "".join(part.choices[0].delta.content or "" for part in parts)
    return [whole.choices[0].message.content, streamed]


@case
async def many_at_once() -> Any:
    told = await asyncio.gather(*(litellm.acompletion(**asked()) for _ in range(12)))
    return [one.usage.completion_tokens for one in told]


@case
def complete() -> Any:
    named = {"model": f"text-completion-openai/{MODEL}", "prompt": "1, 2, 3,", "max_tokens": 6}
    return litellm.text_completion(**OPENAI, **named).choices[0].text


@case
def wrong_key() -> Any:
    litellm.completion(**asked(api_key="sg-wrong"))


@case
def may_only_read() -> Any:
    litellm.completion(**asked(api_key=os.environ["KEY_READER"]))


@case
def wrong_model() -> Any:
    litellm.completion(**asked(model="nope"))


@case
def wrong_cap() -> Any:
    litellm.completion(**asked(max_tokens=-1))


@case
def long_prompt() -> Any:
    litellm.completion(**asked(text="word " * 2_100))


@case
def over_the_limit() -> Any:
    for _ in range(2):
        litellm.completion(**asked(api_key=os.environ["KEY_ONE_AT_A_TIME"]))


@case
def broken_replica() -> Any:
    litellm.completion(**asked(extra_headers={"x-simulated-fault": "error"}))


if __name__ == "__main__":
    run()
