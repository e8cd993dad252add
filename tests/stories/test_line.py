"""Whose turn it is (CONTRACT §4, §5): a whole gate with two gateways before a full house."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis

from serve_app.queueing.desk import public_id
from tests.house import (
    CLASSES,
    FOR_LONG,
    HOUSE,
    PATH,
    REPLICAS,
    SEATS,
    Answer,
    Crowd,
    crowd_before,
    crowded,
    eventually,
)
from tests.running import ADMIN_KEY, RunningGate, chat
from tests.tally import Tally, frames, of_windows, spoken

KEEP_ALIVE_S = 0.3
AT_ONCE_MS = 100.0
"""More than any seat takes that was free; far less than any other request lasts."""


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGate]:
    """A gate with two gateways, two replicas and classes of its own."""
    config, env = crowded(CLASSES, keep_alive_s=KEEP_ALIVE_S), {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY}
    running = RunningGate(tmp_path_factory.mktemp("line"), config, env).start()
    try:
        yield running.ready()
    finally:
        running.end()


@pytest.fixture
async def crowd(gate: RunningGate) -> AsyncIterator[Crowd]:
    async with crowd_before(gate) as there:
        yield there


def many(crowd: Crowd, key: str, count: int, tokens: int = FOR_LONG) -> list[Any]:
    """Return ``count`` requests that nobody has sent yet."""
    return [crowd.ask(key, tokens) for _ in range(count)]


async def test_interactive_is_seated_at_once_above_a_full_house(crowd: Crowd) -> None:
    """Batch fills every nominal seat and waits; interactive finds a chair, at any gateway."""
    key, calls = crowd.key("interactive"), 12
    async with crowd.under_way(*many(crowd, crowd.key("batch"), HOUSE + 10)):
        await crowd.counted(running=HOUSE, waiting=10)
        before = crowd.held()
        async with crowd.under_way(*many(crowd, key, calls, tokens=150)) as asked:
            await crowd.counted(running=HOUSE + calls, waiting=10)
            mine = [channel for ticket, channel in crowd.held().items() if ticket not in before]
            answers: list[Answer] = await asyncio.gather(*asked)
    assert (len(mine), len(set(mine))) == (calls, 2)
    assert {(one.status, one.served_class) for one in answers} == {(200, "interactive")}
    waited_ms = sorted(one.queue_ms for one in answers)
    print(f"queue ms of {calls} interactive requests: {waited_ms}")
    assert waited_ms[-1] < AT_ONCE_MS


async def shares(crowd: Crowd, keys: list[str], *, callers: int, seconds: float) -> list[int]:
    """Return what each of ``keys`` was served while all of them asked for more than there is."""
    async with crowd.under_way(*(crowd.keep_asking(key, callers, tokens=20) for key in keys)):
        await asyncio.sleep(1.5)  # until all have a backlog and the first seats are given back
        before = crowd.served.copy()
        await asyncio.sleep(seconds)  # what is measured
        return [crowd.served[key] - before[key] for key in keys]


async def test_two_tenants_share_by_weight(crowd: Crowd) -> None:
    """Weights 3 and 1, both with more than is served: output tokens 3 to 1."""
    keys = [crowd.key("batch", crowd.tenant(weight)) for weight in (3.0, 1.0)]
    heavy, light = await shares(crowd, keys, callers=30, seconds=8)
    print(f"tenants 3:1 were served {heavy}:{light}, {heavy / light:.3f}")
    assert heavy / light == pytest.approx(3, rel=0.1)


async def test_two_keys_share_their_tenants_turn_by_weight(crowd: Crowd) -> None:
    """Weights 2 and 1 inside a tenant, half of the seats: a tenant beside it has the other half."""
    tenant = crowd.tenant()
    keys = [crowd.key("batch", tenant, weight) for weight in (2.0, 1.0)]
    heavy, light, other = await shares(crowd, [*keys, crowd.key("batch")], callers=25, seconds=8)
    print(f"keys 2:1 were served {heavy}:{light}, {heavy / light:.3f}; beside them {other}")
    assert heavy / light == pytest.approx(2, rel=0.1)
    assert (heavy + light) / other == pytest.approx(1, rel=0.1)


async def test_who_hangs_up_in_line_leaves_at_once_and_pays_nothing(crowd: Crowd) -> None:
    """A second later it is not in line; its limits hold nothing of it."""
    tally = Tally(crowd.gate, more={"class": "batch"})
    async with crowd.under_way(*many(crowd, crowd.key("batch"), HOUSE)):
        await crowd.counted(running=HOUSE)
        callers = [asyncio.ensure_future(one) for one in many(crowd, tally.key, 8)]
        await crowd.counted(running=HOUSE, waiting=len(callers))
        for caller in callers:
            caller.cancel()
        await crowd.counted(running=HOUSE, waiting=0, limit_s=1)
        tally.settled(1)
        for units in tally.spent().values():
            assert not any(of_windows(units).values())
            assert max(units.values()) <= 1, "what a rate refilled meanwhile is rounded up"
        assert tally.used().requests == 0


def checked(answer: Answer, code: str, *, line: bool) -> Answer:
    """Return a refusal that says when to come again, and if it was in ``line`` how long."""
    assert (answer.status, answer.code) == (429, code)
    assert answer.headers["x-refused-by"] == code
    assert 1 <= int(answer.headers["retry-after"]) <= 63
    assert 0 < int(answer.headers["retry-after-ms"]) <= int(answer.headers["retry-after"]) * 1_000
    assert not line or answer.queue_ms > 0
    return answer


async def test_a_full_line_refuses_one_more(crowd: Crowd) -> None:
    """As many as may wait do; the next is told at once when to come again."""
    key = crowd.key("narrow")
    async with crowd.under_way(*many(crowd, crowd.key("batch"), HOUSE)):
        await crowd.counted(running=HOUSE)
        async with crowd.under_way(*many(crowd, key, 2)):
            await crowd.counted(running=HOUSE, waiting=2)
            answer = checked(await crowd.ask(key), "queue_full", line=False)
    assert answer.done_s - answer.sent_s < 2
    assert answer.body["error"]["details"]["waiting"] == 2


async def test_a_short_patience_is_refused_at_the_door_or_in_line(crowd: Crowd) -> None:
    """What would wait too long is told before it waits; what was thought to wait less, after it.

    ``x-max-wait-s: 0`` means a seat at once or a refusal at once.
    """
    key = crowd.key("batch")
    assert (await crowd.ask(key, x_max_wait_s="0")).status == 200
    async with crowd.under_way(crowd.keep_asking(crowd.key("batch"), 3 * HOUSE, tokens=20)):
        await asyncio.sleep(1.5)  # until seats were given back, so that waits can be predicted
        late = checked(await crowd.ask(key, x_max_wait_s="0.01"), "queue_wait_too_long", line=False)
        assert late.body["error"]["details"]["predicted_wait_s"] > 0.01
        now = await crowd.ask(key, x_max_wait_s="0")
        checked(now, now.code, line=False)
        assert now.code in ("queue_wait_too_long", "queue_timeout")
    for refused in (late, now):
        assert refused.done_s - refused.sent_s < 2
    async with crowd.under_way(*many(crowd, crowd.key("batch"), HOUSE)):
        await crowd.counted(running=HOUSE)
        told = checked(await crowd.ask(key, x_max_wait_s="2"), "queue_timeout", line=True)
    assert told.queue_ms == pytest.approx(2_000, rel=0.25)


async def test_a_stream_that_waits_is_told_so(crowd: Crowd) -> None:
    """Comments until its turn, then its ordinary frames: the official client notices nothing."""
    key, body = crowd.key("batch"), chat(stream=True)
    bearer = {"authorization": f"Bearer {key}"}

    def read_by_client() -> str:
        stream = crowd.gate.openai(key).chat.completions.create(**body)
        return "".join(one.choices[0].delta.content or "" for one in stream if one.choices)

    async def read_raw(**headers: str) -> str:
        async with crowd.session.post(PATH, json=body, headers=bearer | headers) as told:
            assert told.status == 200
            return await told.text()

    await crowd.set_mode("pause")
    try:
        text, raw = asyncio.create_task(asyncio.to_thread(read_by_client)), read_raw()
        asked = asyncio.create_task(raw)
        refused = await read_raw(**{"x-max-wait-s": "1"})
        await crowd.counted(waiting=2)
    finally:
        await crowd.set_mode("resume")
    comments = [line for line in (await asked).split("\n") if line.startswith(":")]
    assert len(comments) >= 2
    assert all(line.startswith(": waiting in line for ") for line in comments)
    assert spoken(await asked) == 8
    assert (await asked).endswith("data: [DONE]\n\n")
    assert len((await text).split()) == 8

    assert refused.startswith(": waiting in line for ")
    assert frames(refused)[-1]["error"]["code"] == "no_capacity"
    assert "[DONE]" not in refused


async def test_a_flow_that_starves_is_lifted(crowd: Crowd) -> None:
    """Interactive takes every seat there is; who goes unserved for long is served before it."""
    saturating = crowd.keep_asking(crowd.key("interactive"), 5 * HOUSE, tokens=30)
    async with crowd.under_way(saturating):
        await crowd.counted(running=2 * HOUSE)
        async with crowd.under_way(crowd.ask(crowd.key("batch"))) as (patient,):
            answer = await crowd.ask(crowd.key("nightly"))
            assert not patient.done(), "nobody starved"
    print(f"lifted and seated after {answer.queue_ms:.0f} ms as {answer.served_class}")
    assert (answer.status, answer.served_class) == (200, "interactive")
    assert 2_000 <= answer.queue_ms < 5_000, "two lifts, and a seat that comes free"


@dataclass
class Calls:
    """Who was called to a seat, in that order, as the store told the gateways."""

    store: "redis.Redis[str]"
    tickets: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.heard = self.store.pubsub(ignore_subscribe_messages=True)
        self.heard.psubscribe("sg:wake:*")
        self.heard.get_message(timeout=5)

    def of(self, channel: str) -> list[str]:
        """Return the tickets of a gateway that were called until now."""
        while message := self.heard.get_message(timeout=0.2):
            self.tickets.append(message["data"].split("\n")[0])
        return [one for one in self.tickets if one.startswith(f"{channel}/")]


async def test_a_killed_gateway_costs_only_its_own(crowd: Crowd) -> None:
    """Six seconds later its tickets and seats are gone; the other's are served in their order."""
    waiters, key = 100, crowd.key("batch")
    with crowd.gate.redis() as store:
        calls = Calls(store)
        async with crowd.under_way(*many(crowd, crowd.key("batch"), HOUSE)):
            await crowd.counted(running=HOUSE)
            async with crowd.under_way(*many(crowd, key, waiters, tokens=10)) as asked:
                await crowd.counted(running=HOUSE, waiting=waiters)
                held, line = crowd.held(), await _in_line(crowd)
                os.kill(crowd.gate.actors("Gateway")[0], signal.SIGKILL)
                killed_s = time.monotonic()
                dead = await eventually(lambda: _forgotten(crowd, held), 6, "the forgetting")
                took_s = time.monotonic() - killed_s
                mine = [ticket for ticket in line if held[ticket] != dead]
                done = await asyncio.gather(*asked, return_exceptions=True)
        tickets, all_ = len(line) - len(mine), list(held.values()).count(dead)
        print(f"{tickets} tickets and {all_ - tickets} seats were forgotten after {took_s:.2f} s")
        (left,) = set(held.values()) - {dead}
        assert calls.of(left) == mine
    assert sum(isinstance(one, Answer) and one.status == 200 for one in done) == len(mine)
    assert 0 < tickets < min(waiters, all_)


async def _in_line(crowd: Crowd) -> list[str]:
    """Return the tickets that wait, the oldest first."""
    names = {public_id(one): one for one in crowd.held()}
    return [names[row["ticket"]] for row in (await crowd.line())["tickets"]]


async def _forgotten(crowd: Crowd, before: dict[str, str]) -> str:
    """Return the gateway that holds nothing any more; empty if there is none."""
    gone = set(before.values()) - set(crowd.held().values())
    return gone.pop() if gone else ""


async def test_the_seats_of_a_killed_replica_are_gone_in_three_seconds(crowd: Crowd) -> None:
    """Those who sit there do not count any more, and nobody is sent there."""
    async with crowd.under_way(*many(crowd, crowd.key("batch"), HOUSE + 5)):
        await crowd.counted(running=HOUSE, waiting=5)
        assert (await crowd.line())["seats"] == HOUSE
        os.kill(crowd.gate.actors("model-")[0], signal.SIGKILL)
        killed_s = time.monotonic()

        async def seats_gone() -> bool:
            seen = await crowd.line()
            return (seen["replicas"], seen["seats"]) == (REPLICAS - 1, SEATS)

        await eventually(seats_gone, 3, "the loss of its seats", every_s=0.02)
        print(f"its seats were gone after {time.monotonic() - killed_s:.2f} s")
        assert (await crowd.line())["running"] <= SEATS
