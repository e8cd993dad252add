"""Which adapters the replicas of each model are to have, and where those replicas are."""

from collections.abc import Iterable

from serve_app.errors import AlreadyExists, InUse, InvalidRequest
from serve_app.model_settings import Adapter, Model
from serve_app.store import Address, Loaded, Store, adapters, keys


class Adapters:
    """The adapters of every model whose engine takes some.

    Args:
        store: where it is written down.
        models: all there are.
    """

    def __init__(self, store: Store, models: Iterable[Model]) -> None:
        self._store = store
        self._models = [model.name for model in models if model.takes_adapters]

    async def listed(self) -> dict[str, list[Loaded]]:
        """Return what was loaded while the gate runs, by model.

        Raises:
            StoreUnavailable: nobody can tell.
        """
        return await adapters.listed(self._store, self._models)

    async def offered(self) -> list[tuple[str, Adapter]]:
        """Return those that callers may ask for, each with its model.

        Raises:
            StoreUnavailable: nobody can tell.
        """
        found = (await self.listed()).items()
        return [
            (model, Adapter(name=one.name, source=one.source))
            for model, each in found
            for one in each
            if one.offered
        ]

    async def replicas(self, model: str) -> dict[str, Address]:
        """Return the replicas of ``model`` and where their engines listen.

        Raises:
            StoreUnavailable: nobody can tell.
        """
        (found,) = await self._store.hashes(keys.line(model)[:1])
        return {replica: Address.from_json(text) for replica, text in found.items()}

    async def put(self, model: str, one: Loaded) -> None:
        """Have every replica load ``one``, those that start later too.

        Raises:
            AlreadyExists: there is one of that name.
            InvalidRequest: the model has as many as it may.
            StoreUnavailable: it may or may not have happened.
        """
        done = await adapters.change(self._store, model, None, one)
        if done < 0:
            raise InvalidRequest(f"'{model}' has {adapters.MOST} adapters; unload one first.")
        if not done:
            raise AlreadyExists(f"There is an adapter '{one.name}'; unload it first.", param="name")

    async def offer(self, model: str, one: Loaded) -> None:
        """Let callers ask for ``one``.

        Raises:
            InUse: somebody has unloaded it meanwhile.
            StoreUnavailable: it may or may not have happened.
        """
        shown = Loaded(one.name, one.source, offered=True)
        if not await adapters.change(self._store, model, one, shown):
            raise InUse(f"The adapter '{one.name}' was unloaded meanwhile.")

    async def drop(self, model: str, one: Loaded) -> bool:
        """Have every replica unload ``one``; return whether it was still there as it was seen.

        Raises:
            StoreUnavailable: it may or may not have happened.
        """
        return bool(await adapters.change(self._store, model, one, None))
