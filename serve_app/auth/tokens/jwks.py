"""An issuer's key set: read, fetched, and fetched again when that is due.

One :class:`FetchedKeys` serves all requests of a gateway. Requests wait for a fetch only when no
key they know fits; whoever waits, waits for the same one.
"""

import asyncio
import json
import logging
from collections.abc import Collection, Sequence
from http import HTTPStatus
from typing import Any, Self

import aiohttp

from serve_app.auth.tokens.signature import Entry, Key, entry

FRESH_S = 600
"""How old a set in use may get before it is fetched again, beside the requests."""
RETRY_S = 60
"""The least time between two fetches, however many tokens name keys that are not in the set."""
FIRST_RETRY_S = 5
"""The same while there is no set at all."""
FETCH_S = 5.0
MAX_BYTES = 262_144
MAX_KEYS = 100
_log = logging.getLogger("sluicegate.auth")


class UnfitSetError(ValueError):
    """What came is no key set; the sentence says why and shows nothing of it."""


class KeySet:
    """The usable keys of one set.

    Args:
        entries: its keys, each once.
        unused: how many it has beside them.
    """

    def __init__(self, entries: Collection[Entry], *, unused: int) -> None:
        self.entries = frozenset(entries)
        self.unused = unused
        self._named: dict[tuple[str, str], list[Key]] = {}
        self._all: dict[str, list[Key]] = {}
        for one in self.entries:
            for algorithm in one.algorithms:
                self._all.setdefault(algorithm, []).append(one.key)
                if one.kid is not None:
                    self._named.setdefault((algorithm, one.kid), []).append(one.key)

    @classmethod
    def read(cls, body: bytes, algorithms: Collection[str]) -> Self:
        """Return the keys in ``body`` that fit one of ``algorithms``.

        Raises:
            UnfitSetError: it is no key set, or has more than ``MAX_KEYS`` keys.
        """
        try:
            told: Any = json.loads(body)
        except (ValueError, RecursionError):
            raise UnfitSetError("it is not JSON") from None
        keys = told.get("keys") if isinstance(told, dict) else None
        if not isinstance(keys, list):
            raise UnfitSetError("it has no list of keys")
        if len(keys) > MAX_KEYS:
            raise UnfitSetError(f"it has more than {MAX_KEYS} keys")
        found = [one for jwk in keys if (one := entry(jwk, algorithms))]
        return cls(set(found), unused=len(keys) - len(found))

    def fitting(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """Return the keys named ``kid``; for a token that names none, the only one that fits."""
        if kid is not None:
            return self._named.get((algorithm, kid), ())
        found = self._all.get(algorithm, ())
        return found if len(found) == 1 else ()


class FetchedKeys:
    """An issuer's keys behind a URL.

    The last set stays until a newer one has come, however long the URL is down.

    Args:
        url: where the set is; redirects are not followed, nor proxies of the environment used.
        algorithms: what the issuer signs with.
        issuer: its name, for the log.
        timeout_s: what one fetch may take in all.
    """

    def __init__(
        self, url: str, algorithms: Collection[str], *, issuer: str, timeout_s: float = FETCH_S
    ) -> None:
        self.generation = 0
        self._url = url
        self._algorithms = tuple(algorithms)
        self._issuer = issuer
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._set = KeySet([], unused=0)
        self._asked_s: float | None = None
        self._fetched_s: float | None = None
        self._complained_s: float | None = None
        self._fetch: asyncio.Task[None] | None = None

    @property
    def known(self) -> bool:
        """Whether a set has ever come."""
        return self._fetched_s is not None

    def fitting(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """Return the keys that may have signed a token with this header."""
        return self._set.fitting(algorithm, kid)

    def used(self, now_s: float) -> None:
        """Fetch the set anew beside the requests if it is old; returns at once."""
        if self.known and _is_past(self._fetched_s, FRESH_S, now_s):
            self._begin(now_s)

    async def renewed(self, now_s: float) -> bool:
        """Wait for a fetch, one under way or a new one if due; return whether the keys changed.

        Cancelling this leaves the fetch to the others.
        """
        before = self.generation
        self._begin(now_s)
        if self._fetch is not None:
            await asyncio.shield(self._fetch)
        return self.generation != before

    async def close(self) -> None:
        """Stop a fetch under way."""
        if self._fetch is not None:
            self._fetch.cancel()
            await asyncio.wait([self._fetch])

    def _begin(self, now_s: float) -> None:
        """Begin a fetch, unless one is under way or was begun lately."""
        wait_s = RETRY_S if self.known else FIRST_RETRY_S
        if self._fetch is None and _is_past(self._asked_s, wait_s, now_s):
            self._asked_s = now_s
            self._fetch = asyncio.create_task(self._renew(now_s))

    async def _renew(self, now_s: float) -> None:
        try:
            found = await asyncio.to_thread(KeySet.read, await self._body(), self._algorithms)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as err:
            self._complain(err, now_s)
        else:
            self._take(found, now_s)
        finally:
            self._fetch = None

    async def _body(self) -> bytes:
        """Return what the URL answers, as it stands there.

        Raises:
            UnfitSetError: it is too large, or no 200.
            aiohttp.ClientError, TimeoutError, OSError: the URL cannot be reached in time.
        """
        async with (
            aiohttp.ClientSession(
                timeout=self._timeout,
                trust_env=False,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            ) as session,
            session.get(
                self._url,
                allow_redirects=False,
                headers={"accept": "application/json", "accept-encoding": "identity"},
            ) as reply,
        ):
            if reply.status != HTTPStatus.OK:
                raise UnfitSetError(f"its URL answers {reply.status}")
            body = bytearray()
            async for chunk in reply.content.iter_any():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise UnfitSetError(f"it is larger than {MAX_BYTES} bytes")
            return bytes(body)

    def _take(self, found: KeySet, now_s: float) -> None:
        """Keep a set that has come; the cache of verified tokens notices if it is another."""
        if self._complained_s is not None:
            _log.warning("the key set of issuer %s is here again", self._issuer)
            self._complained_s = None
        if not self.known or found.entries != self._set.entries:
            self.generation += 1
            if found.unused or not found.entries:
                _log.warning(
                    "the key set of issuer %s has %d keys to use and %d that cannot be used",
                    self._issuer,
                    len(found.entries),
                    found.unused,
                )
        self._set, self._fetched_s = found, now_s

    def _complain(self, err: Exception, now_s: float) -> None:
        """Say in the log, once a minute at most, that the set could not be fetched."""
        if _is_past(self._complained_s, RETRY_S, now_s):
            self._complained_s = now_s
            why = str(err) if isinstance(err, UnfitSetError) else type(err).__name__
            kept = "the last one stays in use" if self.known else "its tokens are refused"
            _log.warning("the key set of issuer %s: %s; %s", self._issuer, why, kept)


def _is_past(then_s: float | None, after_s: float, now_s: float) -> bool:
    """Return whether ``then_s`` is ``after_s`` away, also if the clock was set back since."""
    return then_s is None or abs(now_s - then_s) >= after_s
