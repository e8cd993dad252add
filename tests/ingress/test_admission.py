"""Letting callers in, on a real store: what is held is given back, whatever breaks."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest

from serve_app import auth
from serve_app.errors import RateLimited, Unauthenticated
from serve_app.ingress.admission import admitted, credential_of, turn_of
from serve_app.ingress.bill import Bill
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.reading.call import Call, read
from serve_app.ingress.wish import Wish
from serve_app.limits import Hold, Holds
from serve_app.settings import QueueClass
from serve_app.store import Store, keys
from tests.ingress.admin.test_ledger import CHAT, PLAIN, House, house

__all__ = ["house"]
ONE = {"requests_per_minute": {"limit": 60, "burst": 1}}
"""One at once, the next a second later."""


@dataclass
class Visit:
    """One request of a key, as it stands before the limits."""

    house: House
    exchange: Exchange
    call: Call

    @classmethod
    def of(cls, house: House, key: str) -> "Visit":
        house.gate.classes = {"standard": QueueClass(name="standard", max_wait_s=20.0)}
        headers = [(b"authorization", f"Bearer {key}".encode())]
        scope = {"method": "POST", "path": CHAT, "engine_path": CHAT, "headers": headers}
        scope |= {"by_engine": True, "query_string": b"", "client": ("127.0.0.1", 1)}
        fields = {"model": "m", "messages": [{"role": "user", "content": "Hello!"}]}
        raw = b'{"model":"m"}'
        exchange = Exchange(scope, unheard, unheard)
        return cls(house, exchange, read(CHAT, raw, fields, house.gate.models))

    async def paid(self, input_tokens: int = 0) -> Bill:
        """Come in, use so much and leave."""
        async with admitted(self.house.gate, self.exchange, self.call) as bill:
            bill.used = input_tokens > 0
            bill.usage.input_tokens = input_tokens
        return bill

    def held(self) -> list[str]:
        """What the store holds for the key's requests."""
        credential = self.exchange.credential
        assert credential is not None
        names = keys.scopes(credential.tenant, credential.bucket, "m")
        return [lease for name in names[1::2] for lease in self.house.store.zrange(name, 0, -1)]


async def unheard(*_: Any) -> Any:
    """Nobody listens at the other end."""


async def test_each_try_has_a_name_of_its_own(house: House) -> None:
    """What undoes an earlier try settles nothing else: 9,010 tokens were charged as 6."""
    key, _ = await house.key(limits=ONE, over_limit="wait")
    await Visit.of(house, key).paid(1)
    visit = Visit.of(house, key)
    bill = await visit.paid(9_010)
    assert bill.held.request == f"{visit.exchange.settle_id}.2"
    rows = (await house.tell(key, **house.lately))["data"]
    assert sum(row["input_tokens"] for row in rows) == 9_011


async def test_a_forged_key_waits_in_nobodys_turn(house: House) -> None:
    """The id of a key is public; whoever shows a wrong secret is told so, whoever waits."""
    key, _ = await house.key(limits=ONE, over_limit="wait")
    await Visit.of(house, key).paid(1)
    own, forged = Visit.of(house, key), Visit.of(house, key)
    credential = await credential_of(house.gate, own.exchange)
    forged.exchange.credential = replace(credential, proof="0" * 64)
    waiting = asyncio.create_task(own.paid(1))
    while not house.gate.patience._turns:
        await asyncio.sleep(0)
    with pytest.raises(Unauthenticated):
        await forged.paid(1)
    assert not waiting.done()
    assert (await waiting).waited_ms > 0


async def test_a_hold_is_given_back_if_its_caller_cannot_be_let_in(house: House) -> None:
    """Whatever breaks between the store's answer and the request: it was renewed for ever."""
    key, _ = await house.key(limits={"concurrency": 1})
    visit = Visit.of(house, key)
    house.gate.classes = {}
    with pytest.raises(LookupError):
        await visit.paid()
    assert (house.gate.holds.running(), visit.held()) == (0, [])


async def test_a_hold_is_given_back_if_it_cannot_be_charged(house: House) -> None:
    """A bill that cannot be written is the gate's fault: nothing is charged, nothing stays held."""
    key, _ = await house.key(limits={"concurrency": 1})
    visit = Visit.of(house, key)
    broken: Any = "many"
    async with AsyncExitStack() as stack:
        bill = await stack.enter_async_context(admitted(house.gate, visit.exchange, visit.call))
        bill.used, bill.usage.input_tokens = True, broken
        assert len(visit.held()) == 1
        with pytest.raises(TypeError):
            await stack.aclose()
    assert (house.gate.holds.running(), visit.held()) == (0, [])


async def test_while_the_store_is_away_the_time_is_the_gateways(house: House) -> None:
    """Refusals of a static key's caller were booked in 1970."""
    away = Store("redis://127.0.0.1:1", timeout_ms=200)
    house.gate.holds = Holds(away)
    async with admitted(house.gate, Visit.of(house, PLAIN).exchange) as bill:
        assert abs(bill.held.now_us / 1e6 - time.time()) < 60
    await away.close()


async def test_an_earlier_trys_headers_are_not_told(house: House) -> None:
    """Only what the last try was told: a limit that is gone meanwhile left its name."""
    key, _ = await house.key(limits=ONE)
    visit = Visit.of(house, key)
    visit.exchange.headers_out |= {"x-ratelimit-shadow": "old", "x-ratelimit-limit-tokens": "1"}
    await visit.paid()
    told = visit.exchange.headers_out
    assert told["x-ratelimit-limit-requests"] == "60"
    assert not {"x-ratelimit-shadow", "x-ratelimit-limit-tokens"} & set(told)


async def test_a_request_is_counted_once_however_many_shadows_refuse(house: House) -> None:
    """It counted once for each of them."""
    key, _ = await house.key(limits={"shadow": {"requests_per_minute": 0, "requests_per_day": 0}})
    bill = await Visit.of(house, key).paid(1)
    assert len(bill.held.would_refuse) == 2
    await house.gate.ledger.pay()
    rows = (await house.tell(key, **house.lately))["data"]
    assert sum(row["shadow_refused"] for row in rows) == 1


async def test_whoami_asks_for_all_models_at_once(house: House) -> None:
    """Not one after the other: a gate with many models took as many round trips."""
    together = asyncio.Barrier(2)

    class Together(Holds):
        async def hold(self, claim: Any, *given: Any, model: str = "", **more: Any) -> Hold:
            if model:
                await asyncio.wait_for(together.wait(), 20)
            return await super().hold(claim, *given, model=model, **more)

    each = {"requests_per_day": 7}
    key, _ = await house.key(limits={"models": {"m": each, "n": each}})
    house.gate.holds = Together(house.gate.holds._store)
    async with house.client(key) as client:
        said = await client.get("/v1/auth/whoami")
    assert said.status_code == 200, said.text
    assert [one["model"] for one in said.json()["limits"] if one["model"]] == ["m", "n"]


async def test_turns_are_told_apart_by_what_proves_the_caller() -> None:
    """Tenant, key and model are public; kind, proof and token are not all of them guessed."""
    one = auth.Credential(auth.How.NONE, "t", "k", "k")
    others = [
        replace(one, kind=auth.Kind.KEY),
        replace(one, proof="p"),
        replace(one, token_id="j"),
        replace(one, user="ada"),
        replace(one, bucket="b"),
        replace(one, tenant="u"),
    ]
    assert len({turn_of(each, "m") for each in [one, *others]}) == 7
    assert turn_of(one, "m") != turn_of(one, "n")
    assert turn_of(one, "m") != turn_of(one, "m", "batch")


async def test_a_wait_for_a_limit_is_as_long_as_the_client_would(house: House) -> None:
    """The next is let in after a second: who would wait half of it is refused, two are enough."""
    key, _ = await house.key(limits=ONE, over_limit="wait")
    await Visit.of(house, key).paid(1)
    hasty, patient = Visit.of(house, key), Visit.of(house, key)
    hasty.exchange.wish = Wish(max_wait_s=0.5)
    with pytest.raises(RateLimited):
        await hasty.paid(1)
    patient.exchange.wish = Wish(max_wait_s=2.0)
    bill = await patient.paid(1)
    assert bill.waited_ms > 0
    assert bill.queue_class.max_wait_s == 2.0
