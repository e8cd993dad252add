"""Which seats there are, and which of them one is given (DESIGN §4), on a whole gate."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from serve_app.store import Address
from tests.house import (
    CLASSES,
    CRAMPED,
    PATH,
    REPLICAS,
    Answer,
    Crowd,
    cramped,
    crowd_before,
    crowded,
    eventually,
)
from tests.running import ADMIN_KEY, RunningGate

TURNS = 4


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGate]:
    """Two gateways, a model with two replicas, and one whose engine has little memory."""
    config, env = crowded(CLASSES), {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY}
    config["applications"][0]["args"]["models"].append(cramped())
    running = RunningGate(tmp_path_factory.mktemp("seats"), config, env).start()
    try:
        yield running.ready()
    finally:
        running.end()


@pytest.fixture
async def crowd(gate: RunningGate) -> AsyncIterator[Crowd]:
    async with crowd_before(gate) as there:
        yield there


async def test_a_full_engine_offers_fewer_seats_and_then_all_again(crowd: Crowd) -> None:
    """Sixteen replies of fifteen blocks do not fit into 128: the rest waits in line, by class."""

    async def offered(most: int) -> bool:
        seen = await crowd.line(CRAMPED)
        return 0 < int(seen["seats"]) <= most and int(seen["running"]) <= most

    async def all_again() -> bool:
        return int((await crowd.line(CRAMPED))["seats"]) == 16

    key = crowd.key("batch")
    await eventually(all_again, 30, "the replica")
    asks = [crowd.ask(key, 220, model=CRAMPED) for _ in range(64)]
    async with crowd.under_way(*asks) as asked:
        await eventually(lambda: offered(10), 20, "fewer seats")
        answers: list[Answer] = await asyncio.gather(*asked)
    assert [one.output_tokens for one in answers] == [220] * len(asks)
    await eventually(all_again, 30, "all seats again")


async def converse(crowd: Crowd, key: str, opening: str, engines: list[Address]) -> int:
    """Go through a conversation, one turn after the other; return how many engines had a part."""
    headers, before = {"authorization": f"Bearer {key}"}, read_by(crowd, engines)
    said = [{"role": "user", "content": opening}]
    for _ in range(TURNS):
        asked = {"model": "smollm2-135m", "messages": said, "max_tokens": 4}
        async with crowd.session.post(PATH, json=asked, headers=headers) as told:
            assert told.status == 200, await told.text()
            (choice,) = (await told.json())["choices"]
        said += [choice["message"], {"role": "user", "content": "And then?"}]
    return sum(now > was for now, was in zip(read_by(crowd, engines), before, strict=True))


def read_by(crowd: Crowd, engines: list[Address]) -> list[float]:
    """Return how many prompt tokens each engine has read."""
    return [crowd.gate.gauge("prompt_tokens_total", engine) for engine in engines]


async def test_a_conversation_comes_back_to_the_replica_that_knows_it(crowd: Crowd) -> None:
    """Through whichever gateway; many conversations are spread over the replicas."""
    engines = list(crowd.gate.replicas().values())
    assert len(engines) == REPLICAS
    before = read_by(crowd, engines)
    keys = [crowd.key("interactive") for _ in range(2)]
    for at in range(16):
        assert await converse(crowd, keys[at % 2], f"Tell me about {at}.", engines) == 1
    read = [now - was for now, was in zip(read_by(crowd, engines), before, strict=True)]
    print(f"prompt tokens read by each replica: {read}")
    assert min(read) > 0
