"""A gate whose line is put under load: its configuration, and those who stand in line."""

import asyncio
import json
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from serve_app.store import keys
from tests.running import ADMIN_KEY, RunningGate, chat, simulated
from tests.tally import MODEL

PATH, LINE = "/v1/chat/completions", f"/v1/queue/{MODEL}"
REPLICAS, SEATS = 2, 10
HOUSE = REPLICAS * SEATS
"""The nominal seats of all replicas."""

FOR_LONG = 1_900
"""Output tokens that keep a seat taken for longer than any story."""

CLASSES = [
    {"name": "interactive", "max_seats": 2.0, "max_wait_s": 30, "promote_after_s": 60},
    {"name": "batch", "max_wait_s": 60, "promote_after_s": 60},
    {"name": "nightly", "max_wait_s": 60, "promote_after_s": 1},
    {"name": "narrow", "max_wait_s": 60, "promote_after_s": 60, "max_tickets": 2},
]


CRAMPED = "cramped"
"""A model whose engine has memory for half of its seats."""


def cramped() -> dict[str, Any]:
    """Return it: a KV cache of 128 blocks of 16 tokens, and sixteen seats."""
    little = {"kv_tokens": 2_048, "decode_ms": 5.0}
    config = simulated(name=CRAMPED, seats=16, autoscaling={"max_replicas": 1}, simulated=little)
    (model,) = config["applications"][0]["args"]["models"]
    return model


def crowded(classes: list[dict[str, Any]], *, seats: int = SEATS, **queue: Any) -> dict[str, Any]:
    """Return the configuration of two gateways before two replicas, with ``classes``."""
    scaling = {"min_replicas": REPLICAS, "max_replicas": REPLICAS}
    config = simulated(seats=seats, autoscaling=scaling)
    args = config["applications"][0]["args"]
    args["gateway"] = {"min_replicas": 2, "max_replicas": 2, "num_cpus": 0.1}
    args["limits"] = {"default": {"requests_per_minute": 1_000_000}}
    args["store"] = {"timeout_ms": 5_000}
    args["queue"] = {"classes": classes, **queue}
    return config


@dataclass(frozen=True)
class Answer:
    """What a caller got, and when on this machine's clock."""

    status: int
    headers: dict[str, str]
    body: dict[str, Any]
    sent_s: float
    done_s: float

    @property
    def code(self) -> str:
        """The refusal's code; empty if it was served."""
        return str(self.body["error"]["code"]) if "error" in self.body else ""

    @property
    def queue_ms(self) -> float:
        """How long it stood in line, as it was told."""
        return float(self.headers["x-queue-time-ms"])

    @property
    def served_class(self) -> str:
        """The class that it was seated as."""
        return self.headers["x-served-class"]

    @property
    def output_tokens(self) -> int:
        """What it was served."""
        return int(self.body["usage"]["completion_tokens"]) if self.status == 200 else 0


async def eventually(
    told: Callable[[], Awaitable[Any]], limit_s: float, what: str, every_s: float = 0.05
) -> Any:
    """Return the first true answer of ``told``; fail after ``limit_s``."""
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        if answer := await told():
            return answer
        await asyncio.sleep(every_s)  # others do what is waited for
    pytest.fail(f"{what} did not happen in {limit_s:g} s")


@dataclass
class Crowd:
    """Callers of one gate, all in one event loop.

    Attributes:
        served: output tokens of every key, as soon as a reply was read.
        blocks: of loads that are under way.
    """

    gate: RunningGate
    session: aiohttp.ClientSession
    served: Counter[str] = field(default_factory=Counter)
    blocks: int = 0

    def tenant(self, weight: float = 1.0) -> str:
        """Return the id of a new tenant."""
        name = f"t{secrets.token_hex(4)}"
        with self.gate.client() as admin:
            made = admin.post("/v1/tenants", json={"id": name, "weight": weight})
            assert made.status_code == 201, made.text
        return name

    def key(self, class_: str, tenant: str = "", weight: float = 1.0) -> str:
        """Return a new key, of a tenant of its own if none is named."""
        more: dict[str, Any] = {"class": class_, "weight": weight}
        return self.gate.new_key(tenant=tenant or self.tenant(), **more)

    async def ask(self, key: str, tokens: int = 8, *, model: str = MODEL, **headers: str) -> Answer:
        """Send one request and read the reply; ``headers`` with underscores for dashes."""
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        said |= {"authorization": f"Bearer {key}"}
        sent_s = time.monotonic()
        asked = {**chat(max_tokens=tokens), "model": model}
        async with self.session.post(PATH, json=asked, headers=said) as told:
            body = json.loads(await told.read())
        told_headers = {name.lower(): value for name, value in told.headers.items()}
        answer = Answer(told.status, told_headers, body, sent_s, time.monotonic())
        self.served[key] += answer.output_tokens
        return answer

    async def keep_asking(self, key: str, callers: int, tokens: int) -> None:
        """Have ``callers`` ask one after the other, until cancelled."""

        async def caller() -> None:
            while True:
                await self.ask(key, tokens)

        await asyncio.gather(*(caller() for _ in range(callers)))

    @asynccontextmanager
    async def under_way(self, *loads: Awaitable[Any]) -> AsyncIterator[list["asyncio.Future[Any]"]]:
        """Run ``loads`` beside the block; whoever is not served by its end hangs up.

        The house is empty when the last block ends.
        """
        tasks = [asyncio.ensure_future(load) for load in loads]
        self.blocks += 1
        try:
            yield tasks
        finally:
            self.blocks -= 1
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if not self.blocks:
                await eventually(self.is_empty, 15, "an empty house")

    async def line(self, model: str = MODEL) -> dict[str, Any]:
        """Return what an operator sees."""
        bearer = {"authorization": f"Bearer {ADMIN_KEY}"}
        async with self.session.get(f"/v1/queue/{model}", headers=bearer) as told:
            seen: dict[str, Any] = await told.json()
            assert told.status == 200, seen
            return seen

    async def set_mode(self, verb: str) -> None:
        """Pause or resume the line."""
        bearer = {"authorization": f"Bearer {ADMIN_KEY}"}
        async with self.session.post(f"{LINE}/{verb}", headers=bearer) as told:
            assert told.status == 200, await told.text()

    async def counted(self, *, running: int = -1, waiting: int = -1, limit_s: float = 15) -> None:
        """Wait until so many have a seat, and so many wait."""
        wanted = {"running": running, "waiting": waiting}
        seen: dict[str, Any] = {}

        async def so_many() -> bool:
            seen.update(await self.line())
            return all(count in (-1, seen[what]) for what, count in wanted.items())

        await eventually(so_many, limit_s, f"{wanted}", every_s=0.02)

    async def is_empty(self) -> bool:
        """Whether nobody sits and nobody waits."""
        return not self.held()

    def held(self) -> dict[str, str]:
        """Return every ticket, waiting or seated, and the wake channel of its gateway."""
        with self.gate.redis() as store:
            found = store.zrange(keys.line(MODEL)[6], "[g:", "(g:~", bylex=True)
        tickets = [one.rpartition("|")[2] for one in found]
        return {ticket: ticket.rpartition("/")[0] for ticket in tickets}

    def gateways(self) -> set[str]:
        """Return the wake channels of the gateways that live, as far as the store knows."""
        with self.gate.redis() as store:
            found = store.zrange(keys.line(MODEL)[4], 0, -1)
        return {one[2:] for one in found if one.startswith("g:")}


@asynccontextmanager
async def crowd_before(gate: RunningGate) -> AsyncIterator[Crowd]:
    """A crowd before ``gate``, once both of its gateways and all its seats are there."""
    unlimited = aiohttp.TCPConnector(limit=0)
    patience = aiohttp.ClientTimeout(total=90)
    async with aiohttp.ClientSession(gate.url, connector=unlimited, timeout=patience) as session:
        crowd = Crowd(gate, session)

        async def all_there() -> bool:
            return len(crowd.gateways()) == 2 and len(gate.replicas()) == REPLICAS

        await eventually(all_there, 60, "two gateways and all replicas", every_s=0.25)
        yield crowd
