"""What an engine keeps of its answers, asked for again: limits are told, and captures keep it."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from serve_app.ingress.told import ENGINE_HEADERS
from serve_app.store import Store, registry
from tests.ingress.admin.test_ledger import House, house
from tests.ingress.test_capturing import call, folder, lines, watch
from tests.ingress.upstream import test_relay

__all__ = ["folder", "house"]
NAME, KEPT = "resp_" + "a" * 32, {"id": "resp_" + "a" * 32, "status": "completed"}
LIMITS = {"requests_per_minute": 60}


async def answers(writer: asyncio.StreamWriter) -> None:
    """Say what is kept."""
    body = json.dumps(KEPT).encode()
    told = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    writer.write(told.encode() + b"\r\n\r\n" + body)


@pytest.fixture
async def key(house: House, store: Store) -> AsyncIterator[tuple[str, str]]:
    """A limited key for which a replica keeps the response ``NAME``, and its id."""
    made, key_id = await house.key(limits=LIMITS)
    async with test_relay.engine(answers) as seat:
        await registry.beat(store, "m", "r0", 1, seat.address)
        await house.gate.kept.note("default", key_id, NAME, asked="m", model="m", replica="r0")
        yield made, key_id


@pytest.mark.parametrize(("method", "verb"), [("GET", ""), ("POST", "/cancel")])
async def test_its_reply_is_one_of_an_engine(
    house: House, folder: Path, key: tuple[str, str], method: str, verb: str
) -> None:
    """It carried no word of limits, and a capture was without its body."""
    await watch(house, key[1])
    told = await call(house, method, f"/v1/responses/{NAME}{verb}", key[0])
    assert (told.status_code, told.json()) == (200, KEPT)
    assert told.headers["x-ratelimit-remaining-requests"] == "60"
    wanted = {"ratelimit", "x-ratelimit-limit", "x-queue-time-ms", "x-served-class"}
    assert wanted <= {*told.headers} & {*ENGINE_HEADERS}
    (line,) = await lines(house, folder)
    assert line["reply"]["body"] == KEPT
