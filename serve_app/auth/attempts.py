"""Count wrong credentials per address, across gateways, and say who is blocked.

    failed          a well-formed credential that the store refused: counted there, exactly
    failed_unseen   a malformed one: counted here, told to the store within moments
    succeeded       a valid one: forgotten here, then there; nothing to do for most addresses
    tend            once a second: tell the rest, learn what other gateways saw

What the store is known to hold against an address, and what it has not been told yet, make the
*mirror*: it answers without a call. It is bounded, and so is what waits to be told; a failure is
told at least once, so a lost reply may block an address sooner, never later.
"""

import asyncio
import json
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from serve_app.auth.blocking import CLEAN, SECOND_US, Entry, Table, fail, fail_all, subject
from serve_app.auth_settings import BruteForce
from serve_app.errors import StoreUnavailable, TooManyAttempts
from serve_app.store import Store, keys

KEPT_MAX = 50_000
"""Subjects in each part of the store's table: never blocked, and blocked now or lately."""
MIRROR_MAX = 10_000
"""The same of the mirror."""
UNTOLD_MAX = 10_000
"""Subjects of whom the store has not been told; beyond, the oldest are dropped."""
UNTOLD_FAILURES = 100
"""Failures of one of them; beyond, the oldest are dropped."""
BATCH = 64
"""Subjects told in one step: about a millisecond of the store's time."""
PAGE = 128
"""Changes of each part that one step reads: less, but as long to take in here."""
STEPS_AT_ONCE = 8
"""Steps of each kind that one look takes at most; the next goes on."""
GATHER_S = 0.02
"""How long failures gather before they are told together."""

_KEYS = [keys.ATTEMPTS, keys.SUSPECTS, keys.BLOCKED]


def too_many_attempts(left_s: float) -> TooManyAttempts:
    """Return the refusal of an address that is blocked for ``left_s`` seconds more."""
    return TooManyAttempts(
        "Too many wrong credentials came from this address: logins and wrong credentials are "
        f"refused for {math.ceil(left_s)} s more; a valid key or token is served at once.",
        retry_after_s=left_s,
    )


@dataclass(slots=True)
class _Untold:
    """What the store does not know of one subject: perhaps a success, then failures, local us."""

    cleared: bool = False
    failures_us: list[int] = field(default_factory=list)

    def add(self, failures_us: list[int]) -> None:
        self.failures_us = [*self.failures_us, *failures_us][-UNTOLD_FAILURES:]


PASSWORDS = "passwords of "
"""What a guess at a login, at one's own password or at a captcha counts as."""


def _nobody(_subject: str, _block_s: float) -> None:
    """Tell nobody."""


class Attempts:
    """Who showed wrong credentials, as one gateway knows it; :meth:`close` after use.

    Args:
        store: where gateways share what they saw.
        rules: when an address is blocked.
        on_block: told a subject and the seconds of its block, by the gateway that began it.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        store: Store,
        rules: BruteForce,
        *,
        on_block: Callable[[str, float], None] = _nobody,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._rules = store, rules
        self._on_block, self._clock = on_block, clock
        self._mirror = Table()
        self._untold: OrderedDict[str, _Untold] = OrderedDict()
        self._seen_us = [0, 0]  # the last change known of each part
        self._ahead_us = 0  # the store's clock, before ours
        self._away = self._closing = False
        self._teller: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def failed(self, address: str, what: str = "") -> float:
        """Count a well-formed wrong credential; return 0.0, or the seconds left of the block.

        0.0 is a 401, anything else a 429 that did not count. An address that is known to be
        blocked costs no call.

        Raises:
            StoreUnavailable: it counts when the store is there again.
        """
        name = what + subject(address)
        if left_s := self._left_s(name):
            return left_s
        untold = self._untold.pop(name, None) or _Untold()
        untold.add([self._local_us()])
        counting = asyncio.create_task(self._tell({name: untold}))
        (left_us,) = await asyncio.shield(counting)  # also of a client that hangs up
        return left_us / SECOND_US

    def failed_unseen(self, address: str) -> float:
        """Count a malformed credential without a call; the answer is that of :meth:`failed`."""
        name, at_us = subject(address), self._local_us()
        known = self._mirror.get(name)
        said = fail(known.record, at_us + self._ahead_us, self._rules)
        if said.left_us:
            return said.left_us / SECOND_US
        self._reflect(name, Entry(known.changed_us, said.record))
        self._untold.setdefault(name, _Untold()).add([at_us])
        self._tell_soon()
        return 0.0

    def blocked_s(self, address: str, what: str = "") -> float:
        """Return the seconds left of the block, as far as this gateway knows; no call."""
        return self._left_s(what + subject(address))

    def succeeded(self, address: str, what: str = "") -> None:
        """Forget what is held against ``address``: here at once, in the store within moments.

        Args:
            address: where a good credential came from.
            what: what was guessed, if that counts apart: :data:`PASSWORDS`. Else whoever has any
                key could guess passwords for ever, showing its key between the tries.
        """
        name = what + subject(address)
        known = self._mirror.get(name)
        if known.record != CLEAN or name in self._untold:
            self._reflect(name, Entry(known.changed_us, CLEAN))
            self._untold[name] = _Untold(cleared=True)
            self._tell_soon()

    async def tend(self) -> None:
        """Tell what is untold and learn what changed.

        Raises:
            StoreUnavailable: the rest is told and learnt next time.
        """
        async with self._one_at_a_time:
            for _ in range(STEPS_AT_ONCE):
                if not self._untold:
                    break
                await self._tell(self._batch())
            for _ in range(STEPS_AT_ONCE):
                if not await self._learn():
                    break
        self._tell_soon()

    async def close(self) -> None:
        """Tell what is untold, if the store answers. Never raises."""
        self._closing = True
        if self._teller is not None:
            self._teller.cancel()
            await asyncio.gather(self._teller, return_exceptions=True)
        with suppress(StoreUnavailable):
            while self._untold:
                await self._tell(self._batch())

    def _local_us(self) -> int:
        return int(self._clock() * SECOND_US)

    def _left_s(self, name: str) -> float:
        """Return the seconds left of a block; never less than are left in the store."""
        until_us = self._mirror.get(name).record.until_us
        return max(0, until_us - self._local_us() - self._ahead_us) / SECOND_US

    def _reflect(self, name: str, entry: Entry) -> None:
        self._mirror.put(name, entry)
        self._mirror.forget(MIRROR_MAX, 1)

    def _tell_soon(self) -> None:
        """Have the untold told off the request's path; while the store is away, tend knocks."""
        while len(self._untold) > UNTOLD_MAX:
            self._untold.popitem(last=False)
        busy = self._teller is not None and not self._teller.done()
        if self._untold and not (busy or self._away or self._closing):
            self._teller = asyncio.create_task(self._tell_all())

    async def _tell_all(self) -> None:
        with suppress(StoreUnavailable):
            while self._untold:
                await asyncio.sleep(GATHER_S)  # let a batch gather
                async with self._one_at_a_time:
                    if self._untold:  # a look may have been quicker
                        await self._tell(self._batch())

    def _batch(self) -> dict[str, _Untold]:
        """Take out what waited longest."""
        number = min(BATCH, len(self._untold))
        return dict(self._untold.popitem(last=False) for _ in range(number))

    async def _tell(self, batch: dict[str, _Untold]) -> list[int]:
        """Tell the store of ``batch``; return the us left of the block that refused each last one.

        Raises:
            StoreUnavailable: the batch is untold, as it is when this is cancelled.
        """
        now_us = self._local_us()
        notes = [
            [name, int(one.cleared), *(now_us - at_us for at_us in one.failures_us)]
            for name, one in batch.items()
        ]
        ttl_us = self._rules.ttl_seconds * SECOND_US
        told: list[Any] = []
        try:
            told = await self._store.run(
                "attempt_note",
                _KEYS,
                [json.dumps(notes), self._rules.max_failed_attempts, ttl_us, KEPT_MAX],
            )
        except StoreUnavailable:
            self._away = True
            raise
        finally:
            if not told:
                self._take_back(batch)
        self._heard(told[0])
        for name, (_, block_us, state) in zip(batch, told[1:], strict=True):
            self._adopt(name, Entry.from_text(state))
            if block_us:
                self._on_block(name, block_us / SECOND_US)
        return [left_us for left_us, _, _ in told[1:]]

    def _take_back(self, batch: dict[str, _Untold]) -> None:
        """Make ``batch`` untold again, before what came since; a success since then wipes it."""
        for name, old in reversed(batch.items()):
            newer = self._untold.get(name, _Untold())
            if not newer.cleared:
                old.add(newer.failures_us)
                self._untold[name] = old
            self._untold.move_to_end(name, last=False)
        self._tell_soon()

    async def _learn(self) -> bool:
        """Read one page of changes; return whether there may be more."""
        ttl_us = self._rules.ttl_seconds * SECOND_US
        asked: list[str | int | float] = [*self._seen_us, PAGE, ttl_us, KEPT_MAX]
        try:
            now_us, *parts = await self._store.run("attempt_look", _KEYS, asked)
        except StoreUnavailable:
            self._away = True
            raise
        self._heard(now_us)
        for at, part in enumerate(parts):
            for name, state in zip(part[::2], part[1::2], strict=True):
                entry = Entry.from_text(state)
                self._adopt(name, entry)
                self._seen_us[at] = entry.changed_us
        return any(len(part) == 2 * PAGE for part in parts)

    def _heard(self, now_us: int) -> None:
        """Note that the store answered, and what its clock says."""
        self._away = False
        self._ahead_us = now_us - self._local_us()

    def _adopt(self, name: str, entry: Entry) -> None:
        """Believe what the store says unless newer is known; what is untold comes on top."""
        if entry.changed_us < self._mirror.get(name).changed_us:
            return
        record = entry.record
        if untold := self._untold.get(name):
            failures_us = [at_us + self._ahead_us for at_us in untold.failures_us]
            base = CLEAN if untold.cleared else record
            record = fail_all(base, failures_us, self._rules).record
        self._reflect(name, Entry(entry.changed_us, record))
