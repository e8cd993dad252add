"""The page at /docs, in a real browser that reaches this machine only (CONTRACT §1.7, §2)."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn

from serve_app.ingress import TABLE, docs
from serve_app.ingress.exchange import Exchange, Receive, Scope, Send
from serve_app.ports import free_port
from tests import browser as browsing
from tests.browser import Tab

KEY = "sg-default-a-key-that-is-seen-nowhere"
NO_GATE: Any = None
EVERY_ROUTE = sorted(f"{entry.method} {entry.path.replace(':path', '')}" for entry in TABLE)
CHAT = "#post_v1_chat_completions"


@dataclass
class Site:
    """The page's two handlers, and in place of the other routes an echo that notes what came.

    Attributes:
        came: method, path with query, ``authorization`` and body of each request.
        more: set to let a stream go on after its first event.
        left: set when a client hung up in the middle of a stream.
    """

    port: int
    came: list[tuple[str, str, str | None, str]] = field(default_factory=list)
    more: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange({**scope, "table": TABLE}, receive, send)
        if exchange.path.endswith("/docs"):
            await docs.page(NO_GATE, exchange)
        elif exchange.path.endswith("/openapi.json"):
            await docs.reference(NO_GATE, exchange)
        else:
            await self._echo(exchange)

    async def _echo(self, exchange: Exchange) -> None:
        body = (await exchange.receive())["body"].decode()
        query = exchange.scope["query_string"].decode()
        path = exchange.scope["raw_path"].decode() + (f"?{query}" if query else "")
        self.came.append((exchange.method, path, exchange.header("authorization"), body))
        if '"stream"' in body:
            await self._stream(exchange)
        else:
            await exchange.reply(200, {"asked": path}, {"x-served-class": "standard"})

    async def _stream(self, exchange: Exchange) -> None:
        await exchange.start(200, {"content-type": "text/event-stream"})
        await exchange.write(b'data: {"n":1}\n\n')
        going_on = asyncio.create_task(self.more.wait())
        leaving = asyncio.create_task(exchange.receive())
        await asyncio.wait({going_on, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if leaving.done():
            self.left.set()
        else:
            await exchange.write(b"data: [DONE]\n\n", more=False)
        for task in (going_on, leaving):
            task.cancel()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """The page, served on loopback."""
    made = Site(free_port())
    config = uvicorn.Config(made, port=made.port, lifespan="off", ws="none", log_level="error")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)  # a server tells nobody when it listens
    yield made
    server.should_exit = True
    await serving


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a browser."""
    with browsing.browser(tmp_path_factory.mktemp("browser")) as address:
        yield address


@pytest.fixture
async def tab(browser: str, site: Site) -> AsyncIterator[Tab]:
    """The page, open and drawn."""
    async with browsing.tab(browser) as opened:
        await opened.open(f"{site.url}/docs")
        await opened.until("!!document.querySelector('.route, [role=alert]')")
        yield opened


async def opened(tab: Tab, route: str) -> None:
    """Follow the link to ``route``, as a click in the list does."""
    await tab.run(f"document.querySelector('nav [href=\"{route}\"]').click()")
    await tab.until(f"document.querySelector('{route}').open")


async def sent(tab: Tab, route: str) -> str:
    """Press the button of ``route`` and return what the page shows of the reply."""
    await tab.run(f"document.querySelector('{route} form button').click()")
    await tab.until(f"/^\\d+ after|stopped|rror/.test({told(route)})")
    return str(await tab.run(f"document.querySelectorAll('{route} form pre')[1].textContent"))


def told(route: str) -> str:
    """The expression for what the page says beside the buttons of ``route``."""
    return f"document.querySelector('{route} form [role=status]').textContent"


async def test_every_route_is_drawn(tab: Tab, site: Site) -> None:
    """The page shows every route, complains about nothing and asks this gate only."""
    drawn = await tab.run(
        "[...document.querySelectorAll('.route > summary')].map((one) => "
        "[...one.querySelectorAll('.method, .path')].map((part) => part.textContent).join(' '))"
    )
    permissions = await tab.run(
        "[...document.querySelectorAll('.chip')].map((one) => one.textContent)"
    )
    assert sorted(drawn) == EVERY_ROUTE
    assert set(permissions) == {entry.permission or "open" for entry in TABLE}
    assert tab.asked == [f"{site.url}/docs", f"{site.url}/openapi.json"]
    assert tab.complaints == []


async def test_it_works_under_the_other_prefix(tab: Tab, site: Site) -> None:
    """Under ``/api`` the page shows that prefix's own document and addresses."""
    await tab.open(f"{site.url}/api/docs")
    await tab.until("!!document.querySelector('.route')")
    assert tab.asked[-1] == f"{site.url}/api/openapi.json"
    assert f"{site.url}/api/v1/models" in await tab.run(
        "document.querySelector('#get_v1_models form pre').textContent"
    )


async def test_what_the_line_heeds_is_told(tab: Tab) -> None:
    """The headers of inference stand in its table, and are no fields of a query to be tried."""
    route = "document.querySelector('#post_v1_chat_completions')"
    listed = await tab.run(f"{route}.querySelector('table').textContent")
    assert "x-priority" in listed
    assert "x-max-wait-s" in listed
    assert await tab.run(f"{route}.querySelectorAll('form input').length") == 0


async def test_a_route_can_be_tried(tab: Tab, site: Site) -> None:
    """What is filled in is what is sent and what the curl line says; the reply is shown."""
    route = "#get_v1_auth_api_keys"
    await opened(tab, route)
    await tab.type("#key", KEY)
    await tab.type(f"{route} input[name=limit]", "5")
    await tab.type(f"{route} input[name=tenant]", "a&b c")
    reply = await sent(tab, route)
    assert site.came == [("GET", "/v1/auth/api-keys?tenant=a%26b+c&limit=5", f"Bearer {KEY}", "")]
    assert "x-served-class: standard" in reply
    assert '"asked": "/v1/auth/api-keys?tenant=a%26b+c&limit=5"' in reply
    assert re.fullmatch(r"200 after \d+ ms", await tab.run(told(route)))
    curl = await tab.run(f"document.querySelector('{route} form pre').textContent")
    assert f"'{site.url}/v1/auth/api-keys?tenant=a%26b+c&limit=5'" in curl
    assert "$SLUICEGATE_ADMIN_KEY" in curl


async def test_a_field_of_the_path_is_needed(tab: Tab, site: Site) -> None:
    """Nothing is sent while a path's field is empty; a model's slashes stay, the rest is quoted."""
    route = "#get_v1_models_model"
    await opened(tab, route)
    await tab.run(f"document.querySelector('{route} form button').click()")
    assert site.came == []
    await tab.type(f"{route} input", "org/name?x#y")
    await sent(tab, route)
    assert [path for _, path, *_ in site.came] == ["/v1/models/org/name%3Fx%23y"]


async def test_an_example_is_ready_to_be_sent(tab: Tab, site: Site) -> None:
    """A body's example is sent as it stands, unless the caller changes it."""
    await opened(tab, CHAT)
    await sent(tab, CHAT)
    ((method, path, shown, body),) = site.came
    assert (method, path, shown) == ("POST", "/v1/chat/completions", None)
    assert json.loads(body)["messages"] == [{"role": "user", "content": "Hello!"}]
    await tab.type(f"{CHAT} textarea", '{"it\'s": 1}')
    assert "'{\"it'\\''s\": 1}'" in await tab.run(
        f"document.querySelector('{CHAT} form pre').textContent"
    )


async def test_the_key_is_seen_nowhere(tab: Tab, site: Site) -> None:
    """A key goes into one header of the requests that need it, and is in no URL, text or store."""
    await tab.type("#key", KEY)
    for route in ("#get_v1_models", "#get_health"):
        await opened(tab, route)
        await sent(tab, route)
    assert [(path, shown) for _, path, shown, _ in site.came] == [
        ("/v1/models", f"Bearer {KEY}"),
        ("/health", None),
    ]
    assert not any(KEY in url for url in tab.asked)
    kept = await tab.run(
        "indexedDB.databases().then((made) => JSON.stringify([{...localStorage}, "
        "{...sessionStorage}, document.cookie, made, location.href, history.state, "
        "document.documentElement.outerHTML]))"
    )
    assert KEY not in kept
    assert json.loads(kept)[:4] == [{}, {}, "", []]
    await tab.call("Page.reload")
    await tab.until("document.querySelector('#key')?.value === ''")


async def test_a_stream_is_shown_as_it_comes(tab: Tab, site: Site) -> None:
    """The first event is seen before the second is made; then the whole, and how long it took."""
    await opened(tab, CHAT)
    await tab.type(f"{CHAT} textarea", '{"stream": true}')
    await tab.run(f"document.querySelector('{CHAT} form button').click()")
    await tab.until(f"document.querySelector('{CHAT} form').textContent.includes('{{\"n\":1}}')")
    assert await tab.run(told(CHAT)) == "waiting …"
    site.more.set()
    await tab.until(f"/^200 after/.test({told(CHAT)})")
    assert "[DONE]" in await tab.run(f"document.querySelector('{CHAT} form').textContent")


async def test_a_stream_can_be_stopped(tab: Tab, site: Site) -> None:
    """The button that sent it ends it: the gate sees the client leave."""
    await opened(tab, CHAT)
    await tab.type(f"{CHAT} textarea", '{"stream": true}')
    button = f"document.querySelector('{CHAT} form button')"
    await tab.run(f"{button}.click()")
    await tab.until(f"document.querySelector('{CHAT} form').textContent.includes('{{\"n\":1}}')")
    assert await tab.run(f"{button}.textContent") == "Stop"
    await tab.run(f"{button}.click()")
    await asyncio.wait_for(site.left.wait(), 10)
    await tab.until(f"{button}.textContent === 'Send POST'")


async def test_nothing_else_runs_and_nowhere_else_is_asked(tab: Tab, site: Site) -> None:
    """A script that gets into the page does not run, and the page reaches no other origin."""
    other = f"http://127.0.0.1:{free_port()}/"
    tried = await tab.run(
        "(async () => { const made = document.createElement('script');"
        "const told = [];"
        "try { made.textContent = 'window.ran = true'; document.body.append(made); }"
        "catch (error) { told.push(error.name); }"
        "try { document.body.innerHTML = '<b>'; } catch (error) { told.push(error.name); }"
        f"await fetch('{other}').catch((error) => told.push(error.name));"
        "return [window.ran === true, told]; })()"
    )
    assert tried == [False, ["TypeError", "TypeError", "TypeError"]]
    assert site.came == []
    assert any("Content Security Policy" in one for one in tab.complaints)


async def test_a_route_is_found_by_its_words(tab: Tab) -> None:
    """The filter leaves the routes that have every word, in page and list, and counts them."""
    await tab.type("#filter", "manage_users revocations")
    left = "[...document.querySelectorAll('%s:not([hidden])')].map((one) => one.textContent)"
    assert len(await tab.run(left % ".route")) == len(await tab.run(left % "nav li")) == 1
    assert await tab.run(left % "nav li") == ["POST/v1/auth/revocations"]
    assert len(await tab.run(left % "main section")) == 1
    assert await tab.run("document.querySelector('#found').textContent") == "1 routes"


async def test_a_link_opens_its_route(tab: Tab, site: Site) -> None:
    """An address with a route's name shows that route, open and in sight."""
    await tab.open(f"{site.url}/docs{CHAT}")
    await tab.until(f"!!document.querySelector('{CHAT}')?.open")
    top = await tab.until(f"document.querySelector('{CHAT}').getBoundingClientRect().top")
    assert 0 < top < 400


async def test_without_a_document_it_says_so(tab: Tab) -> None:
    """When openapi.json cannot be read the page says that, aloud."""
    await tab.call("Network.setBlockedURLs", urls=["*openapi.json"])
    await tab.call("Page.reload")
    await tab.until("!!document.querySelector('[role=alert]')")
    assert "openapi.json cannot be read" in await tab.run("document.body.innerText")


async def test_every_control_has_a_name(tab: Tab) -> None:
    """Whoever hears the page instead of seeing it is told what each control is."""
    await tab.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    tree = await tab.call("Accessibility.getFullAXTree")
    roles = {"button", "textbox", "searchbox", "link", "DisclosureTriangle", "navigation", "region"}
    controls = [node for node in tree["nodes"] if node.get("role", {}).get("value") in roles]
    nameless = [node for node in controls if not node.get("name", {}).get("value", "").strip()]
    fields = "[...document.querySelectorAll('input, textarea')]"
    unlabelled = await tab.run(f"{fields}.filter((one) => !one.labels.length).length")
    assert len(controls) > 3 * len(TABLE)
    assert (nameless, unlabelled) == ([], 0)


CONTRAST = """
(() => {
  const light = (colour) => {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((one) => one / 255);
    const [r, g, b] = parts.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (one) => {
    const colour = getComputedStyle(one).backgroundColor;
    return /, 0\\)$/.test(colour) ? ground(one.parentElement) : colour;
  };
  document.querySelectorAll("details").forEach((one) => { one.open = true; });
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = {};
  while (texts.nextNode()) {
    const one = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || ["SCRIPT", "NOSCRIPT"].includes(one.tagName)) continue;
    const pair = [light(getComputedStyle(one).color), light(ground(one))].sort((a, b) => b - a);
    found[`${one.tagName} ${one.className}`] = (pair[0] + 0.05) / (pair[1] + 0.05);
  }
  return found;
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_can_be_read(tab: Tab, scheme: str) -> None:
    """Every text stands out from its ground by 4.5 to 1 or more, by day and by night."""
    await tab.call(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
    )
    ground = await tab.run("getComputedStyle(document.body).backgroundColor")
    contrasts = await tab.run(CONTRAST)
    assert (ground == "rgb(246, 247, 249)") == (scheme == "light")
    assert len(contrasts) > 15
    assert {what: ratio for what, ratio in contrasts.items() if ratio < 4.5} == {}
