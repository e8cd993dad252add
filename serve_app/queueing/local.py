"""Seats while the store is away: each gateway lends its share of those it last heard of.

What the store lent to this gateway before counts as part of its share. There is no line: whoever
finds no seat asks again, and asks the store first, until its class's patience ends.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping

ASK_AGAIN_S = 0.05


class LocalSeats:
    """The seats that one gateway lends while its store is away.

    Args:
        open_: whether it lends any; if not, nobody is seated while the store is away.
    """

    def __init__(self, *, open_: bool) -> None:
        self.open = open_
        self._info: dict[str, Mapping[str, str]] = {}
        self._seats: dict[str, Mapping[str, str]] = {}
        self._gateways: dict[str, int] = {}
        self._lent: dict[str, str] = {}
        self._running: Counter[str] = Counter()

    def know(
        self, model: str, info: Mapping[str, str], seats: Mapping[str, str], *, gateways: int
    ) -> None:
        """Remember the replicas of ``model``; one that lends nothing needs to know none.

        Args:
            model: its name.
            info: how to reach each replica, as the registry keeps it.
            seats: how many each offers.
            gateways: how many gateways share them.
        """
        if not self.open:
            return
        self._info[model], self._seats[model] = info, seats
        self._gateways[model] = max(gateways, 1)

    def has(self, model: str) -> bool:
        """Return whether waiting for a seat of ``model`` makes sense: it has a replica."""
        return bool(self._info.get(model))

    async def take(
        self, ticket: str, model: str, *, avoid: str, patience_s: float
    ) -> tuple[str, str] | None:
        """Return a seat's replica and how to reach it; None if there is none in time."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + patience_s
        while (found := self._roomiest(model, avoid)) is None:
            if not self.has(model) or loop.time() >= deadline_s:
                return None
            await asyncio.sleep(ASK_AGAIN_S)
        self.lent(ticket, found)
        return found, self._info[model][found]

    def lent(self, ticket: str, replica: str) -> None:
        """Take note that ``ticket`` has a seat on ``replica``, whoever lent it; it must leave."""
        if self.open and ticket not in self._lent:
            self._lent[ticket] = replica
            self._running[replica] += 1

    def leave(self, ticket: str) -> None:
        """Give the seat of ``ticket`` back, if it has one."""
        replica = self._lent.pop(ticket, None)
        if replica is not None:
            self._running[replica] -= 1
            if not self._running[replica]:
                del self._running[replica]

    def _roomiest(self, model: str, avoid: str) -> str | None:
        """Return the replica with the most room, another than ``avoid`` if there is one."""
        count, seats = self._gateways.get(model, 1), self._seats.get(model, {})
        room = {
            replica: int(seats.get(replica, 0)) // count - self._running[replica]
            for replica in self._info.get(model, {})
        }
        free = [replica for replica in room if room[replica] > 0]
        return max(free, key=lambda replica: (replica != avoid, room[replica]), default=None)
