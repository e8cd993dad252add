"""LoRA adapters over HTTP: loaded and unloaded on all replicas of a model, while it serves.

All tenants share a model, so operators alone do this. What is loaded is written down first and
offered last: a replica that starts in between loads it too, and nobody is sent to one without it.
"""

import asyncio
import json
from contextlib import suppress
from http import HTTPStatus

import aiohttp

from serve_app.auth import Caller
from serve_app.errors import AlreadyExists, Forbidden, InUse, InvalidRequest, NoSuchModel
from serve_app.ingress.asked import NO_STORE, body_as
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.gate import Gate
from serve_app.model_settings import Adapter, Model, ModelName
from serve_app.queueing import Loaded

LOAD_S = 600.0
ALREADY = "already been loaded"
"""What vLLM says if the replica itself was quicker."""


class AdapterRequest(Adapter):
    """The body of ``POST /v1/adapters``."""

    model: ModelName
    """The model that it adapts."""


async def load_adapter(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Load a LoRA adapter on all replicas of a model, those that start later too. Operators only.

    Raises:
        InvalidRequest: the model takes no adapters, or an engine refuses it, in its words.
        NoSuchModel: there is no such model.
        AlreadyExists: the name is taken.
        InUse: somebody unloaded it meanwhile.
    """
    _must_be_operator(caller)
    asked = await body_as(AdapterRequest, exchange)
    if asked.source[0] in "~.":
        told = "'source' must be a folder by its whole path, or a Hugging Face id."
        raise InvalidRequest(told, param="source")
    model = _taking(gate, asked.model)
    listed = await gate.adapters.listed()
    taken = {one.name for each in listed.values() for one in each}
    if asked.name in gate.catalogue or asked.name in taken:
        raise AlreadyExists(f"The name '{asked.name}' is taken.", param="name")
    one = Loaded(asked.name, asked.source)
    await gate.adapters.put(model.name, one)
    refusal, replicas = await _on_all(gate, model, "load", one)
    if refusal is not None:
        await gate.adapters.drop(model.name, one)
        await _on_all(gate, model, "unload", one)
        raise InvalidRequest(f"An engine refuses it: {refusal}", param="source")
    await gate.adapters.offer(model.name, one)
    await gate.learn_adapters()
    made = {"name": one.name, "model": model.name, "source": one.source}
    await gate.noted(exchange, caller, action="adapter.load", target=one.name, after=made)
    await exchange.reply(201, {**made, "loaded_at": "run", "replicas": replicas}, NO_STORE)


async def list_adapters(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """List the LoRA adapters of all models, those of the settings first. Operators only."""
    _must_be_operator(caller)
    fixed = [(model, one, "start") for model in gate.models.values() for one in model.adapters]
    later = [
        (gate.models[name], Adapter(name=one.name, source=one.source), "run")
        for name, each in (await gate.adapters.listed()).items()
        for one in each
    ]
    shown = [
        {"name": one.name, "model": model.name, "source": one.source, "loaded_at": when}
        for model, one, when in (*fixed, *later)
    ]
    await exchange.reply(200, {"object": "list", "data": shown}, NO_STORE)


async def unload_adapter(gate: Gate, exchange: Exchange, caller: Caller) -> None:
    """Unload a LoRA adapter from all replicas; what runs under it goes on. Operators only.

    Raises:
        NoSuchModel: no adapter has this name.
        InUse: it stands in the settings.
    """
    _must_be_operator(caller)
    name = str(exchange.scope["path_params"]["name"])
    if any(one.name == name for model in gate.models.values() for one in model.adapters):
        raise InUse(f"The adapter '{name}' stands in the settings; take it out there.")
    found = [
        (gate.models[model], one)
        for model, each in (await gate.adapters.listed()).items()
        for one in each
        if one.name == name
    ]
    if not found:
        raise NoSuchModel(f"There is no adapter '{name[:128]}'.", param="name")
    for model, one in found:
        if await gate.adapters.drop(model.name, one):
            await gate.learn_adapters()
            await _on_all(gate, model, "unload", one)
            was = {"name": name, "model": model.name, "source": one.source}
            await gate.noted(exchange, caller, action="adapter.unload", target=name, before=was)
    await exchange.reply(204, headers=NO_STORE)


def _must_be_operator(caller: Caller) -> None:
    if not caller.operator:
        raise Forbidden("All tenants share the models: only the platform's operators adapt them.")


def _taking(gate: Gate, name: str) -> Model:
    """Return the model of that name, or alias, if its engine takes adapters."""
    model = gate.catalogue.must_have(name)
    if not model.takes_adapters:
        told = f"'{name}' was started without adapters: set 'enable_lora: true' in engine_args."
        raise InvalidRequest(told, param="model")
    return model


async def _on_all(gate: Gate, model: Model, step: str, one: Loaded) -> tuple[str | None, int]:
    """Have every engine of ``model`` load or unload; return a refusal, if any, and how many did.

    One that cannot be reached is not waited for: its replica does it, or is gone.
    """
    body = {"lora_name": one.name}
    if step == "load":
        body |= {"lora_path": one.source}
    timeout = aiohttp.ClientTimeout(total=LOAD_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:

        async def tell(url: str, headers: dict[str, str]) -> tuple[int, str]:
            path = f"{url}/v1/{step}_lora_adapter"
            async with session.post(path, json=body, headers=headers) as reply:
                return reply.status, await reply.text()

        at = (await gate.adapters.replicas(model.name)).values()
        asking = [tell(one.url, one.headers) for one in at]
        told = await asyncio.gather(*asking, return_exceptions=True)
    heard = [one for one in told if isinstance(one, tuple)]
    done = [one for one in heard if one[0] < HTTPStatus.BAD_REQUEST or ALREADY in one[1]]
    refused = [text for status, text in heard if (status, text) not in done]
    return (_words(refused[0]) if refused and step == "load" else None), len(done)


def _words(text: str) -> str:
    """Return the engine's sentence in its refusal."""
    with suppress(ValueError, KeyError, TypeError):
        text = json.loads(text)["error"]["message"]
    return str(text)[:500]
