"""What could not be settled because the store was away, until it is paid; and steps in batches."""

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping
from itertools import islice
from typing import TypeVar

from serve_app.errors import StoreUnavailable
from serve_app.store import Store

AT_ONCE = 256
"""Steps that are sent in one round trip."""

PAID_MAX = 16 * AT_ONCE
"""Steps that one payment tries, so that it takes a fraction of a second."""

OWED_MAX = 100_000
TRIES = 20
"""Times that a step is sent which the server refuses to run; five seconds of a gateway's looks."""

SAID_EVERY_S = 60.0

Step = tuple[list[str], list[str | int | float]]
_Name = TypeVar("_Name", bound=Hashable)
_log = logging.getLogger("sluicegate.limits")


class Owed:
    """Steps *settle* that are to be sent again, each until it was answered.

    What cannot be paid now goes behind the rest, so that neither a server that is away nor a step
    that is always refused holds back the others.

    Args:
        clock: monotonic, seconds.

    Attributes:
        lost: how many were given up: too many at once, or always refused.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._steps: OrderedDict[int, Step] = OrderedDict()
        self._refused = Counter[int]()
        self._number = self.lost = self._said = 0
        self._said_s = clock() - SAID_EVERY_S

    def __len__(self) -> int:
        return len(self._steps)

    def append(self, step: Step) -> None:
        """Owe one more; beyond :data:`OWED_MAX` the first in line is lost."""
        if len(self._steps) >= OWED_MAX:
            self._lose(next(iter(self._steps)))
        self._number += 1
        self._steps[self._number] = step

    async def pay(self, store: Store) -> None:
        """Send up to :data:`PAID_MAX` of what is owed.

        Raises:
            StoreUnavailable: some could not be sent; they are still owed.
        """
        self._say()
        steps = dict(islice(self._steps.items(), PAID_MAX))
        failed = await sent(store, "settle", steps)
        for number in steps.keys() - failed.keys():
            self._steps.pop(number, None)
            del self._refused[number]
        away = [err for number, err in failed.items() if not self._is_refused(number, err)]
        if away:
            raise away[0]

    def _is_refused(self, number: int, err: StoreUnavailable) -> bool:
        """Put a step behind the rest; return whether it was refused, and lose it if too often."""
        if number in self._steps:
            self._steps.move_to_end(number)
        refused = (err.details or {}).get("state") == "command_refused"
        self._refused[number] += refused
        if self._refused[number] >= TRIES:
            mark = self._lose(number)
            _log.error("%s cannot be settled and is given up: %s", mark, err)
        return refused

    def _lose(self, number: int) -> str:
        """Forget a step; return the name of its mark, which names the request."""
        self.lost += 1
        del self._refused[number]
        names, _ = self._steps.pop(number, ([""], []))
        return names[0]

    def _say(self) -> None:
        """Say, once a minute, how many were lost."""
        now_s = self._clock()
        if self.lost > self._said and now_s - self._said_s >= SAID_EVERY_S:
            told = "%d requests were not charged: too many were to be settled, or were refused"
            _log.error(told, self.lost - self._said)
            self._said, self._said_s = self.lost, now_s


async def sent(
    store: Store, step: str, calls: Mapping[_Name, Step]
) -> dict[_Name, StoreUnavailable]:
    """Run one step for each of ``calls``, in batches for each server; return those that failed.

    A server that is away fails its own alone, and is asked once.
    """
    shares: dict[str, list[_Name]] = {}
    for name, (names, _) in calls.items():
        shares.setdefault(store.server_of(names[0]), []).append(name)
    failed: dict[_Name, StoreUnavailable] = {}
    for share in shares.values():
        for at in range(0, len(share), AT_ONCE):
            some = share[at : at + AT_ONCE]
            try:
                told = await store.run_each(step, [calls[name] for name in some])
            except StoreUnavailable as err:
                failed |= dict.fromkeys(share[at:], err)
                break
            pairs = zip(some, told, strict=True)
            failed |= {name: one for name, one in pairs if isinstance(one, StoreUnavailable)}
    return failed
