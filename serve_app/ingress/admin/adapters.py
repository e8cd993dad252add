"""LoRA adapters over HTTP: loaded and unloaded on all replicas of a model, while it serves.

All tenants share a model, so operators alone do this. What is loaded is written down first and
offered last, once every replica there is has loaded it. Whoever comes to one that lacks it all the
same, because it read what to load a moment before, is sent to another (:mod:`upstream`).
"""

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus

import aiohttp

from serve_app.auth import Caller
from serve_app.errors import (
    AlreadyExists,
    Forbidden,
    InUse,
    InvalidRequest,
    NoSuchModel,
    UpstreamFailed,
)
from serve_app.ingress.admin.asked import NO_STORE, body_as
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.gate import Gate
from serve_app.model_settings import Adapter, Model, ModelName
from serve_app.queueing import Address, Loaded

LOAD_S = 600.0
REACHED_S, AGAIN_S = 5.0, 0.25
"""How long and how often a replica is tried that cannot be reached; a dead one is gone by then."""

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
        UpstreamFailed: a replica did not load it; it is on none, and not offered.
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
    replicas = await _offered(gate, model, one)
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
            await _on_all("unload", one, await gate.adapters.replicas(model.name))
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


async def _offered(gate: Gate, model: Model, one: Loaded) -> int:
    """Offer ``one`` once it is on every replica; return on how many it is.

    A replica that has come meanwhile must have it as well; if not, all is undone.
    """
    written = one
    try:
        done = await _on_every(gate, model, one, frozenset())
        await gate.adapters.offer(model.name, one)
        written = Loaded(one.name, one.source, offered=True)
        done = await _on_every(gate, model, one, done)
        await gate.learn_adapters()
    except (InvalidRequest, UpstreamFailed):
        await gate.adapters.drop(model.name, written)
        await gate.learn_adapters()
        await _on_all("unload", one, await gate.adapters.replicas(model.name))
        raise
    return len(done)


async def _on_every(gate: Gate, model: Model, one: Loaded, done: frozenset[str]) -> frozenset[str]:
    """Have each registered replica load ``one`` that is not among ``done``; return which have it.

    Raises:
        InvalidRequest: an engine refuses it, in its words.
        UpstreamFailed: one did not answer, and is still registered.
    """
    until_s = time.monotonic() + REACHED_S
    while missing := {
        replica: at
        for replica, at in (await gate.adapters.replicas(model.name)).items()
        if replica not in done
    }:
        refusal, loaded = await _on_all("load", one, missing)
        if refusal is not None:
            raise InvalidRequest(f"An engine refuses it: {refusal}", param="source")
        done |= loaded
        if missing.keys() - loaded:
            if time.monotonic() > until_s:
                told = "A replica does not answer; the adapter is on none. Try again."
                raise UpstreamFailed(told, retry_after_s=REACHED_S)
            await asyncio.sleep(AGAIN_S)  # it is found dead meanwhile, or answers
    return done


async def _on_all(
    step: str, one: Loaded, replicas: Mapping[str, Address]
) -> tuple[str | None, frozenset[str]]:
    """Have ``replicas`` load or unload; return a refusal, if any, and which of them did."""
    body = {"lora_name": one.name}
    if step == "load":
        body |= {"lora_path": one.source}
    timeout = aiohttp.ClientTimeout(total=LOAD_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:

        async def tell(url: str, headers: dict[str, str]) -> tuple[int, str]:
            path = f"{url}/v1/{step}_lora_adapter"
            async with session.post(path, json=body, headers=headers) as reply:
                return reply.status, await reply.text()

        asking = [tell(at.url, at.headers) for at in replicas.values()]
        told = await asyncio.gather(*asking, return_exceptions=True)
    heard = {
        replica: said
        for replica, said in zip(replicas, told, strict=True)
        if isinstance(said, tuple) and said[0] < HTTPStatus.INTERNAL_SERVER_ERROR
    }
    done = {
        replica
        for replica, (status, text) in heard.items()
        if status < HTTPStatus.BAD_REQUEST or ALREADY in text
    }
    refused = [text for replica, (_, text) in heard.items() if replica not in done]
    return (_words(refused[0]) if refused else None), frozenset(done)


def _words(text: str) -> str:
    """Return the engine's sentence in its refusal."""
    with suppress(ValueError, KeyError, TypeError):
        text = json.loads(text)["error"]["message"]
    return str(text)[:500]
