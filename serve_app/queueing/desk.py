"""The line as operators see it, and what they may do to it."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from serve_app.queueing.order.state import MILLION
from serve_app.queueing.seat import ClassLoad, Load, Waiting
from serve_app.settings import QueueClass
from serve_app.store import Store, keys, registry

_PUBLIC = re.compile(r"([0-9a-f]{16})-([0-9]{1,12})")


def rules_of(classes: Sequence[QueueClass]) -> str:
    """Return the rules of the classes as the steps take them."""
    return json.dumps(
        [
            [
                round(one.max_seats * MILLION),
                round(one.promote_after_s * MILLION),
                one.max_tickets,
                one.max_bytes,
            ]
            for one in classes
        ]
    )


def public_id(ticket: str) -> str:
    """Return what operators call a ticket."""
    channel, _, number = ticket.rpartition("/")
    return f"{channel.rpartition(':')[2]}-{number}"


def ticket_of(public: str) -> str | None:
    """Return the ticket that operators call so; None if none can be."""
    found = _PUBLIC.fullmatch(public)
    return f"{keys.wake_channel(found[1])}/{found[2]}" if found else None


class Desk:
    """Every model's line: looked at, paused, resumed, drained; a ticket taken out.

    Args:
        store: where the lines are.
        models: their names.
        classes: highest first.
    """

    def __init__(self, store: Store, models: Iterable[str], classes: Sequence[QueueClass]) -> None:
        self._store = store
        self._keys = {model: keys.line(model) for model in models}
        self._ranks = [one.name for one in classes]
        self._rules = rules_of(classes)
        self._release = ""

    async def look(self, model: str) -> Load:
        """Return what the store counts of ``model`` now.

        Raises:
            StoreUnavailable: nobody can tell.
        """
        load, _ = await self._counted(model, "")
        return load

    async def _counted(self, model: str, channel: str) -> tuple[Load, bool]:
        """Return the same, and whether the gateway that shows its channel was not known before."""
        told = await self._store.run("line_tend", self._keys[model], [channel, self._rules])
        mode, lent, replicas, seats, gateways, new, freed, *each = told
        classes = tuple(map(_class_load, self._ranks, each))
        failing = "" if replicas else await registry.failure(self._store, model, self._release)
        return Load(
            running=lent,
            waiting=sum(one.waiting for one in classes),
            replicas=replicas,
            seats=seats,
            oldest_ms=max(one.oldest_ms for one in classes),
            drain_per_s=float(freed),
            failing=failing,
            gateways=gateways,
            mode=mode,
            classes=classes,
        ), bool(new)

    async def waiting(self, model: str, most: int = 100) -> list[Waiting]:
        """Return the requests that wait, at most ``most`` of each class, the oldest first.

        Raises:
            StoreUnavailable: nobody can tell.
        """
        found: list[Waiting] = []
        for rank in range(len(self._ranks)):
            found += await self._page(model, rank, most, "")
        return sorted(found, key=lambda one: one.arrived_us)

    async def whose(self, ticket: str) -> Waiting | None:
        """Return the request that operators call ``ticket``; None if it does not wait.

        Raises:
            StoreUnavailable: nobody can tell.
        """
        name = ticket_of(ticket)
        for model in self._keys if name else ():
            if found := await self._page(model, 0, 1, name or ""):
                return found[0]
        return None

    async def _page(self, model: str, rank: int, size: int, ticket: str) -> list[Waiting]:
        told: list[list[Any]] = await self._store.run(
            "line_page", self._keys[model], [rank, size, ticket]
        )
        return [
            Waiting(
                public_id(name),
                model,
                self._ranks[min(int(class_), len(self._ranks) - 1)],
                tenant,
                caller,
                int(arrived_us),
                int(deadline_us),
                int(cost),
                int(body_bytes),
            )
            for name, class_, tenant, caller, arrived_us, deadline_us, cost, body_bytes in told
        ]

    async def set_mode(self, model: str, mode: str) -> str:
        """Set ``model`` to ``open``, ``paused`` or ``draining``; return what it was before.

        Raises:
            StoreUnavailable: it may have happened.
        """
        return str(await self._store.run("line_mode", self._keys[model], [mode]))

    async def cancel(self, ticket: str) -> tuple[str, str, str] | None:
        """Take a waiting request out of its line; its gateway answers it.

        Returns the model, the tenant and the caller; None if it does not wait.

        Raises:
            StoreUnavailable: it may have happened.
        """
        name = ticket_of(ticket)
        for model, names in self._keys.items() if name else ():
            if whose := await self._store.run("line_cancel", names, [name or ""]):
                return model, whose[0], whose[1]
        return None


def _class_load(name: str, told: list[Any]) -> ClassLoad:
    waiting, body_bytes, running, oldest_ms, wait_ms = told
    return ClassLoad(name, waiting, body_bytes, running, max(oldest_ms, 0), float(wait_ms) or None)
