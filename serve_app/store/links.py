"""The three ways to a store: one server, a Redis Cluster, a server that sentinels name.

Each is made by :func:`link_to` and closed by its ``close``. A link opens connections when they are
needed, and asks again for the primary, or for who has which slots, when a connection fails.
"""

import random
from collections.abc import Callable
from typing import Any, Protocol

from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedSSLConnection
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisClusterException

from serve_app.store_place import Place, place_of

CONNECTIONS = 36
"""Connections to one server at most; more than calls at a time, so that a probe finds one."""
LISTENING = {"protocol": 2, "socket_timeout": None}
"""A listener is silent for as long as nobody publishes; its pings are answered in RESP2's words."""


class Link(Protocol):
    """A way to the store."""

    client: Any
    """The client library's, on which the commands are."""

    patience: float
    """How many times a call's patience a probe may take: it may have to find the servers first."""

    async def open(self) -> None:
        """Find out which servers there are, if that is not known."""

    def server_of(self, key: str) -> str:
        """Return which server has ``key``; empty if there is one, or nobody knows yet."""

    async def drop(self) -> None:
        """Close idle connections: a server that did not answer on one may have lost them all."""

    async def listener(self) -> tuple[str, Redis]:
        """Return a server and its client for one subscription; whoever asks closes it."""

    async def close(self) -> None:
        """Close every connection."""


def link_to(url: str, timeout_s: float) -> Link:
    """Return a link to the store at ``url``; nothing is opened yet.

    Args:
        url: see :mod:`serve_app.store_place`.
        timeout_s: what connecting, and each answer of a sentinel or a cluster's node, may take.

    Raises:
        ValueError: it is no such URL; the message shows nothing of it.
    """
    place = place_of(url)
    kinds: dict[str, Callable[[Place, float], Link]] = {
        "server": _Server,
        "cluster": _Cluster,
        "sentinel": _Sentinels,
    }
    return kinds[place.kind](place, timeout_s)


def _options(place: Place, timeout_s: float) -> dict[str, Any]:
    """Return what every connection to ``place`` is made with; of TLS only its options."""
    options: dict[str, Any] = {
        **parse_url(place.url),
        "decode_responses": True,
        "socket_timeout": None,  # who calls has a time limit of its own
        "socket_connect_timeout": timeout_s,
        "health_check_interval": 0,
        "retry": Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
    }
    return options


class _Server:
    """One server."""

    patience = 1.0

    def __init__(self, place: Place, timeout_s: float) -> None:
        self._options = _options(place, timeout_s)
        pool = ConnectionPool(max_connections=CONNECTIONS, **self._options)
        self.client: Redis = Redis.from_pool(pool)

    async def open(self) -> None:
        return

    def server_of(self, key: str) -> str:  # noqa: ARG002 - there is one
        return ""

    async def drop(self) -> None:
        await self.client.connection_pool.disconnect(inuse_connections=False)

    async def listener(self) -> tuple[str, Redis]:
        return "", Redis.from_pool(ConnectionPool(**{**self._options, **LISTENING}))

    async def close(self) -> None:
        await self.client.aclose()


class _Sentinels:
    """The server that sentinels name."""

    patience = 2.0

    def __init__(self, place: Place, timeout_s: float) -> None:
        self._place, options = place, _options(place, timeout_s)
        tls = options.pop("connection_class", None) is SSLConnection
        for name in ("host", "port"):
            options.pop(name, None)
        self._options = options | (
            {"connection_class": SentinelManagedSSLConnection} if tls else {}
        )
        ssl = {name: value for name, value in options.items() if name.startswith("ssl_")}
        each_s = timeout_s / (len(place.hosts) + 1)  # a silent one must not use up all the time
        own = {
            "decode_responses": True,
            "socket_timeout": each_s,
            "socket_connect_timeout": each_s,
            "retry": Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
            **({"ssl": True, **ssl} if tls else {}),
            **place.sentinel,
        }
        sentinel: Any = Sentinel  # untyped
        self._sentinel = sentinel(list(place.hosts), sentinel_kwargs=own)
        self.client = self._to_primary(max_connections=CONNECTIONS)

    def _to_primary(self, **more: Any) -> Redis:
        pool: Any = SentinelConnectionPool  # untyped
        return Redis.from_pool(
            pool(self._place.service, self._sentinel, **{**self._options, **more})
        )

    async def open(self) -> None:
        return

    def server_of(self, key: str) -> str:  # noqa: ARG002 - there is one at a time
        return ""

    async def drop(self) -> None:
        await self.client.connection_pool.disconnect(inuse_connections=False)

    async def listener(self) -> tuple[str, Redis]:
        return "", self._to_primary(**LISTENING)

    async def close(self) -> None:
        await self.client.aclose()
        await self._sentinel.aclose()


class _Cluster:
    """The masters of a cluster."""

    patience = 10.0

    def __init__(self, place: Place, timeout_s: float) -> None:
        options = _options(place, timeout_s)
        tls = options.pop("connection_class", None) is SSLConnection
        options.pop("db", None)
        for name in ("host", "port"):
            options.pop(name, None)
        # The client asks anew who has which slots only after an error that it saw itself.
        self._options = options | {"ssl": tls, "socket_timeout": timeout_s * 0.8}
        nodes = [ClusterNode(*host) for host in place.hosts]
        self.client: RedisCluster = RedisCluster(
            startup_nodes=nodes, max_connections=CONNECTIONS, **self._options
        )

    async def open(self) -> None:
        await self.client.initialize()

    def server_of(self, key: str) -> str:
        try:
            node = self.client.get_node_from_key(key)
        except RedisClusterException:
            return ""
        return "" if node is None else node.name

    async def drop(self) -> None:
        return  # the client does it itself, of the node that failed

    async def listener(self) -> tuple[str, Redis]:
        """Return a client of any master: what is published in a cluster is heard everywhere."""
        await self.open()
        primaries = self.client.get_primaries()
        if not primaries:
            raise ConnectionError("no primary is known")
        node = random.choice(primaries)
        options = {**self._options, **LISTENING}
        return node.name, Redis(host=node.host, port=int(node.port), **options)

    async def close(self) -> None:
        nodes = [*self.client.get_nodes(), *self.client.nodes_manager.startup_nodes.values()]
        await self.client.aclose()
        for node in nodes:  # the client leaves them open when it is about to look for nodes anew
            await node.disconnect()
