"""Keep an engine's LoRA adapters as the store says, whoever changes them and whenever it started.

The gateway that is asked to load one tells each engine itself, and so knows at once whether it can
be loaded; here is who makes up for what that gateway cannot reach: a replica that starts later, or
was cut off.
"""

import asyncio
import logging
import time
from http import HTTPStatus
from typing import Any

import aiohttp

from serve_app.engine.sources import adapter_source
from serve_app.errors import StoreUnavailable
from serve_app.model_settings import Model
from serve_app.store import Address, Store, adapters

FOLLOW_S = 1.0
AGAIN_S = 60.0
"""Seconds after which an adapter that could not be loaded is tried again."""

LOAD_S = 600.0
"""Seconds that an adapter may take, which may have to be fetched first."""

_log = logging.getLogger("sluicegate.engine")


class Adapters:
    """The adapters of one engine.

    Args:
        store: says which it is to have beside those of the settings.
        model: whose engine.
        address: where it listens.
    """

    def __init__(self, store: Store, model: Model, address: Address) -> None:
        self._store, self._model, self._address = store, model, address
        self._fixed = {one.name for one in model.adapters}
        self._not_before_s: dict[str, float] = {}

    async def follow(self) -> None:
        """Do as the store says, for as long as the engine lives."""
        while self._model.takes_adapters:
            await self.settle()
            await asyncio.sleep(FOLLOW_S)  # nobody tells us of a change

    async def settle(self) -> None:
        """Load what is missing and unload what is too much, as far as it can be done now."""
        if not self._model.takes_adapters:
            return
        timeout = aiohttp.ClientTimeout(total=LOAD_S)
        headers = self._address.headers
        try:
            listed = await adapters.listed(self._store, [self._model.name])
            wanted = {one.name: one.source for one in listed[self._model.name]}
            async with aiohttp.ClientSession(
                self._address.url, headers=headers, timeout=timeout
            ) as engine:
                there = await self._there(engine)
                for name in wanted.keys() - there - self._fixed:
                    await self._load(engine, name, wanted[name])
                for name in there - wanted.keys() - self._fixed:
                    await self._say(engine, "unload", {"lora_name": name})
        except (StoreUnavailable, aiohttp.ClientError, TimeoutError) as err:
            _log.warning("the adapters of '%s' stay as they are: %s", self._model.name, err)

    async def _there(self, engine: aiohttp.ClientSession) -> set[str]:
        async with engine.get("/v1/models") as reply:
            cards: list[dict[str, Any]] = (await reply.json())["data"]
        return {card["id"] for card in cards if card.get("parent")}

    async def _load(self, engine: aiohttp.ClientSession, name: str, source: str) -> None:
        if time.monotonic() < self._not_before_s.get(name, 0.0):
            return
        body = {"lora_name": name, "lora_path": adapter_source(source)}
        try:
            loaded = await self._say(engine, "load", body)
        except TimeoutError:  # the others are not kept waiting for it
            loaded = False
            _log.warning("the engine did not load '%s' within %g s", name, LOAD_S)
        if not loaded:
            self._not_before_s[name] = time.monotonic() + AGAIN_S

    async def _say(self, engine: aiohttp.ClientSession, step: str, body: dict[str, str]) -> bool:
        """Have the engine load or unload; return whether it did. The gateway may have, before."""
        async with engine.post(f"/v1/{step}_lora_adapter", json=body) as reply:
            if reply.status < HTTPStatus.BAD_REQUEST:
                return True
            told = await reply.text()
        _log.warning("the engine does not %s '%s': %s", step, body["lora_name"], told[:300])
        return False
