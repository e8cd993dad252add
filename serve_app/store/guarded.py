"""The link to the store behind its breakers: each call is bounded in time, and each failure told.

A breaker belongs to one server: of a cluster, one master's silence is not that of the others.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from serve_app.errors import StoreUnavailable
from serve_app.store import keys, scripts
from serve_app.store.breaker import Breaker
from serve_app.store.links import Link
from serve_app.store.patience import Patience
from serve_app.store.states import FAULTS, OK, explained, refusal, state_of, words_of

Answer = TypeVar("Answer")
Watch = Callable[[str, float, str], None]
"""Told of each call: what it was, how many seconds it took, and the state it ended in. A call that
was refused without being sent took nan."""

AT_A_TIME = 32
"""Calls on their way at most; whoever comes then waits for one to return."""
PROBE_TTL_MS = 1_000
UNSENT_S = float("nan")
_TAG = re.compile(r"\{([^}]+)\}")
_log = logging.getLogger("sluicegate.store")


class Guarded:
    """A link that never hangs, and leaves a server in peace that is not well."""

    def __init__(self, link: Link, timeout_s: float, watch: Watch) -> None:
        self._link, self._timeout_s, self._watch = link, timeout_s, watch
        self._turns = asyncio.Semaphore(AT_A_TIME)
        self._breakers: dict[str, Breaker] = {}
        self._mending: dict[str, asyncio.Task[None]] = {}
        self._closing = False  # the client library may swallow a cancellation

    @property
    def state(self) -> str:
        """``ok``, or what is the matter with a server; calls refused at once come first."""
        ill = [breaker for breaker in self._breakers.values() if breaker.state != OK]
        ill.sort(key=lambda breaker: not breaker.is_cut)
        return ill[0].state if ill else OK

    def is_cut(self, server: str) -> bool:
        """Return whether calls to ``server`` are refused at once."""
        return server in self._breakers and self._breakers[server].is_cut

    async def ask(
        self,
        step: str,
        key: str,
        call: Callable[[Any], Awaitable[Answer]],
        *,
        patience: float = 1.0,
    ) -> Answer:
        """Return what ``call`` does with the client.

        Args:
            step: what it is, for figures.
            key: the first key that it touches.
            call: makes it; may be cancelled at any time.
            patience: how many times the usual time it may take.

        Raises:
            StoreUnavailable: it may or may not have happened; it has not if the state was known.
        """
        server = self._link.server_of(key)
        breaker = self._breakers.get(server)
        if breaker is None:
            breaker = self._breakers[server] = Breaker()
        if breaker.position != "whole":
            self._see_to(server, breaker, key)
        if breaker.is_cut:
            self._watch(step, UNSENT_S, breaker.state)
            raise refusal(breaker.state)
        began_s = time.monotonic()
        try:
            async with Patience(self._timeout_s * patience), self._turns:
                answer = await call(self._link.client)
        except FAULTS as err:
            raise self._failed(step, server, key, began_s, err) from err
        now_s = time.monotonic()
        breaker.answered(now_s)
        self._watch(step, now_s - began_s, OK)
        return answer

    def _failed(
        self, step: str, server: str, key: str, began_s: float, err: BaseException
    ) -> StoreUnavailable:
        """Take note of a failed call, see to its server, and return what to tell the caller."""
        state, now_s = state_of(err), time.monotonic()
        self._watch(step, now_s - began_s, state)
        breaker = self._breakers[server]
        breaker.failed(state, began_s)
        if breaker.position != "whole" and server not in self._mending:
            _log.warning("%s It said: %s", explained(state), words_of(err))
            self._see_to(server, breaker, key)
        return refusal(state, err)

    def _see_to(self, server: str, breaker: Breaker, key: str) -> None:
        """Have a server probed until it is well; also again, should the probing have failed."""
        if server not in self._mending:
            mending = asyncio.create_task(self._mend(breaker, keys.probe(_tag(key))))
            self._mending[server] = mending
            mending.add_done_callback(lambda done: self._mended(server, done))

    def _mended(self, server: str, done: "asyncio.Task[None]") -> None:
        self._mending.pop(server, None)
        if not done.cancelled() and (err := done.exception()) is not None:
            _log.error(
                "probing the state store broke off; the next call has it begun again: %r", err
            )

    async def _mend(self, breaker: Breaker, probe: str) -> None:
        """Probe a server until it is well, the first time at once, one probe at a time."""
        while breaker.position != "whole" and not self._closing:
            await asyncio.sleep(breaker.wait_s(time.monotonic()))
            began_s = time.monotonic()
            breaker.probing(began_s)
            try:
                async with Patience(self._timeout_s * self._link.patience):
                    await self._link.open()
                    await scripts.run(self._link.client, "probe", [probe], [PROBE_TTL_MS])
            except FAULTS as err:
                breaker.failed(state_of(err), began_s)
                await self._link.drop()
            else:
                breaker.well(time.monotonic())
        if not self._closing:
            _log.warning("The state store is well again.")

    async def close(self) -> None:
        """Probe no more, and close every connection."""
        self._closing = True
        for mending in list(self._mending.values()):
            mending.cancel()
        await asyncio.gather(*self._mending.values(), return_exceptions=True)
        await self._link.close()


def _tag(key: str) -> str:
    """Return what decides on which server of a cluster ``key`` lies."""
    found = _TAG.search(key)
    return found[1] if found else key
