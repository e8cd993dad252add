"""One store, as the rooms see it: run a step, read a hash, hear a channel.

Whatever goes wrong on the way is :class:`~serve_app.errors.StoreUnavailable`; nobody else sees an
exception of redis-py.
"""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

from serve_app.errors import InvalidRequest, StoreUnavailable
from serve_app.store import keys, scripts
from serve_app.store.guarded import Guarded, Watch
from serve_app.store.links import link_to
from serve_app.store.patience import Patience
from serve_app.store.states import FAULTS, explained, refusal, state_of

Reply = Any


_CURSOR = re.compile(r"(-1|[0-9]{1,17})-([ -~]{0,128})")
PATIENT = 10.0
"""How many times a step's time a call may take that does many things at once."""
LISTEN_S = 0.5
"""Seconds of silence after which a listener asks whether the other side is there."""


class Store:
    """Connections to one store; safe to share between tasks of one event loop.

    Args:
        url: one server, a cluster or sentinels, see :mod:`serve_app.store_place`.
        timeout_ms: how long one call may take, however it ends.
        watch: told of each call: what, its seconds, the state it ended in.

    Raises:
        ValueError: ``url`` is none; the message shows nothing of it.
    """

    def __init__(self, url: str, *, timeout_ms: int = 100, watch: Watch | None = None) -> None:
        self._timeout_s = timeout_ms / 1_000
        self._link = link_to(url, self._timeout_s)
        self._guarded = Guarded(self._link, self._timeout_s, watch or _nobody)

    @property
    def state(self) -> str:
        """``ok``, or what is the matter, as the last call or probe found it."""
        return self._guarded.state

    @property
    def message(self) -> str | None:
        """What the matter is and what to do, for people; None if all is well."""
        return explained(self.state)

    async def run(self, step: str, keys: list[str], args: list[str | int | float]) -> Reply:
        """Run one atomic step of ``lua/`` and return its reply.

        Raises:
            StoreUnavailable: it may or may not have happened. The steps of the line, of keys and of
                settling may be sent again and happen once; a hold may be taken twice.
        """
        return await self._guarded.ask(
            step, keys[0] if keys else "", lambda redis: scripts.run(redis, step, keys, args)
        )

    async def run_many(
        self, step: str, calls: Sequence[tuple[list[str], list[str | int | float]]]
    ) -> list[Reply]:
        """Run one step many times in one round trip; each is atomic, all of them are not.

        Raises:
            StoreUnavailable: any of them may have happened.
        """
        if not calls:
            return []
        return await self._guarded.ask(
            step,
            calls[0][0][0],
            lambda redis: scripts.run_many(redis, step, calls),
            patience=PATIENT,
        )

    async def run_each(
        self, step: str, calls: Sequence[tuple[list[str], list[str | int | float]]]
    ) -> list[Reply | StoreUnavailable]:
        """Run one step many times in one round trip; return what was said to each.

        Where a call alone was refused, its :class:`StoreUnavailable` stands in its place.

        Raises:
            StoreUnavailable: any of them may have happened.
        """
        told: list[Reply] = []

        async def run(redis: Any) -> None:
            told[:] = await scripts.run_each(redis, step, calls)
            scripts.must_be_answers(told)

        try:
            if calls:
                await self._guarded.ask(step, calls[0][0][0], run, patience=PATIENT)
        except StoreUnavailable:
            if not told:
                raise
        return [refusal(state_of(one), one) if isinstance(one, Exception) else one for one in told]

    def server_of(self, key: str) -> str:
        """Return which server has ``key``; empty if there is one, or nobody knows yet."""
        return self._link.server_of(key)

    async def fields_of(self, names: Sequence[str], *fields: str) -> list[list[str | None]]:
        """Return the named fields of many hashes in one round trip."""
        if not names:
            return []

        async def read(redis: Any) -> list[list[str | None]]:
            async with redis.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.hmget(name, list(fields))
                return cast(list[list[str | None]], await pipe.execute())

        return await self._guarded.ask("fields_of", names[0], read, patience=PATIENT)

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
        read = await self._guarded.ask("fields", key, lambda redis: redis.hmget(key, list(names)))
        return cast(list[str | None], read)

    async def exists(self, key: str) -> bool:
        """Return whether ``key`` is there."""
        return bool(await self._guarded.ask("exists", key, lambda redis: redis.exists(key)))

    async def text(self, key: str) -> str | None:
        """Return a string, None if it is not there."""
        read = await self._guarded.ask("text", key, lambda redis: redis.get(key))
        return cast(str | None, read)

    async def remove(self, key: str) -> None:
        """Remove ``key``, whatever it is."""
        await self._guarded.ask("remove", key, lambda redis: redis.delete(key))

    async def add_score(self, key: str, member: str, score: float) -> None:
        """Put ``member`` into a sorted set unless it is there."""
        await self._guarded.ask(
            "add_score", key, lambda redis: redis.zadd(key, {member: score}, nx=True)
        )

    async def remove_scored(self, key: str, member: str) -> None:
        """Take ``member`` out of a sorted set."""
        await self._guarded.ask("remove_scored", key, lambda redis: redis.zrem(key, member))

    async def claim(self, key: str, value: str, *, ttl_s: int) -> bool:
        """Write ``value`` for ``ttl_s`` seconds if ``key`` is free; return whether it was."""
        return bool(
            await self._guarded.ask(
                "claim", key, lambda redis: redis.set(key, value, nx=True, ex=ttl_s)
            )
        )

    async def claim_for_good(self, key: str, value: str) -> bool:
        """Write ``value`` for good if ``key`` is free; return whether it was."""
        return bool(
            await self._guarded.ask("claim", key, lambda redis: redis.set(key, value, nx=True))
        )

    async def keep(self, key: str, value: str) -> None:
        """Write ``value`` for good."""
        await self._guarded.ask("keep", key, lambda redis: redis.set(key, value))

    async def ping(self) -> None:
        """Return if the store answers, runs steps and takes writes."""
        await self.run("probe", [keys.probe("ping")], [1_000])

    async def hear(self, channel: str) -> AsyncIterator[str]:
        """Yield what is published on ``channel``; end when the connection is lost.

        Silence is not trusted: a server that does not answer for a second is taken for lost, and
        so is the connection while calls to that server are refused.

        Raises:
            StoreUnavailable: the connection could not be made or broke.
        """
        limit_s = self._timeout_s * self._link.patience
        try:
            async with Patience(limit_s):
                server, redis = await self._link.listener()
            async with redis, redis.pubsub(ignore_subscribe_messages=True) as heard:
                self._must_be_there(server)
                async with Patience(limit_s):
                    await heard.subscribe(channel)
                asked = False
                while True:
                    async with Patience(LISTEN_S + limit_s):  # it may connect anew
                        message = await heard.get_message(timeout=LISTEN_S)
                    if message is not None and message["type"] == "message":
                        yield message["data"]
                    elif message is None:
                        self._must_be_there(server, silent=asked)
                        await heard.ping()
                    asked = message is None
        except FAULTS as err:
            raise refusal(state_of(err), err) from err

    def _must_be_there(self, server: str, *, silent: bool = False) -> None:
        """Return if somebody listens to a server that may be asked; TimeoutError otherwise."""
        if silent or self._guarded.is_cut(server):
            raise TimeoutError("the listener hears nothing")

    async def close(self) -> None:
        """Close every connection."""
        await self._guarded.close()

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

        async def read(redis: Any) -> list[Reply]:
            async with redis.pipeline(transaction=False) as pipe:
                for name in names:
                    getattr(pipe, command)(name)
                return cast(list[Reply], await pipe.execute())

        return await self._guarded.ask(command, names[0], read, patience=PATIENT)


def _nobody(_step: str, _seconds: float, _state: str) -> None:
    """Watch nothing."""
