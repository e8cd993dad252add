"""The operators' desk of the line (CONTRACT §2, §6): who may look and touch, and what is told."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from serve_app.errors import QueueCancelled, StoreUnavailable
from serve_app.ingress.admin.desk import SHOWN_MAX, figures, shown
from serve_app.queueing import Asks, ClassLoad, Line, Load, Waiting
from serve_app.settings import QueueClass
from serve_app.store import Store
from serve_app.telemetry import Audit
from tests.ingress.admin.test_ledger import ADMIN, House, house
from tests.stories.test_document import mistakes

__all__ = ["house"]
QUEUE, PLAIN, SLASHED = "/v1/queue", "m", "org/m:1"
NAMES = [PLAIN, SLASHED, "org/pause", "drain"]
FAST, SLOW = (QueueClass(name=name, max_wait_s=600) for name in ("interactive", "batch"))
MANAGER = ["manage_queue"]


class DeskLine(Line):
    """The line, whose store may be away for one model."""

    away = ""

    async def look(self, model: str) -> Load:
        """Look, unless it is away."""
        if model == self.away:
            raise StoreUnavailable("The store is away.", retry_after_s=1.0)
        return await super().look(model)


@dataclass
class Desk:
    """A gate without replicas, whose audit is a real one, and who waits at it."""

    house: House
    line: DeskLine
    waits: list["asyncio.Task[None]"] = field(default_factory=list)

    async def stand(
        self, *tenants: str, model: str = PLAIN, queue_class: QueueClass = SLOW
    ) -> list[str]:
        """Have a request of each tenant wait, one after the other; return their tickets."""
        tickets = []
        for tenant in tenants:
            asks = Asks(queue_class, tenant, f"k-{tenant}", output_tokens=150, body_bytes=1_000)
            self.waits.append(asyncio.create_task(self._wait(model, asks)))
            tickets.append(f"{self.line.gateway}-{len(self.waits)}")
            while not await self.line.whose(tickets[-1]):
                pass  # the store has it in a moment
        return tickets

    async def _wait(self, model: str, asks: Asks) -> None:
        async with self.line.seat(model, asks):
            raise AssertionError("there is no replica")

    async def ask(self, key: str | None, method: str, path: str) -> Any:
        async with self.house.client(key) as client:
            return await client.request(method, path)

    async def manager(self, tenant: str = "acme", **more: Any) -> str:
        """Return a key of ``tenant`` that manages the queue, and is no operator's."""
        key, _ = await self.house.key(tenant, permissions=MANAGER, **more)
        return key

    async def modes(self) -> dict[str, str]:
        """Return the modes of the lines that are not open."""
        modes = {name: (await self.line.look(name)).mode for name in NAMES}
        return {name: mode for name, mode in modes.items() if mode != "open"}

    async def audited(self) -> list[dict[str, Any]]:
        """Return what the audit says of the queue, without where and when."""
        told, _ = await self.house.gate.audit.page(tenant=None, after=None, size=100)
        wanted = ("action", "result", "tenant", "actor", "target", "before", "after")
        return [{name: one[name] for name in wanted} for one in told if "queue" in one["action"]]


@pytest.fixture
async def desk(house: House, store: Store) -> AsyncIterator[Desk]:
    gate, line = house.gate, DeskLine(store, NAMES, [FAST, SLOW])
    gate.models = dict.fromkeys(NAMES, gate.models["m"])
    gate.line, gate.audit = line, Audit(store, keep_days=1)
    await line.open()
    made = Desk(house, line)
    yield made
    await line.close()
    await asyncio.gather(*made.waits, return_exceptions=True)


async def test_every_line_is_shown(desk: Desk) -> None:
    """Mode, seats and who waits, by class, as the store has it now; kept by nobody on the way."""
    await desk.stand("acme", "other")
    await desk.stand("acme", queue_class=FAST)
    await desk.line.set_mode(SLASHED, "paused")
    told = await desk.ask(ADMIN, "GET", QUEUE)
    assert (told.status_code, told.headers["cache-control"]) == (200, "no-store")
    assert mistakes(QUEUE, told) == []
    lines = told.json()["models"]
    assert [(one["model"], one["mode"], one["waiting"]) for one in lines] == [
        (PLAIN, "open", 3), (SLASHED, "paused", 0), ("org/pause", "open", 0), ("drain", "open", 0),
    ]  # fmt: skip
    assert [
        (one["class"], one["waiting"], one["waiting_bytes"], one["running_in_class"])
        for one in lines[0]["classes"]
    ] == [("interactive", 1, 1_000, 0), ("batch", 2, 2_000, 0)]
    assert (lines[0]["replicas"], lines[0]["seats"], lines[0]["running"]) == (0, 0, 0)


def test_figures() -> None:
    """Milliseconds are told as seconds, and what nobody can tell as null."""
    load = Load(
        running=16, waiting=5, replicas=2, seats=16, drain_per_s=4.00049, mode="draining",
        classes=(
            ClassLoad("standard", 3, 4_096, 9, oldest_ms=1_500, predicted_wait_ms=749.9),
            ClassLoad("batch", 2, 80, 7, oldest_ms=0, predicted_wait_ms=None),
        ),
    )  # fmt: skip
    assert figures(PLAIN, load) == {
        "model": PLAIN, "mode": "draining", "replicas": 2, "seats": 16, "running": 16, "waiting": 5,
        "drain_per_s": 4.0,
        "classes": [
            {"class": "standard", "waiting": 3, "running_in_class": 9, "waiting_bytes": 4_096,
             "oldest_s": 1.5, "predicted_wait_s": 0.75},
            {"class": "batch", "waiting": 2, "running_in_class": 7, "waiting_bytes": 80,
             "oldest_s": 0.0, "predicted_wait_s": None},
        ],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arrived_us", "deadline_us", "waited_s", "deadline_s"),
    [
        (8_000_000, 40_000_000, 2.0, 30.0),
        (9_999_400, 10_000_600, 0.001, 0.001),
        (10_000_001, 40_000_000, 0.0, 30.0),
        (1_000_000, 9_000_000, 9.0, 0.0),
    ],
)
def test_a_ticket(arrived_us: int, deadline_us: int, waited_s: float, deadline_s: float) -> None:
    """What it has waited and may yet, never below 0; whose it is and what it weighs."""
    one = Waiting(
        "0123456789abcdef-7", "m", "batch", "acme", "k", arrived_us, deadline_us, 300, 1_000
    )
    assert shown(one, 10_000_000) == {
        "ticket": "0123456789abcdef-7", "class": "batch", "tenant": "acme", "key": "k",
        "waited_s": waited_s, "deadline_s": deadline_s, "cost_tokens": 300, "bytes": 1_000,
    }  # fmt: skip


async def test_one_line_and_who_waits_in_it(desk: Desk) -> None:
    """Its figures, and the oldest that wait, the oldest first, whatever their class."""
    tickets = await desk.stand("acme", "other")
    tickets += await desk.stand("acme", queue_class=FAST)
    tickets += await desk.stand("other")
    told = await desk.ask(ADMIN, "GET", f"{QUEUE}/{PLAIN}")
    assert (told.status_code, told.headers["cache-control"]) == (200, "no-store")
    assert mistakes(QUEUE + "/{model_or_ticket}", told) == []
    assert (told.json()["model"], told.json()["waiting"]) == (PLAIN, 4)
    rows = told.json()["tickets"]
    assert [row["ticket"] for row in rows] == tickets
    assert [(row["class"], row["tenant"], row["key"]) for row in rows] == [
        ("batch", "acme", "k-acme"),
        ("batch", "other", "k-other"),
        ("interactive", "acme", "k-acme"),
        ("batch", "other", "k-other"),
    ]
    assert {(row["cost_tokens"], row["bytes"]) for row in rows} == {(300, 1_000)}
    assert all(0 <= row["waited_s"] < 60 and 540 < row["deadline_s"] <= 600 for row in rows)


async def test_the_oldest_are_shown(desk: Desk) -> None:
    """Of more than a hundred the oldest, however many of a class above came later."""
    first, *_ = await desk.stand("acme", "acme")
    *_, last = await desk.stand(*["other"] * SHOWN_MAX, queue_class=FAST)
    told = (await desk.ask(ADMIN, "GET", f"{QUEUE}/{PLAIN}")).json()
    tickets = [one["ticket"] for one in told["tickets"]]
    assert (len(tickets), tickets[0], told["waiting"]) == (SHOWN_MAX, first, SHOWN_MAX + 2)
    assert last not in tickets


async def test_other_tenants_tickets_are_not_shown(desk: Desk) -> None:
    """A tenant's own manager sees the line, and of the tickets its tenant's, also behind others."""
    *_, last = await desk.stand(*["other"] * SHOWN_MAX, "acme")
    whole = await desk.ask(ADMIN, "GET", f"{QUEUE}/{PLAIN}")
    own = await desk.ask(await desk.manager(), "GET", f"{QUEUE}/{PLAIN}")
    assert len(whole.json()["tickets"]) == SHOWN_MAX
    assert [one["ticket"] for one in own.json()["tickets"]] == [last]
    assert own.json()["waiting"] == whole.json()["waiting"] == SHOWN_MAX + 1


MAY = {
    "a wrong key": [401] * 6,
    "a stranger who is let in": [403] * 6,
    "whoever only asks models": [403] * 6,
    "a tenant's manager": [200, 200, 204, 403, 403, 403],
    "another tenant's manager": [200, 200, 404, 403, 403, 403],
    "an operator": [200, 200, 204, 200, 200, 200],
}


@pytest.mark.parametrize("prefix", ["", "/api"])
@pytest.mark.parametrize("who", MAY)
async def test_who_may_do_what(desk: Desk, who: str, prefix: str) -> None:
    """All may look who have the permission; modes are an operator's; tickets their tenant's."""
    (ticket,) = await desk.stand("acme")
    shows = {
        "a wrong key": "wrong",
        "a stranger who is let in": None,
        "whoever only asks models": (await desk.house.key(permissions=["run_inference"]))[0],
        "a tenant's manager": await desk.manager(),
        "another tenant's manager": await desk.manager("other"),
        "an operator": ADMIN,
    }
    routes = [("GET", ""), ("GET", f"/{PLAIN}"), ("DELETE", f"/{ticket}")]
    routes += [("POST", f"/{PLAIN}/{verb}") for verb in ("pause", "resume", "drain")]
    told = [await desk.ask(shows[who], method, prefix + QUEUE + path) for method, path in routes]
    assert [one.status_code for one in told] == MAY[who]
    assert {one.headers["cache-control"] for one in told} == {"no-store"}
    assert await desk.modes() == ({PLAIN: "draining"} if who == "an operator" else {})
    assert (await desk.line.whose(ticket) is None) == (MAY[who][2] == 204)


async def test_whoever_may_not_is_told_why(desk: Desk) -> None:
    """The line belongs to all tenants, so one tenant's manager does not stop it; it is noted."""
    told = await desk.ask(await desk.manager(), "POST", f"{QUEUE}/{PLAIN}/pause")
    assert told.json()["error"]["code"] == "permission_denied"
    assert "only the platform's operators pause it" in told.json()["error"]["message"]
    assert mistakes(QUEUE + "/{model}/pause", told) == []
    (noted,) = await desk.audited()
    assert (noted["action"], noted["result"], noted["tenant"]) == (
        "POST /v1/queue/{model:path}/pause", "permission_denied", "acme",
    )  # fmt: skip


async def test_a_caller_of_some_models_sees_their_lines(desk: Desk) -> None:
    """Whoever may not use a model does not see its line."""
    key = await desk.manager(models=[SLASHED])
    listed = await desk.ask(key, "GET", QUEUE)
    one, other = [await desk.ask(key, "GET", f"{QUEUE}/{name}") for name in (SLASHED, PLAIN)]
    assert [one["model"] for one in listed.json()["models"]] == [SLASHED]
    assert (one.status_code, other.json()["error"]["code"]) == (200, "model_not_allowed")


@pytest.mark.parametrize(
    ("verb", "mode"), [("pause", "paused"), ("resume", "open"), ("drain", "draining")]
)
@pytest.mark.parametrize("model", NAMES)
async def test_a_mode_is_set(desk: Desk, model: str, verb: str, mode: str) -> None:
    """Of the model that is named, slashes and all; twice is as once, and each time is noted."""
    for _ in range(2):
        told = await desk.ask(ADMIN, "POST", f"{QUEUE}/{model}/{verb}")
        assert (told.status_code, told.json()["model"], told.json()["mode"]) == (200, model, mode)
        assert mistakes(f"{QUEUE}/{{model}}/{verb}", told) == []
    assert await desk.modes() == ({} if mode == "open" else {model: mode})
    noted = await desk.audited()
    assert [(one["action"], one["result"], one["target"]) for one in noted] == [
        (f"queue.{verb}", "ok", model)
    ] * 2
    assert [(one["before"], one["after"]) for one in noted] == [
        ({"mode": "open"}, {"mode": mode}),
        ({"mode": mode}, {"mode": mode}),
    ]


@pytest.mark.parametrize("model", NAMES)
async def test_a_line_is_found_by_any_name(desk: Desk, model: str) -> None:
    """A model may be called like another route; its line is shown all the same."""
    told = await desk.ask(ADMIN, "GET", f"{QUEUE}/{model}")
    assert (told.status_code, told.json()["model"]) == (200, model)


@pytest.mark.parametrize(
    ("method", "path", "code", "param"),
    [
        ("GET", "none", "model_not_found", "model"),
        ("GET", "m/", "model_not_found", "model"),
        ("GET", "m/pause", "model_not_found", "model"),
        ("POST", "no/such/pause", "model_not_found", "model"),
        ("POST", "/drain", "model_not_found", "model"),
        ("DELETE", "0123456789abcdef-9", "ticket_not_found", None),
        ("DELETE", PLAIN, "ticket_not_found", None),
        ("DELETE", f"{SLASHED}/pause", "ticket_not_found", None),
    ],
)
async def test_what_is_not_there(
    desk: Desk, method: str, path: str, code: str, param: str | None
) -> None:
    """404 says whether a model or a ticket is missing, and nothing is changed or noted."""
    told = await desk.ask(ADMIN, method, f"{QUEUE}/{path}")
    error = told.json()["error"]
    assert (told.status_code, error["code"], error["param"]) == (404, code, param)
    assert (await desk.modes(), await desk.audited()) == ({}, [])


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", QUEUE, "GET"),
        ("DELETE", QUEUE, "GET"),
        ("PUT", f"{QUEUE}/{SLASHED}/pause", "POST"),
        ("POST", f"{QUEUE}/{SLASHED}", "DELETE, GET"),
        ("PATCH", f"{QUEUE}/0123456789abcdef-1", "DELETE, GET"),
    ],
)
async def test_a_wrong_method(desk: Desk, method: str, path: str, allow: str) -> None:
    """405 in the error shape, with the methods that the path takes (§2)."""
    told = await desk.ask(ADMIN, method, path)
    assert (told.status_code, told.headers["allow"]) == (405, allow)
    assert told.json()["error"]["code"] == "method_not_allowed"


async def test_a_request_is_taken_out(desk: Desk) -> None:
    """Once: then nobody waits with that ticket. The audit says whose it was, to its tenant, too."""
    first, second, third = await desk.stand("acme", "other", "acme")
    gone = [await desk.ask(ADMIN, "DELETE", f"{QUEUE}/{second}") for _ in range(2)]
    assert [(one.status_code, len(one.content) > 0) for one in gone] == [(204, False), (404, True)]
    assert [mistakes(QUEUE + "/{model_or_ticket}", one) for one in gone] == [[], []]
    with pytest.raises(QueueCancelled, match="An operator took this request out of the line"):
        await asyncio.wait_for(desk.waits[1], 10)
    assert [one.ticket for one in await desk.line.waiting(PLAIN)] == [first, third]
    assert await desk.audited() == [
        {
            "action": "queue.cancel", "result": "ok", "tenant": "other", "target": second,
            "actor": (await desk.ask(ADMIN, "GET", "/v1/auth/whoami")).json()["id"],
            "before": {"model": PLAIN, "class": "batch", "key": "k-other"}, "after": None,
        }
    ]  # fmt: skip


async def test_anothers_ticket_is_as_if_it_were_not_there(desk: Desk) -> None:
    """A tenant's manager learns nothing of another's tickets, and takes none out of the line."""
    (ticket,) = await desk.stand("other")
    key = await desk.manager()
    refusals = []
    for one in (ticket, "0123456789abcdef-9"):
        told = await desk.ask(key, "DELETE", f"{QUEUE}/{one}")
        refusals.append((told.status_code, told.text.replace(one, "")))
    assert refusals[0] == refusals[1]
    assert refusals[0][0] == 404
    assert await desk.line.whose(ticket) is not None


async def test_a_store_that_is_away_is_told(desk: Desk) -> None:
    """Nothing stale is shown for fresh: 503, and a line whose store is there is shown alone."""
    desk.line.away = SLASHED
    told = [await desk.ask(ADMIN, "GET", QUEUE + path) for path in ("", f"/{SLASHED}", f"/{PLAIN}")]
    assert [one.status_code for one in told] == [503, 503, 200]
    assert told[0].json()["error"]["code"] == "state_store_unavailable"
