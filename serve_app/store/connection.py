"""One store, as the rooms see it: run a step, read a hash, hear a channel.

Whatever goes wrong on the way is :class:`~serve_app.errors.StoreUnavailable`; nobody else sees an
exception of redis-py.
"""

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ConnectionError, RedisError, ResponseError

from serve_app.errors import InvalidRequest, StoreUnavailable
from serve_app.store import scripts

Reply = Any


_CURSOR = re.compile(r"(-1|[0-9]{1,17})-([ -~]{0,128})")
CONNECTIONS = 32
"""Connections to the store at most; whoever finds none free waits for one."""


class Store:
    """A connection pool to one Redis or Valkey; safe to share between tasks of one event loop."""

    def __init__(self, url: str, *, timeout_ms: int = 500) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=timeout_ms / 1_000,
            decode_responses=True,
            socket_timeout=timeout_ms / 1_000,
            socket_connect_timeout=timeout_ms / 1_000,
            retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
            health_check_interval=0,
        )
        self._redis = Redis.from_pool(pool)
        self._listening = Redis.from_url(
            url, decode_responses=True, socket_timeout=None, health_check_interval=5
        )

    async def run(self, step: str, keys: list[str], args: list[str | int | float]) -> Reply:
        """Run one atomic step of ``lua/`` and return its reply.

        Raises:
            StoreUnavailable: it may or may not have happened. The steps of the line, of keys and of
                settling may be sent again and happen once; a hold may be taken twice.
        """
        with _told():
            return await scripts.run(self._redis, step, keys, args)

    async def run_many(
        self, step: str, calls: Sequence[tuple[list[str], list[str | int | float]]]
    ) -> list[Reply]:
        """Run one step many times in one round trip; each is atomic, all of them are not.

        Raises:
            StoreUnavailable: any of them may have happened.
        """
        with _told():
            return await scripts.run_many(self._redis, step, calls)

    async def fields_of(self, names: Sequence[str], *fields: str) -> list[list[str | None]]:
        """Return the named fields of many hashes in one round trip."""
        if not names:
            return []
        with _told():
            async with self._redis.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.hmget(name, list(fields))
                return cast(list[list[str | None]], await pipe.execute())

    async def page(self, index: str, after: str, size: int) -> tuple[list[str], str]:
        """Return up to ``size`` names of ``index``, oldest first, and the cursor to go on from.

        An empty cursor begins at the beginning, or says that there is no more.

        Raises:
            InvalidRequest: ``after`` is no cursor.
            StoreUnavailable: nothing was read.
        """
        shape = _CURSOR.fullmatch(after or "-1-")
        if shape is None:
            raise InvalidRequest("'after' must be one that the last page told.", param="after")
        found = await self.run("index_page", [index], [shape[1], shape[2], size])
        more = len(found) == 2 * size
        return found[::2], f"{found[-1]}-{found[-2]}" if more else ""

    async def fields(self, key: str, *names: str) -> list[str | None]:
        """Return the named fields of a hash, None for each that is not there."""
        with _told():
            return cast(list[str | None], await self._redis.hmget(key, list(names)))

    async def exists(self, key: str) -> bool:
        """Return whether ``key`` is there."""
        with _told():
            return bool(await self._redis.exists(key))

    async def text(self, key: str) -> str | None:
        """Return a string, None if it is not there."""
        with _told():
            return cast(str | None, await self._redis.get(key))

    async def remove(self, key: str) -> None:
        """Remove ``key``, whatever it is."""
        with _told():
            await self._redis.delete(key)

    async def scores(self, key: str, *members: str) -> list[float | None]:
        """Return the members' scores in a sorted set, None for each that is not there."""
        with _told():
            return await self._redis.zmscore(key, list(members))

    async def add_score(self, key: str, member: str, score: float) -> None:
        """Put ``member`` into a sorted set unless it is there."""
        with _told():
            await self._redis.zadd(key, {member: score}, nx=True)

    async def remove_scored(self, key: str, member: str) -> None:
        """Take ``member`` out of a sorted set."""
        with _told():
            await self._redis.zrem(key, member)

    async def claim(self, key: str, value: str, *, ttl_s: int) -> bool:
        """Write ``value`` for ``ttl_s`` seconds if ``key`` is free; return whether it was."""
        with _told():
            return bool(await self._redis.set(key, value, nx=True, ex=ttl_s))

    async def claim_for_good(self, key: str, value: str) -> bool:
        """Write ``value`` for good if ``key`` is free; return whether it was."""
        with _told():
            return bool(await self._redis.set(key, value, nx=True))

    async def keep(self, key: str, value: str) -> None:
        """Write ``value`` for good."""
        with _told():
            await self._redis.set(key, value)

    async def ping(self) -> None:
        """Return if the store answers."""
        with _told():
            await self._redis.ping()

    async def hear(self, channel: str) -> AsyncIterator[str]:
        """Yield what is published on ``channel``; end when the connection is lost.

        Raises:
            StoreUnavailable: the connection could not be made or broke.
        """
        async with self._listening.pubsub(ignore_subscribe_messages=True) as heard:
            with _told():
                await heard.subscribe(channel)
                while True:
                    message = await heard.get_message(timeout=5.0)
                    if message is not None:
                        yield message["data"]

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()
        await self._listening.aclose()

    async def hashes(self, names: Sequence[str]) -> list[dict[str, str]]:
        """Return many whole hashes in one round trip; one that is not there is empty."""
        return cast(list[dict[str, str]], await self._read_each("hgetall", names))

    async def members(self, names: Sequence[str]) -> list[set[str]]:
        """Return the members of many sets in one round trip; one that is not there is empty."""
        return cast(list[set[str]], await self._read_each("smembers", names))

    async def sizes(self, names: Sequence[str]) -> list[int]:
        """Return how many members each of many sets has, in one round trip."""
        return cast(list[int], await self._read_each("scard", names))

    async def _read_each(self, command: str, names: Sequence[str]) -> list[Reply]:
        if not names:
            return []
        with _told():
            async with self._redis.pipeline(transaction=False) as pipe:
                for name in names:
                    getattr(pipe, command)(name)
                return await pipe.execute()


@contextmanager
def _told() -> Iterator[None]:
    """Turn every failure of the store into one refusal that says what to look at."""
    try:
        yield
    except AuthenticationError as err:
        raise _unavailable("refuses our user or password", err) from err
    except ResponseError as err:
        raise _unavailable("refuses the command", err) from err
    except (RedisError, OSError) as err:
        raise _unavailable("does not answer", err) from err


def _unavailable(what: str, err: Exception) -> StoreUnavailable:
    """Return the refusal; the server's own words go into the log by way of ``__cause__``."""
    return StoreUnavailable(
        f"The state store {what} ({type(err).__name__}); try again shortly.",
        retry_after_s=1.0,
    )
