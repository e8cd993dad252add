"""Waiting for a limit, without a store: a bucket that refills in real time, and quickly."""

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from serve_app.allowance import KINDS
from serve_app.auth import Caller
from serve_app.errors import Unauthenticated
from serve_app.ingress.bill import Bill
from serve_app.ingress.patience import Patience
from serve_app.limits import Hold, Said, State
from serve_app.settings import QueueClass

PER_MINUTE = next(kind for kind in KINDS if kind.name == "requests_per_minute")
PER_DAY = next(kind for kind in KINDS if kind.name == "requests_per_day")
CLAIM: Any = None
WAITS = Caller("default", "k", frozenset(), over_limit_waits=True)


@dataclass
class Bucket:
    """One request at once, the next ``every_s`` later; notes who was let in."""

    every_s: float
    caller: Caller = WAITS
    class_: QueueClass = field(default_factory=lambda: QueueClass(name="c", max_wait_s=1.0))
    kind: Any = PER_MINUTE
    free_s: float = 0.0
    asked: int = 0
    served: list[int] = field(default_factory=list)

    async def ask(self, number: int) -> Bill:
        self.asked += 1
        now_s = time.monotonic()
        wait_s = max(self.free_s - now_s, 0.0)
        if wait_s == 0:
            self.free_s = now_s + self.every_s
            self.served.append(number)
        limit = round(60 / self.every_s)
        said = Said("key", self.kind, False, limit, 1, 0, -(-int(wait_s * 1e9) // 1_000), 0)
        refusing = said if wait_s else None
        held = Hold(CLAIM, State.KNOWN, said=(said,), refusing=refusing)
        return Bill(self.caller, self.class_, held)

    async def come(self, patience: Patience, number: int) -> Bill:
        return await patience.held("k", lambda: self.ask(number))


async def test_all_who_wait_are_let_in_in_the_order_in_which_they_came() -> None:
    """Also those who come when the bucket has just refilled: they stand behind who waits."""
    bucket, patience = Bucket(0.02), Patience()
    tasks = []
    for number in range(20):
        tasks.append(asyncio.create_task(bucket.come(patience, number)))
        await asyncio.sleep(0.005)  # they come four times as fast as they are served
    bills = await asyncio.gather(*tasks)
    assert bucket.served == [*range(20)]
    assert all(bill.held.refusing is None for bill in bills)
    assert patience._turns == {}


async def test_who_would_wait_too_long_is_told_at_once_for_how_long() -> None:
    """A fifth of a second each and some more than one: five wait, six are told the truth."""
    bucket, patience = Bucket(0.2, class_=QueueClass(name="c", max_wait_s=1.19)), Patience()
    await bucket.come(patience, 0)
    began_s = time.monotonic()
    waiting = [asyncio.create_task(bucket.come(patience, number)) for number in range(1, 12)]
    done, _ = await asyncio.wait(waiting, timeout=0.1)
    assert len(done) == 6
    for one in done:
        said = one.result().held.refusing
        assert said is not None
        assert 1.1e6 < said.wait_us <= 1.2e6
    await asyncio.gather(*waiting)
    assert time.monotonic() - began_s < 1.6
    assert len(bucket.served) == 6


@pytest.mark.parametrize(
    "bucket",
    [
        pytest.param(Bucket(0.02, caller=replace(WAITS, over_limit_waits=False)), id="will not"),
        pytest.param(Bucket(5.0), id="too long"),
        pytest.param(Bucket(5.0, kind=PER_DAY), id="a day"),
        pytest.param(Bucket(0.02, class_=QueueClass(name="c", max_tickets=0)), id="no room"),
    ],
)
async def test_who_need_not_wait_is_asked_for_once(bucket: Bucket) -> None:
    """Refused at once, by one call of the store: who would not, who may not, who would too long."""
    patience = Patience()
    await bucket.come(patience, 0)
    refused = await bucket.come(patience, 1)
    assert refused.held.refusing is not None
    assert bucket.asked == 2
    assert patience._turns == {}


async def test_who_hangs_up_leaves_its_turn_to_the_next() -> None:
    """Nothing is left of who waited, and nobody waits for it."""
    bucket, patience = Bucket(0.05), Patience()
    await bucket.come(patience, 0)
    first, second = (asyncio.create_task(bucket.come(patience, n)) for n in (1, 2))
    await asyncio.sleep(0.01)  # both wait now
    first.cancel()
    began_s = time.monotonic()
    assert (await second).held.refusing is None
    assert time.monotonic() - began_s < 0.2
    assert bucket.served == [0, 2]
    assert patience._turns == {}


async def test_what_asks_the_store_is_never_broken_off() -> None:
    """It was, at the deadline, and undone while the same request asked again."""
    ended = []

    class Slow(Bucket):
        async def ask(self, number: int) -> Bill:
            bill = await super().ask(number)
            await asyncio.sleep(0.4 if self.asked > 2 else 0.0)  # a store that takes its time
            ended.append(number)
            return bill

    bucket, patience = Slow(0.2, class_=QueueClass(name="c", max_wait_s=0.3)), Patience()
    await bucket.come(patience, 0)
    assert (await bucket.come(patience, 1)).held.refusing is None
    assert (bucket.asked, ended, bucket.served) == (3, [0, 1, 1], [0, 1])
    assert patience._turns == {}


async def test_who_would_wait_less_than_its_class_lets_it_is_refused_then() -> None:
    """Also in a turn that somebody more patient opened, and one that it opened itself."""
    bucket, patience = Bucket(0.2), Patience()
    await bucket.come(patience, 0)
    hasty = await patience.held("k", lambda: bucket.ask(1), most_s=0.05)
    assert hasty.held.refusing is not None
    assert (bucket.asked, patience._turns) == (2, {})
    opened = asyncio.create_task(patience.held("k", lambda: bucket.ask(2), most_s=0.3))
    await asyncio.sleep(0.01)  # it waits now, and would for no longer than 0.3 s
    patient = asyncio.create_task(bucket.come(patience, 3))
    await asyncio.sleep(0.01)  # it stands behind
    began_s = time.monotonic()
    hasty = await patience.held("k", lambda: bucket.ask(4), most_s=0.1)
    assert hasty.held.refusing is not None
    assert time.monotonic() - began_s < 0.15
    assert (await opened).held.refusing is None
    assert (await patient).held.refusing is None
    assert bucket.served == [0, 2, 3]


@pytest.mark.parametrize("kind", [PER_MINUTE, PER_DAY])
async def test_who_waits_for_nothing_is_let_in_or_refused_at_once(kind: Any) -> None:
    """A wait of 0 seconds; alone, and behind somebody who waits."""
    bucket, patience = Bucket(0.3, kind=kind), Patience()
    first = await patience.held("k", lambda: bucket.ask(0), most_s=0.0)
    assert first.held.refusing is None
    waiting = asyncio.create_task(bucket.come(patience, 1))
    await asyncio.sleep(0.01)  # it waits now
    began_s = time.monotonic()
    refused = await patience.held("k", lambda: bucket.ask(2), most_s=0.0)
    assert refused.held.refusing is not None
    assert time.monotonic() - began_s < 0.1
    await waiting
    assert bucket.served == [0, 1]


async def test_only_who_is_proven_alike_joins_a_turn() -> None:
    """Another proof of the same caller is asked about at once, whoever waits."""
    bucket, patience = Bucket(0.3), Patience()
    await bucket.come(patience, 0)
    waiting = asyncio.create_task(bucket.come(patience, 1))
    await asyncio.sleep(0.05)  # it waits now

    async def stranger() -> Bill:
        raise Unauthenticated("nobody we know")

    with pytest.raises(Unauthenticated):
        await asyncio.wait_for(patience.held("forged", stranger), 0.1)
    assert not waiting.done()
    assert (await waiting).held.refusing is None
