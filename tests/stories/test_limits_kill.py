"""How much (CONTRACT §4) when gateways die and everything goes wrong at once."""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx
import pytest

from serve_app.allowance import BY_LETTER
from tests.running import RunningGate, chat, until
from tests.stories.conftest import HOLD_TTL_S
from tests.tally import MODEL, NARROW, Tally, Used, of_windows, spoken

PATH = "/v1/chat/completions"
STREAMS, TOKENS = 200, 80
NO_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=None)


@pytest.fixture
def two(pair: RunningGate) -> RunningGate:
    """The gate, once both of its gateways answer."""

    def both_answer() -> bool:
        with pair.client() as client:
            return len(pair.actors("Gateway")) == 2 and all(
                client.get("/health").status_code == 200 for _ in range(20)
            )

    until(both_answer, 60, "two gateways", every_s=0.5)
    return pair


@dataclass
class Streams:
    """Many streams at once, and how each of them ended."""

    gate: RunningGate
    begun: int = 0
    done: int = 0
    broken: int = 0

    async def later(
        self, delay_s: float, key: str, client: httpx.AsyncClient, **more: object
    ) -> None:
        """Read one stream to its end, begun later, so that not all end in one moment."""
        await asyncio.sleep(delay_s)  # streams of others begin at any time
        await self.ask(key, client, **more)

    async def ask(self, key: str, client: httpx.AsyncClient, **more: object) -> None:
        """Read one stream to its end."""
        headers, body = {"authorization": f"Bearer {key}"}, chat(stream=True, **more)
        text = ""
        try:
            async with client.stream("POST", PATH, json=body, headers=headers) as told:
                self.begun += told.status_code == 200
                async for piece in told.aiter_text():
                    text += piece
        except httpx.HTTPError:
            pass  # it counts as broken
        if "[DONE]" in text:
            self.done += 1
        else:
            self.broken += 1


def agree(tally: Tally, keys: list[str]) -> None:
    """The windows of each key and of the tenant say what the ledger says; rates say no less."""
    for key in keys:
        spent, told = tally.spent(MODEL, key), tally.used(key).in_units()
        assert of_windows(spent["key"]) == of_windows(told)
    spent, told = tally.spent(), tally.used().in_units()
    assert of_windows(spent["tenant"]) == of_windows(told)
    sums: Counter[str] = Counter()
    for key in keys:
        sums.update(tally.used(key).in_units())
    assert dict(sums) == told or not any(told.values())
    for letter, units in spent["tenant"].items():
        if BY_LETTER[letter].period == "minute":
            assert units >= told[letter]


async def given_back_ms(tally: Tally, keys: list[str], client: httpx.AsyncClient) -> float:
    """Return after how long all is gone that nobody renewed; ask as callers do until then."""
    killed_ms = time.time() * 1_000
    expired_ms = killed_ms + HOLD_TTL_S * 1_000
    while (now_ms := time.time() * 1_000) < expired_ms + 10_000:
        left_ms = tally.leases()
        if not left_ms or min(left_ms) > expired_ms:
            return now_ms - killed_ms
        for key in keys:
            await client.get("/v1/auth/whoami", headers={"authorization": f"Bearer {key}"})
        await asyncio.sleep(0.05)  # callers ask now and then
    pytest.fail("something is still held")


async def test_what_a_killed_gateway_held_is_given_back_in_time(two: RunningGate) -> None:
    """Gateway killed: the hold expires and is released, never charged; none is charged twice.

    Two hundred streams over two gateways, one of which is killed: within the life of a hold all
    that it held is gone; the other's streams are renewed, end, and are charged once.
    """
    tally, streams = Tally(two), Streams(two)
    keys = [tally.key, *(tally.another() for _ in range(3))]
    async with httpx.AsyncClient(base_url=two.url, timeout=120, limits=NO_LIMITS) as client:
        asking = [
            asyncio.create_task(streams.ask(keys[n % 4], client, max_tokens=TOKENS))
            for n in range(STREAMS)
        ]
        while streams.begun < STREAMS:
            await asyncio.sleep(0.05)
            assert not any(task.done() for task in asking), "streams ended too early"
        assert len(tally.leases()) == 4 * STREAMS
        os.kill(two.actors("Gateway")[0], signal.SIGKILL)
        took_ms = await given_back_ms(tally, keys, client)
        await asyncio.gather(*asking)
    print(f"{streams.broken} of {STREAMS} streams broke; given back after {took_ms:.0f} ms")
    assert took_ms < (HOLD_TTL_S + 1) * 1_000
    assert 0 < streams.broken < STREAMS
    assert tally.settled().used() == Used(streams.done, 6 * streams.done, TOKENS * streams.done)
    agree(tally, keys)
    with two.client(tally.key) as client_now:
        told = client_now.get("/v1/auth/whoami").json()["limits"]
    places = [one["remaining"] for one in told if one["limit"] == "concurrency"]
    assert places
    assert set(places) == {1_000}


async def test_a_gateway_killed_while_it_settles_charges_once_or_not_at_all(
    two: RunningGate,
) -> None:
    """Settle once, however it ends: killed in the midst of two hundred requests that end."""
    tally, streams = Tally(two), Streams(two)
    async with httpx.AsyncClient(base_url=two.url, timeout=60, limits=NO_LIMITS) as client:
        asking = [
            asyncio.create_task(streams.later(number * 0.002, tally.key, client, max_tokens=2))
            for number in range(STREAMS)
        ]
        while streams.done < STREAMS // 4:
            await asyncio.sleep(0.005)  # others read their streams meanwhile
        os.kill(two.actors("Gateway")[0], signal.SIGKILL)
        await asyncio.gather(*asking)
        assert streams.broken, "nothing was under way"
        await given_back_ms(tally, [tally.key], client)
    with two.redis() as store:
        marks = len(store.keys(f"sg:{{t:{tally.tenant}}}:settled:*"))
    used = tally.settled().used()
    print(f"{streams.done} streams came to their end, {used.requests} were charged")
    assert used == Used(marks, 6 * marks, 2 * marks)
    assert used.requests <= STREAMS
    agree(tally, [tally.key])


CLIENTS, ROUNDS = 64, 6
RATED = {"wait": {"limit": 600, "burst": 5}, "refuse": {"limit": 6, "burst": 1}}
WAYS = (
    "whole",
    "stream",
    "left early",
    "left mid-stream",
    "break",
    "error",
    "400",
    "404",
    "narrow",
)


@dataclass
class Storm:
    """Clients that do what clients do, and what they know of its cost."""

    tally: Tally
    keys: list[str]
    client: httpx.AsyncClient
    known: Used = field(default_factory=Used)
    left: int = 0
    answers: Counter[int] = field(default_factory=Counter)

    async def rage(self, seed: int) -> None:
        """Ask in many ways, one after the other."""
        dice = random.Random(seed)
        for _ in range(ROUNDS):
            bearer = {"authorization": f"Bearer {dice.choice(self.keys)}"}
            way, tokens = dice.choice(WAYS), dice.choice([1, 3, 9])
            body = chat(max_tokens=tokens)
            if way in ("break", "error"):
                bearer["x-simulated-fault"] = way
            if way.startswith("left"):
                await self._leave(bearer, stream=way == "left mid-stream")
            elif way in ("stream", "break"):
                await self._stream(bearer, chat(max_tokens=2 * tokens, stream=True))
            else:
                more = {"404": {"model": "nope"}, "400": {"max_tokens": -1}}
                more["narrow"] = {"model": NARROW}
                await self._whole(bearer, body | more.get(way, {}))

    async def _whole(self, bearer: dict[str, str], body: dict[str, object]) -> None:
        told = await self.client.post(PATH, json=body, headers=bearer)
        self.answers[told.status_code] += 1
        if told.status_code == 200:
            self.known += Used.of(told.json()["usage"])
        self.known += Used(requests=told.status_code == 400)

    async def _stream(self, bearer: dict[str, str], body: dict[str, object]) -> None:
        told = await self.client.post(PATH, json=body, headers=bearer)
        self.answers[told.status_code] += 1
        if told.status_code == 200:
            self.known += Used(1, 6, spoken(told.text))

    async def _leave(self, bearer: dict[str, str], *, stream: bool) -> None:
        self.left += 1
        body = chat(max_tokens=400, stream=stream)
        try:
            async with (
                asyncio.timeout(0.5),
                self.client.stream("POST", PATH, json=body, headers=bearer) as told,
            ):
                async for _ in told.aiter_bytes():
                    pass
        except TimeoutError:
            pass


async def test_ledger_and_buckets_agree_after_a_storm(two: RunningGate) -> None:
    """The ledger and the buckets agree to the token after any story.

    64 clients on two gateways, five keys of one tenant, of which one waits and one is refused
    often; engines fail and break, clients leave.
    """
    tally = Tally(two)
    keys = [tally.key, tally.another(), tally.another()]
    for how, rate in RATED.items():
        rated = tally.limits | {"requests_per_minute": rate}
        keys.append(tally.another(limits=rated, over_limit=how))
    async with httpx.AsyncClient(base_url=two.url, timeout=60, limits=NO_LIMITS) as client:
        storm = Storm(tally, keys, client)
        await asyncio.gather(*(storm.rage(seed) for seed in range(CLIENTS)))
    used, known = tally.settled().used(), storm.known
    print(f"{dict(storm.answers)}, {storm.left} left; {used}")
    assert {200, 400, 404, 429, 502} <= set(storm.answers)
    assert known.requests <= used.requests <= known.requests + storm.left
    assert known.input + 6 * (used.requests - known.requests) == used.input
    assert known.output <= used.output
    agree(tally, keys)
    with two.client() as admin:
        asked = {"tenant": tally.tenant, "group_by": "key"}
        told = admin.get("/v1/usage", params=asked).json()
    assert told["totals"]["requests"] == used.requests == sum(r["requests"] for r in told["data"])
    assert told["totals"]["input_tokens"] == used.input
    assert told["totals"]["output_tokens"] == used.output
    assert round(told["totals"]["cost"] * 1e9) == used.cost
