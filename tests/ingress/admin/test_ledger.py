"""The usage ledger over HTTP: what counts as refused, who may see whose use, and how it is told."""

import csv
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import redis

from serve_app import auth
from serve_app.assembly import identity_of
from serve_app.environment import Secrets
from serve_app.errors import InvalidRequest
from serve_app.ingress import Door, Gate, Relay
from serve_app.ingress.admin import ledger as told_here
from serve_app.ingress.admin.ledger import Wanted, note_refusal, read_query
from serve_app.ingress.wish import Wish
from serve_app.limits import FINEST, Holds, Ledger, ledger
from serve_app.limits.ledger import hour_text
from serve_app.limits.report import FIGURES, HOUR_S, HOUR_US
from serve_app.queueing import Adapters, Kept, Line
from serve_app.settings import Settings
from serve_app.store import Store, keys
from serve_app.telemetry import Captures, Metrics
from tests.accounts import OPERATOR
from tests.stories.test_document import mistakes

ADMIN, PLAIN = "the-operators-own-key", "somebodys-static-key"
CHAT, USAGE = "/v1/chat/completions", "/v1/usage"
ARGS = {
    "models": [{"name": name, "engine": "simulated", "source": "none"} for name in ("m", "n")],
    "queue": {"classes": [
        {"name": "standard", "max_wait_s": 0.1, "max_tickets": 100},
        {"name": "batch", "max_wait_s": 0.1, "max_tickets": 0},
    ]},
    "auth": {"brute_force": {"max_failed_attempts": 100},
             "anonymous": {"enabled": True, "class": "standard"}},
}  # fmt: skip


@dataclass
class House:
    """A gate with two models and no replica, as its callers reach it."""

    gate: Gate
    door: Door
    store: "redis.Redis[str]"

    def client(self, key: str | None = ADMIN) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        over = httpx.ASGITransport(self.door)
        return httpx.AsyncClient(transport=over, base_url="http://gate", headers=headers)

    async def key(self, tenant: str = "default", **more: Any) -> tuple[str, str]:
        """Make a key; return it and its id."""
        asked = auth.KeyRequest(name="a test's", tenant=tenant, **more)
        made, record = await self.gate.identity.keys.create(asked, by=OPERATOR)
        return made.text, record.id

    async def tell(self, shown: str | None = ADMIN, /, **query: Any) -> Any:
        """Return what the ledger says; decimals as such."""
        async with self.client(shown) as client:
            said = await client.get(USAGE, params=query)
        assert said.status_code == 200, said.text
        assert said.headers["cache-control"] == "no-store"
        if query.get("format") == "csv":
            return list(csv.reader(io.StringIO(said.text, newline="")))
        return said.json(parse_float=Decimal)

    async def refusal(
        self, shown: str | None = ADMIN, /, **query: Any
    ) -> tuple[int, str, str | None]:
        """Return status, code and parameter of what the ledger refuses."""
        async with self.client(shown) as client:
            said = await client.get(USAGE, params=query)
        assert said.headers["cache-control"] == "no-store"
        told = said.json()["error"]
        return said.status_code, told["code"], told["param"]

    def wrote(self, hour: int, key_id: str, tenant: str = "default", **fields: int) -> None:
        """Write use of the model ``m`` in the class ``standard`` as settling does."""
        told = {f"m\tstandard\t{what}": count for what, count in fields.items()}
        self.store.hset(keys.usage(tenant, key_id, hour), mapping=told)
        self.store.sadd(keys.used(tenant, hour), key_id)

    @property
    def lately(self) -> dict[str, int]:
        """A range that holds what was just counted, also at midnight."""
        return {"start": (self.now_hour - 1) * HOUR_S}

    @property
    def now_hour(self) -> int:
        """The store's present hour, in hours since the epoch."""
        seconds, _ = self.store.time()
        return int(seconds) // HOUR_S


@pytest.fixture
async def house(store: Store, store_url: str, tmp_path: Path) -> AsyncIterator[House]:
    settings = Settings.from_args(ARGS)
    secrets = Secrets(admin_keys=[ADMIN], api_keys=[PLAIN])
    audit: Any = SimpleNamespace(write=_nothing)
    identity = identity_of(settings, store, secrets, audit, {})
    relay = Relay(first_byte_timeout_s=5, between_bytes_timeout_s=5)
    gate = Gate(
        settings,
        identity=identity,
        holds=Holds(store, defaults="r 600 600 0"),
        ledger=Ledger(store),
        line=Line(store, [model.name for model in settings.models], settings.queue.classes),
        adapters=Adapters(store, settings.models),
        kept=Kept(store),
        relay=relay,
        audit=audit,
        metrics=Metrics(),
        captures=Captures(tmp_path / "captures", settings.capture),
    )
    for tenant in ("acme", "other"):
        await identity.tenants.create(auth.TenantRequest(id=tenant), by=OPERATOR)
    with redis.Redis.from_url(store_url, decode_responses=True) as client:
        yield House(gate, Door(gate), client)
    await identity.close()
    relay.close()


async def _nothing(_entry: object) -> None:
    """The audit is tried elsewhere."""


def body(model: str = "m", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}], **more}


LIMIT_1 = {"requests_per_minute": 1}
REFUSED = [
    ("no replica came", {}, body(), 503, "m", "standard"),
    ("the line is full", {"class": "batch"}, body("n"), 429, "n", "batch"),
    ("another's model", {"models": ["n"]}, body(), 403, "m", "standard"),
    ("no permission", {"permissions": ["read_models"]}, body(), 403, "m", "standard"),
    ("no streams", {"permissions": ["run_inference"]}, body(stream=True), 403, "m", "standard"),
    ("no such endpoint", {"endpoints": ["/v1/completions"]}, body(), 403, "m", "standard"),
    ("another address", {"allowed_addresses": ["192.0.2.0/24"]}, body(), 403, "m", "standard"),
    ("never", {"limits": {"requests_per_minute": 0}}, body(), 429, "m", "standard"),
    ("an unknown model", {}, body("a/b\tc"), 404, "-", "standard"),
    ("no model", {"class": "batch"}, {}, 400, "-", "batch"),
    ("a large body", {}, body(padding="x" * 70_000, stream=3), 400, "-", "standard"),
]


@pytest.mark.parametrize(
    ("given", "sent", "status", "model", "class_"),
    [pytest.param(*row[1:], id=row[0]) for row in REFUSED],
)  # fmt: skip
async def test_a_refusal_counts_once(house: House, given, sent, status: int, model, class_) -> None:
    """Whatever refuses a caller that we know: once, under its model and class, no request."""
    key, key_id = await house.key(**given)
    async with house.client(key) as client:
        said = await client.post(CHAT, json=sent)
    assert said.status_code == status, said.text
    await house.gate.ledger.pay()
    (row,) = (await house.tell(**house.lately, group_by="key,tenant,model,class"))["data"]
    assert (row["key"], row["tenant"], row["model"], row["class"]) == (
        key_id, "default", model, class_,
    )  # fmt: skip
    assert {name: row[name] for name in FIGURES if row[name]} == {"refused": 1}


async def test_over_the_limit_counts(house: House) -> None:
    """Each one more than the limit, also those of strangers, who are counted together."""
    key, key_id = await house.key(limits=LIMIT_1)
    async with house.client(key) as client, house.client(None) as stranger:
        told = [(await client.post(CHAT, json=body("n"))).status_code]
        told += [(await client.post(CHAT, json=body("a"))).status_code]
        told += [(await stranger.post(CHAT, json=body())).status_code]
    assert told == [503, 404, 503]
    await house.gate.ledger.pay()
    rows = (await house.tell(**house.lately, group_by="key,model"))["data"]
    found = {(row["key"], row["model"]): row["refused"] for row in rows}
    assert found == {(key_id, "n"): 1, (key_id, "-"): 1, ("anonymous", "m"): 1}


@pytest.mark.parametrize(
    ("method", "path", "key"),
    [
        ("POST", CHAT, "sg-default-000000000000-" + "0" * 49),
        ("POST", CHAT, "eyJ.eyJ.x"),
        ("POST", "/v1/auth/users", PLAIN),
        ("GET", CHAT, PLAIN),
        ("POST", "/v1/nowhere", PLAIN),
        ("GET", f"{USAGE}?tenant=other", PLAIN),
    ],
)
async def test_what_is_no_refusal_of_use(house: House, method: str, path: str, key: str) -> None:
    """Strangers with bad credentials, and refusals of anything but inference, are not counted."""
    async with house.client(key) as client:
        said = await client.request(method, path, json=body())
    assert said.status_code in (401, 403, 404, 405)
    await house.gate.ledger.pay()
    assert (await house.tell(**house.lately))["data"] == []


async def test_a_stream_that_broke_was_no_refusal(house: House) -> None:
    """What got a byte of an answer has used a request; it is not refused besides."""
    counted: list[tuple[Any, ...]] = []
    gate: Any = SimpleNamespace(
        ledger=SimpleNamespace(refused=lambda *what: counted.append(what)),
        classes=house.gate.classes,
    )
    claim = SimpleNamespace(tenant="t", key_id="k")
    held = SimpleNamespace(claim=claim, attributes="", tenant_attributes="", now_us=HOUR_US)
    shown = SimpleNamespace(vouched=OPERATOR)
    for started in (True, False):
        exchange: Any = SimpleNamespace(
            scope={"engine_path": CHAT}, held=held, credential=shown,
            notes={"first_byte_ms": 1.0} if started else {},
            wish=Wish(),
        )  # fmt: skip
        note_refusal(gate, exchange)
        assert len(counted) == (not started)
    assert counted == [("t", "k", "-", "standard", HOUR_US)]


async def test_the_table_of_who_sees_what(house: House) -> None:
    """One's own; with manage_keys one's tenant's; an operator everyone's. All else is 403."""
    plain, plain_id = await house.key("acme")
    manager, manager_id = await house.key("acme", permissions=["manage_keys"])
    _, stray_id = await house.key("other")
    weak, weak_id = await house.key(permissions=["read_models"], all_tenants=True)
    for tenant, key_id in (("acme", plain_id), ("acme", manager_id), ("other", stray_id),
                           ("default", weak_id)):  # fmt: skip
        house.wrote(house.now_hour, key_id, tenant, requests=1)
    acme, everyone = {plain_id, manager_id}, {plain_id, manager_id, stray_id, weak_id}
    seen = [
        (plain, {}, {plain_id}),
        (plain, {"key": plain_id, "tenant": "acme"}, {plain_id}),
        (plain, {"key": manager_id}, "key"),
        (plain, {"key": stray_id}, "key"),
        (plain, {"key": "nosuch"}, "key"),
        (plain, {"tenant": "other"}, "tenant"),
        (plain, {"tenant": "nosuch"}, "tenant"),
        (manager, {}, acme),
        (manager, {"tenant": "acme"}, acme),
        (manager, {"key": plain_id}, {plain_id}),
        (manager, {"key": stray_id}, set()),
        (manager, {"key": "nosuch"}, set()),
        (manager, {"tenant": "other"}, "tenant"),
        (manager, {"tenant": "other", "key": stray_id}, "tenant"),
        (manager, {"tenant": "nosuch"}, "tenant"),
        (weak, {}, {weak_id}),
        (weak, {"tenant": "acme"}, "tenant"),
        (ADMIN, {}, everyone),
        (ADMIN, {"tenant": "acme"}, acme),
        (ADMIN, {"tenant": "acme", "key": stray_id}, set()),
        (ADMIN, {"key": stray_id}, {stray_id}),
    ]
    for key, query, ids in seen:
        if isinstance(ids, str):
            assert await house.refusal(key, **query) == (403, "permission_denied", ids), query
        else:
            said = await house.tell(key, **house.lately, **query)
            assert {row["key"] for row in said["data"]} == ids, query
    assert await house.refusal(tenant="nosuch") == (400, "unknown_tenant", "tenant")
    assert (await house.refusal(None))[:2] == (403, "permission_denied")


async def test_use_outlives_its_tenant(house: House) -> None:
    """An operator who names a tenant that is gone sees what it has used."""
    house.wrote(house.now_hour, "k", "gone", requests=2)
    assert (await house.tell(**house.lately, tenant="gone"))["totals"]["requests"] == 2


async def test_every_page_of_tenants_is_read(house: House, monkeypatch) -> None:
    """An operator's report holds all tenants, however many pages they fill."""
    monkeypatch.setattr(told_here.auth, "PAGE_MAX", 1)
    for tenant in ("default", "acme", "other"):
        house.wrote(house.now_hour, "k", tenant, requests=1)
    rows = (await house.tell(**house.lately, group_by="tenant"))["data"]
    assert [row["tenant"] for row in rows] == ["acme", "default", "other"]


async def test_a_report_in_full(house: House) -> None:
    """Every member and figure, sorted; the same under /api; CSV tells the same."""
    figures = {
        "requests": 3, "input_tokens": 10, "output_tokens": 20, "cached_tokens": 4, "refused": 1,
        "shadow_refused": 2, "cost_nanos": 1_500_000_001, "queue_ms": 250, "engine_ms": 61_000,
    }  # fmt: skip
    for key_id in ("b", "a"):
        house.wrote(490_000, key_id, **figures)
    query = {"start": 490_000 * HOUR_S, "end": 490_001 * HOUR_S}
    figures_shown = dict(zip(
        FIGURES, (3, 10, 20, 4, 1, 2, Decimal("1.500000001"), Decimal("0.25"), 61), strict=True
    ))  # fmt: skip
    whose = [(key_id, "default", "m", "standard", hour_text(490_000)) for key_id in "ab"]
    rows = [dict(zip(FINEST, one, strict=True)) | figures_shown for one in whose]
    said = await house.tell(**query)
    assert said == {"data": rows, "totals": {n: 2 * v for n, v in figures_shown.items()}}
    assert [list(row) for row in said["data"]] == [[*FINEST, *FIGURES]] * 2
    heading, *lines = await house.tell(**query, format="csv")
    assert heading == [*FINEST, *FIGURES]
    assert lines == [[str(value) for value in row.values()] for row in rows]
    async with house.client() as client:
        again = await client.get(f"/api{USAGE}", params={**query, "format": "csv"})
    assert again.headers["content-type"] == "text/csv; charset=utf-8"
    assert again.headers["content-disposition"] == 'attachment; filename="usage.csv"'
    assert again.text.splitlines()[0] == ",".join(heading)


@pytest.mark.parametrize("query", ["", "?group_by=month,class", "?format=csv"])
async def test_a_report_is_as_told(house: House, query: str) -> None:
    """Each form has the shape and the headers of the gate's own document."""
    house.wrote(house.now_hour, "k", requests=1, cost_nanos=5)
    async with house.client() as client:
        said = await client.get(f"{USAGE}{query}")
    assert "standard" in said.text
    assert mistakes(USAGE, said) == []


async def test_nothing_used_is_an_empty_report(house: House) -> None:
    """No row, totals of 0, a heading; no mistake."""
    key, _ = await house.key()
    said = await house.tell(key)
    assert said == {"data": [], "totals": dict.fromkeys(FIGURES, 0)}
    assert await house.tell(key, format="csv") == [[*FINEST, *FIGURES]]


async def test_groups_and_filters(house: House) -> None:
    """Grouped rows have the grouped members alone; a model or class that is asked for decides."""
    first = 490_000 // 24 * 24
    for hour in (first - 1, first, first + 23, first + 24):
        house.wrote(hour, "k", requests=1)
        house.store.hset(keys.usage("default", "k", hour), "n\tbatch\trequests", 10)
    span = {"start": (first - 1) * HOUR_S, "end": (first + 25) * HOUR_S}
    days = [hour_text(hour)[:10] for hour in (first - 1, first, first + 24)]
    said = await house.tell(**span, group_by="day")
    assert [(row["day"], row["requests"]) for row in said["data"]] == [
        (days[0], 11), (days[1], 22), (days[2], 11),
    ]  # fmt: skip
    assert list(said["data"][0]) == ["day", *FIGURES]
    assert said["totals"]["requests"] == 44
    for query, requests in (
        ({"model": "m"}, 4), ({"class": "batch"}, 40), ({"model": "m", "class": "batch"}, 0),
        ({"model": "nosuch"}, 0), ({"start": days[1], "end": days[2]}, 22),
    ):  # fmt: skip
        said = await house.tell(**{**span, **query}, group_by="month")
        assert said["totals"]["requests"] == requests, query


async def test_too_much_is_refused(house: House, monkeypatch) -> None:
    """Neither too many hours of callers nor too many rows; each says what to change."""
    for number in range(4):
        house.wrote(490_000, f"k{number}", requests=1)
    hour = {"start": 490_000 * HOUR_S, "end": 490_001 * HOUR_S}
    monkeypatch.setattr(told_here, "ROWS_MAX", 3)
    assert await house.refusal(**hour) == (400, "invalid_request", "group_by")
    assert (await house.tell(**hour, group_by="tenant"))["totals"]["requests"] == 4
    monkeypatch.setattr(ledger, "READ_MAX", 3)
    assert await house.refusal(**hour, group_by="tenant") == (400, "invalid_request", "start")
    assert (await house.tell(**hour, key="k1"))["totals"]["requests"] == 1


NOW_S = 490_011 * HOUR_S + 1_800
TODAY = NOW_S // 86_400 * 24
ALL = Wanted(TODAY, 490_012, FINEST, {}, as_csv=False)


@pytest.mark.parametrize(
    ("query", "start_hour", "end_hour"),
    [
        ({}, TODAY, 490_012),
        ({"start": "1970-01-01", "end": "1970-01-02"}, 0, 24),
        ({"start": "1970-01-01T01:00:00Z", "end": "1970-01-01T02:00:00Z"}, 1, 2),
        ({"start": "1970-01-01T01:00:00.000001Z", "end": "1970-01-01T02:00:00.5z"}, 2, 3),
        ({"start": "1970-01-01T03:00:00+02:00", "end": "1970-01-01T00:30:00-01:30"}, 1, 2),
        ({"start": "3600", "end": "7200"}, 1, 2),
        ({"start": "3599", "end": "7201"}, 1, 3),
        ({"start": "0", "end": str(2_400 * HOUR_S)}, 0, 2_400),
        ({"end": "1970-01-03"}, 24, 48),
        ({"end": "1970-01-02T00:00:01Z"}, 24, 25),
        ({"start": str(490_005 * HOUR_S)}, 490_005, 490_012),
    ],
    ids=str,
)
def test_which_hours(query: dict[str, str], start_hour: int, end_hour: int) -> None:
    """Those that begin from start on and before end; by default today's, up to the present one."""
    wanted = read_query(query, now_s=NOW_S)
    assert (wanted.start_hour, wanted.end_hour) == (start_hour, end_hour)


def test_ranges_that_touch_share_no_hour() -> None:
    """Wherever a day is cut, each of its hours is in one piece."""
    for cut_s in (0, 1, 3_599, 3_600, 3_601, 40_000, 86_399, 86_400):
        pieces = []
        for start_s, end_s in ((0, cut_s), (cut_s, 86_400)):
            try:
                got = read_query({"start": str(start_s), "end": str(end_s)}, now_s=NOW_S)
            except InvalidRequest:
                continue  # no hour begins in it
            pieces += range(got.start_hour, got.end_hour)
        assert pieces == list(range(24)), cut_s


def test_the_first_second_of_a_day() -> None:
    """At midnight today begins: its first hour is the present one."""
    wanted = read_query({}, now_s=TODAY * HOUR_S)
    assert (wanted.start_hour, wanted.end_hour) == (TODAY, TODAY + 1)


@pytest.mark.parametrize(
    ("query", "by"),
    [
        ({"group_by": "model"}, ("model",)),
        ({"group_by": "day, model"}, ("day", "model")),
        ({"group_by": "month,key,tenant,model,class,hour,day"},
         ("month", "key", "tenant", "model", "class", "hour", "day")),
        ({"format": "json"}, FINEST),
    ],
)  # fmt: skip
def test_groups_in_the_order_of_their_naming(query: dict[str, str], by: tuple[str, ...]) -> None:
    """The caller says which members come first."""
    assert read_query(query, now_s=NOW_S).by == by


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"colour": "red"}, "colour"),
        ({"group_by": ""}, "group_by"),
        ({"group_by": "model,"}, "group_by"),
        ({"group_by": "model,model"}, "group_by"),
        ({"group_by": "requests"}, "group_by"),
        ({"group_by": "Model"}, "group_by"),
        ({"format": "xml"}, "format"),
        ({"format": ""}, "format"),
        ({"start": ""}, "start"),
        ({"start": "yesterday"}, "start"),
        ({"start": "-1"}, "start"),
        ({"start": "1.5"}, "start"),
        ({"start": "9" * 12}, "start"),
        ({"start": "٣"}, "start"),
        ({"start": "2026-02-30"}, "start"),
        ({"start": "2026-01-31T00:00:00"}, "start"),
        ({"start": "2026-W05-1"}, "start"),
        ({"end": "2026-01-31T25:00:00Z"}, "end"),
        ({"end": "2026-01-31T00:00:00 02:00"}, "end"),
        ({"end": "\x00"}, "end"),
        ({"start": "2026-01-02", "end": "2026-01-01"}, "end"),
        ({"start": "2026-01-02", "end": "2026-01-02"}, "end"),
        ({"start": "1", "end": "3599"}, "end"),
        ({"start": "9999-12-31T23:59:59Z"}, "start"),
        ({"start": "0", "end": str(2_400 * HOUR_S + 1)}, "start"),
        ({"start": "0"}, "start"),
        ({"start": "0001-01-01T00:00:00+23:59"}, "start"),
    ],
    ids=str,
)
def test_a_mistake_is_named(query: dict[str, str], param: str) -> None:
    """Each is 400 and says which field."""
    with pytest.raises(InvalidRequest) as refused:
        read_query(query, now_s=NOW_S)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"tenant": "}:usage:{t:x"}, "tenant"),
        ({"tenant": ""}, "tenant"),
        ({"key": "a:490000"}, "key"),
        ({"key": "a b"}, "key"),
        ({"key": ""}, "key"),
        ({"key": "x" * 129}, "key"),
    ],
)
async def test_no_name_is_made_of_rubbish(house: House, query: dict[str, str], param: str) -> None:
    """What can be no id is refused before it becomes part of a name in the store."""
    assert await house.refusal(**query) == (400, "invalid_request", param)
