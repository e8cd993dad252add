"""The operators' desk of the line, on a whole gate with two gateways (CONTRACT §2, §5, §6)."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.running import RunningGate, chat, until
from tests.stories.test_document import mistakes
from tests.tally import MODEL, Tally, Used

CHAT, QUEUE = "/v1/chat/completions", "/v1/queue"
LINE = f"{QUEUE}/{MODEL}"
NO_RETRY = {"no header retry-after", "no header retry-after-ms"}
"""What a 429 lacks if waiting does not help."""


@dataclass
class Desk:
    """An operator at the desk, and callers of one tenant who are not waited for.

    Attributes:
        noted: the ids of the requests with which the operator changed something.
    """

    gate: RunningGate
    admin: httpx.Client
    callers: ThreadPoolExecutor
    noted: list[str] = field(default_factory=list)

    def change(self, method: str, path: str) -> httpx.Response:
        told = self.admin.request(method, path)
        self.noted.append(told.headers["x-request-id"])
        return told

    def mode(self, verb: str) -> str:
        """Set the mode of the model's line; return what it is told to be."""
        told = self.change("POST", f"{LINE}/{verb}")
        assert (told.status_code, mistakes(f"{QUEUE}/{{model}}/{verb}", told)) == (200, [])
        return str(told.json()["mode"])

    def calls(self, key: str, **headers: str) -> "Future[httpx.Response]":
        """Send a chat completion, each on a connection of its own."""

        def ask() -> httpx.Response:
            with self.gate.client(key) as client:
                return client.post(CHAT, json=chat(), headers=headers)

        return self.callers.submit(ask)

    def tickets(self, tenant: str) -> list[dict[str, Any]]:
        """Return who of ``tenant`` waits, as the desk shows it."""
        told = self.admin.get(LINE)
        assert (told.status_code, mistakes(f"{QUEUE}/{{model_or_ticket}}", told)) == (200, [])
        return [one for one in told.json()["tickets"] if one["tenant"] == tenant]

    def waiting(self, tenant: str, count: int) -> list[dict[str, Any]]:
        """Return who waits, as soon as it is ``count`` of ``tenant``."""

        def all_there() -> list[dict[str, Any]]:
            found = self.tickets(tenant)
            return found if len(found) == count else []

        found: list[dict[str, Any]] = until(all_there, 15, f"{count} in line", every_s=0.05)
        return found

    def audited(self) -> list[tuple[str, str, str]]:
        """Return action, result and target of all that the operator changed."""
        entries = []
        for request_id in self.noted:
            told = self.admin.get("/v1/audit", params={"request_id": request_id})
            entries += [
                (one["action"], one["result"], one["target"]) for one in told.json()["data"]
            ]
        return entries


@pytest.fixture
def desk(pair: RunningGate) -> Iterator[Desk]:
    """The desk; whatever a story leaves behind, the line is open again."""
    with pair.client() as admin, ThreadPoolExecutor(16) as callers:
        try:
            yield Desk(pair, admin, callers)
        finally:
            admin.post(f"{LINE}/resume").raise_for_status()


def code(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


def test_pause_send_away_resume(desk: Desk) -> None:
    """Who waits is seen, and sent away for nothing at whichever gateway; the rest is served."""
    tally = Tally(desk.gate)
    assert desk.mode("pause") == "paused"
    calls = [desk.calls(tally.key) for _ in range(8)]
    rows = desk.waiting(tally.tenant, len(calls))
    assert {(row["key"], row["class"]) for row in rows} == {(tally.key_id, "standard")}
    assert len({row["ticket"].partition("-")[0] for row in rows}) == 2
    assert all(row["bytes"] > 0 and row["cost_tokens"] > 0 for row in rows)
    assert [row["waited_s"] for row in rows] == sorted((r["waited_s"] for r in rows), reverse=True)

    *away, kept = rows
    gone = [desk.change("DELETE", f"{QUEUE}/{row['ticket']}") for row in away]
    assert {(one.status_code, one.content) for one in gone} == {(204, b"")}
    until(lambda: sum(call.done() for call in calls) == len(away), 15, "the refusals")
    refused = [call.result() for call in calls if call.done()]
    for told in refused:
        assert code(told) == (429, "queue_cancelled")
        assert {*mistakes(CHAT, told)} == NO_RETRY
        assert told.headers["x-should-retry"] == "false"
        assert told.headers["x-refused-by"] == "queue_cancelled"
    (left,) = desk.tickets(tally.tenant)
    assert left["ticket"] == kept["ticket"]
    again = desk.change("DELETE", f"{QUEUE}/{away[0]['ticket']}")
    assert code(again) == (404, "ticket_not_found")

    assert desk.mode("resume") == "open"
    served = [call.result() for call in calls if call.result().status_code == 200]
    (answer,) = served
    assert tally.settled().used() == Used.of(answer.json()["usage"])
    assert tally.ledger()["refused"] == len(away)
    assert desk.audited() == [
        ("queue.pause", "ok", MODEL),
        *(("queue.cancel", "ok", row["ticket"]) for row in away),
        ("queue.resume", "ok", MODEL),
    ]


def test_a_paused_model_says_so(desk: Desk) -> None:
    """Whoever has waited as long as it may is told that an operator paused the model."""
    key = Tally(desk.gate, more={"class": "hasty"}).key
    assert desk.mode("pause") == "paused"
    told = desk.calls(key).result()
    assert code(told) == (503, "no_capacity")
    assert "paused by an operator" in told.json()["error"]["message"]
    assert "retry-after" in told.headers


def test_drain(desk: Desk) -> None:
    """Who waits is still served, who comes is refused at once, until the line is open again."""
    tally = Tally(desk.gate)
    desk.mode("pause")
    early = [desk.calls(tally.key) for _ in range(4)]
    desk.waiting(tally.tenant, len(early))
    assert desk.mode("drain") == "draining"
    late = desk.calls(tally.key).result()
    assert (code(late), mistakes(CHAT, late)) == ((503, "shutting_down"), [])
    assert "drained" in late.json()["error"]["message"]
    assert "retry-after" in late.headers
    assert {call.result().status_code for call in early} == {200}
    assert (desk.mode("drain"), desk.mode("resume")) == ("draining", "open")
    assert desk.calls(tally.key).result().status_code == 200
    assert tally.settled().ledger()["requests"] == len(early) + 1
    verbs = ["pause", "drain", "drain", "resume"]
    assert desk.audited() == [(f"queue.{verb}", "ok", MODEL) for verb in verbs]


def test_one_tenants_manager(desk: Desk) -> None:
    """It sees and sends away its own; others' stay, and so does the line's mode; it is noted."""
    tally, others = Tally(desk.gate), Tally(desk.gate)
    desk.mode("pause")
    calls = [desk.calls(one.key) for one in (tally, others)]
    (own,), (foreign,) = (desk.waiting(one.tenant, 1) for one in (tally, others))
    key = tally.another(permissions=["manage_queue"])
    with desk.gate.client(key) as manager:
        seen = manager.get(LINE).json()
        assert ([one["ticket"] for one in seen["tickets"]], seen["waiting"]) == ([own["ticket"]], 2)
        tried: list[Callable[[], httpx.Response]] = [
            lambda: manager.delete(f"{QUEUE}/{foreign['ticket']}"),
            lambda: manager.post(f"{LINE}/resume"),
            lambda: manager.delete(f"{QUEUE}/{own['ticket']}"),
        ]
        told = [one() for one in tried]
    assert [one.status_code for one in told] == [404, 403, 204]
    assert code(calls[0].result()) == (429, "queue_cancelled")
    desk.noted = [told[1].headers["x-request-id"]]
    (refused,) = desk.audited()
    assert refused[:2] == ("POST /v1/queue/{model:path}/resume", "permission_denied")
    assert desk.mode("resume") == "open"
    assert calls[1].result().status_code == 200
