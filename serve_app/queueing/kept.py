"""Where responses are kept: which replica holds what it answered, and whose it is.

An engine keeps responses in its own memory and alone: whoever asks for one again must come to the
same replica. The store knows which, for :data:`TTL_S`, and of a tenant no more than :data:`MOST`.
"""

import json
from typing import NamedTuple

from serve_app.store import Address, Store, keys

TTL_S = 3_600
MOST = 10_000
"""Responses noted for one tenant, 0.2 KB each; of more, the oldest are forgotten."""


class Place(NamedTuple):
    """Where a response is kept.

    Attributes:
        model: that answered.
        asked: the name that it was asked by: the model's own, an alias, an adapter.
        replica: that holds it.
        address: how to reach that.
    """

    model: str
    asked: str
    replica: str
    address: Address


class Kept:
    """The responses that replicas hold."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def note(
        self, tenant: str, caller: str, named: str, *, model: str, asked: str, replica: str
    ) -> None:
        """Note that ``replica`` holds the response ``named`` of ``caller``, made by ``model``.

        Args:
            tenant: whose it is.
            caller: who of it.
            named: its name.
            model: that made it.
            asked: the name that it was asked by.
            replica: that holds it.

        Raises:
            StoreUnavailable: nobody will find it.
        """
        place = json.dumps([model, asked, replica, caller])
        await self._store.run("response_keep", keys.responses(tenant), [named, place, TTL_S, MOST])

    async def find(self, tenant: str, caller: str, named: str) -> Place | None:
        """Return where the response ``named`` is kept; None if it is gone, or is not ``caller``'s.

        Raises:
            StoreUnavailable: it cannot be told.
        """
        (told,) = await self._store.fields(keys.responses(tenant)[0], named)
        if told is None:
            return None
        model, asked, replica, whose = json.loads(told)
        (address,) = await self._store.fields(keys.line(model)[0], replica)
        if address is None or whose != caller:
            return None
        return Place(model, asked, replica, Address.from_json(address))
