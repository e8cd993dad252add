"""The connections to all engines: those that are free are used again, the youngest first."""

import asyncio
from functools import partial

from serve_app.ingress.upstream.connection import Connection

CONNECT_S = 3.0
FREE_S = 4.0
"""So long a free connection is used again; an engine hangs up after five seconds."""

At = tuple[str, int]


class Connections:
    """Lends connections, each to one request at a time."""

    def __init__(self) -> None:
        self._free: dict[At, dict[Connection, None]] = {}
        self._lent: dict[Connection, At] = {}

    async def take(self, host: str, port: int) -> Connection:
        """Return a connection that is the caller's until it is given back.

        Raises:
            OSError: nobody listens there, or nobody within ``CONNECT_S``.
        """
        at, loop = (host, port), asyncio.get_running_loop()
        while free := self._free.get(at):
            connection, _ = free.popitem()
            if loop.time() - connection.used_s < FREE_S:
                break
            connection.close()
        else:
            async with asyncio.timeout(CONNECT_S):
                made = partial(Connection, self._forget)
                _, connection = await loop.create_connection(made, *at)
        self._lent[connection] = at
        return connection

    def give_back(self, connection: Connection) -> None:
        """Take a connection back; one with a reply that has not ended is closed."""
        at = self._lent.pop(connection, None)
        if connection.freed() and at is not None:
            self._free.setdefault(at, {})[connection] = None

    def close(self) -> None:
        """Close every connection, also those that are lent."""
        for connection in [*self._lent, *(one for free in self._free.values() for one in free)]:
            connection.close()
        self._lent.clear()
        self._free.clear()

    def _forget(self, lost: Connection) -> None:
        """Keep nothing of a connection, nor of an engine to which there is none."""
        self._lent.pop(lost, None)
        for at in [at for at, free in self._free.items() if lost in free]:
            del self._free[at][lost]
        for at in [at for at, free in self._free.items() if not free]:
            del self._free[at]
