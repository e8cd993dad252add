"""What a client may wish of the line (CONTRACT §3, §8): a lower class, a shorter wait, no more."""

import math
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from serve_app.auth import Caller
from serve_app.errors import InvalidRequest
from serve_app.ingress.admission import class_served
from serve_app.ingress.wish import MAX_WAIT, PRIORITY, Wish, wished
from serve_app.limits import Hold, State
from serve_app.settings import QueueClass, Settings
from serve_app.store import Address, registry
from tests.ingress.admin.test_ledger import CHAT, PLAIN, House, body, house

__all__ = ["house"]
SETTINGS = Settings.from_args({})
CLASSES = {one.name: one for one in SETTINGS.queue.classes}
CLAIM: Any = None


@pytest.mark.parametrize(
    ("priorities", "waits", "wish"),
    [
        ([], [], Wish()),
        (["batch"], [], Wish("batch")),
        ([" batch\t"], [], Wish("batch")),
        (["batch", "batch"], [], Wish("batch")),
        ([], ["0"], Wish(None, 0.0)),
        ([], ["2.5"], Wish(None, 2.5)),
        ([], [".5"], Wish(None, 0.5)),
        ([], ["30."], Wish(None, 30.0)),
        ([], ["7", " 7"], Wish(None, 7.0)),
        (["anonymous"], ["100000000000"], Wish("anonymous", 1e11)),
    ],
)
def test_headers_wish(priorities: list[str], waits: list[str], wish: Wish) -> None:
    """One name, one number; the same said twice is said once."""
    assert wished(priorities, waits, CLASSES) == wish


@pytest.mark.parametrize(
    ("header", "values"),
    [
        *[(PRIORITY, [name]) for name in ("", "urgent", "Batch", "batch,batch", "0", "bätch")],
        (PRIORITY, ["batch", "standard"]),
        *[(MAX_WAIT, [text]) for text in ("", ".", "-1", "+1", "1e3", "1s", "0x1", "1,5", "٣")],
        *[(MAX_WAIT, [text]) for text in ("nan", "inf", "-inf", "1_0", "1 0", "9" * 400)],
        (MAX_WAIT, ["1", "2"]),
    ],
)
def test_a_wrong_header_is_told(header: str, values: list[str]) -> None:
    """It names the header, and for a class those that there are."""
    lines = (values, []) if header == PRIORITY else ([], values)
    with pytest.raises(InvalidRequest) as told:
        wished(*lines, CLASSES)
    assert (told.value.status, told.value.param) == (400, header)
    if header == PRIORITY:
        assert "interactive, standard, batch, anonymous" in str(told.value)


@given(*[st.lists(st.binary(max_size=12) | st.sampled_from([b"batch", b"7"]), max_size=3)] * 2)
def test_any_bytes_are_a_wish_or_a_mistake(priorities: list[bytes], waits: list[bytes]) -> None:
    """Never another exception; what is wished for is a class that there is, and a time."""
    lines = [[value.decode("latin-1") for value in values] for values in (priorities, waits)]
    try:
        wish = wished(*lines, CLASSES)
    except InvalidRequest:
        return
    assert wish.class_ is None or wish.class_ in CLASSES
    assert wish.max_wait_s >= 0


@pytest.mark.parametrize(
    ("class_", "tier", "wanted"),
    [
        (None, "flex", "batch"),
        (None, "priority", "interactive"),
        (None, "auto", None),
        (None, "default", None),
        (None, "scale", None),
        (None, "cheap", None),
        (None, 7, None),
        (None, None, None),
        (None, ["flex"], None),
        ("standard", "flex", "standard"),
        ("anonymous", "priority", "anonymous"),
    ],
)
def test_a_tier_is_a_class(class_: str | None, tier: object, wanted: str | None) -> None:
    """The class that claims it, unless a header names one; any other is the engine's to judge."""
    assert Wish(class_, 3.0).or_tier(tier, CLASSES) == Wish(wanted, 3.0)


@pytest.mark.parametrize(
    ("own", "ceiling", "wish", "served", "max_wait_s"),
    [
        (None, None, Wish(), "standard", 60),
        (None, None, Wish("batch"), "batch", 600),
        (None, None, Wish("standard"), "standard", 60),
        (None, None, Wish("interactive"), "standard", 60),
        ("interactive", None, Wish("interactive"), "interactive", 30),
        ("interactive", None, Wish("batch", 10.0), "batch", 10),
        ("interactive", "batch", Wish("standard"), "batch", 600),
        ("interactive", "standard", Wish("anonymous"), "anonymous", 30),
        ("standard", "interactive", Wish("interactive"), "standard", 60),
        ("batch", None, Wish("interactive", 700.0), "batch", 600),
        ("batch", None, Wish(max_wait_s=0.0), "batch", 0),
        (None, None, Wish(max_wait_s=59.5), "standard", 59.5),
        (None, None, Wish(max_wait_s=60.5), "standard", 60),
    ],
)
def test_class_served(
    own: str | None, ceiling: str | None, wish: Wish, served: str, max_wait_s: float
) -> None:
    """The lowest of what it has, may have and asks for; the shorter of two waits; all else kept."""
    gate: Any = Classes()
    caller = replace(Caller("default", "k", frozenset()), class_=own, max_class=ceiling)
    found = class_served(gate, caller, Hold(CLAIM, State.KNOWN), wish)
    assert found == CLASSES[served].model_copy(update={"max_wait_s": max_wait_s})


class Classes:
    """What of a gate tells the classes."""

    classes = CLASSES


def test_a_wish_alone_gives_nothing() -> None:
    """Whoever wishes nothing waits in the class as the settings have it."""
    assert Wish().max_wait_s == math.inf
    assert all(Wish().shortened(one) is one for one in CLASSES.values())


@pytest.mark.parametrize(
    ("headers", "more", "served"),
    [
        ({}, {}, "standard"),
        ({PRIORITY: "batch"}, {}, "batch"),
        ({}, {"service_tier": "flex"}, "batch"),
        ({PRIORITY: "standard"}, {"service_tier": "flex"}, "standard"),
    ],
)
async def test_a_refusal_counts_in_the_class_that_was_wished_for(
    house: House, headers: dict[str, str], more: dict[str, Any], served: str
) -> None:
    """The reply names it, and the ledger counts it there; so it is when the body is wrong."""
    house.gate.classes = {
        "standard": QueueClass(name="standard", max_wait_s=0.1),
        "batch": QueueClass(name="batch", max_wait_s=0.1, service_tier="flex"),
    }
    key, _ = await house.key()
    async with house.client(key) as client:
        for asked in (body(**more), body(stream="yes", **more)):
            said = await client.post(CHAT, json=asked, headers=headers)
            assert said.status_code in (400, 429, 503), said.text
            assert said.headers["x-served-class"] == served
    await house.gate.ledger.pay()
    rows = (await house.tell(key, **house.lately))["data"]
    assert sum(row["refused"] for row in rows if row["class"] == served) == 2


@pytest.mark.parametrize("header", [PRIORITY, MAX_WAIT])
async def test_a_mistake_is_told_to_who_may_call(house: House, header: str) -> None:
    """Strangers learn that they are strangers, and nothing of the classes."""
    wrong = {header: "urgent"}
    async with house.client(PLAIN) as client:
        said = await client.post(CHAT, json=body(), headers=wrong)
    assert said.status_code == 400
    told = said.json()["error"]
    assert (told["code"], told["param"]) == ("invalid_request", header)
    reader, _ = await house.key(permissions=["read_models"])
    for key, status in ((reader, 403), ("not-a-key", 401)):
        async with house.client(key) as client:
            said = await client.post(CHAT, json=body(), headers=wrong)
        assert said.status_code == status
        assert "batch" not in said.text


@pytest.mark.parametrize(
    ("headers", "more", "sent"),
    [
        ({}, {}, None),
        ({}, {"priority": -7}, 0),
        ({PRIORITY: "batch"}, {}, 1),
        ({PRIORITY: "batch"}, {"priority": -7}, 1),
    ],
)
async def test_the_engine_is_told_the_rank_of_the_class(
    house: House, headers: dict[str, str], more: dict[str, Any], sent: int | None
) -> None:
    """Whatever the client says; of the highest class nothing is said."""
    heard: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        heard.append(await request.json())
        return web.json_response({"usage": {"prompt_tokens": 1, "completion_tokens": 1}})

    engine = web.Application()
    engine.router.add_post(CHAT, answer)
    runner = web.AppRunner(engine)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    await registry.beat(house.gate.line._store, "m", "r", 8, Address("127.0.0.1", port, "s"))
    async with house.client(PLAIN) as client:
        said = await client.post(CHAT, json=body(**more), headers=headers)
    await runner.cleanup()
    assert said.status_code == 200, said.text
    assert heard[0].get("priority") == sent
