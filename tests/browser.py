"""A real browser, headless, driven over its own protocol; it reaches this machine only."""

import asyncio
import itertools
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.running import until

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-extensions", "--remote-debugging-port=0",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip
PATIENCE_S = 30.0


class Tab:
    """One page of the browser.

    Attributes:
        asked: the URL of every request that it made.
        complaints: what it wrote to the console as a warning or an error, and what it threw.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.asked: list[str] = []
        self.complaints: list[str] = []

    async def listen(self) -> None:
        """Take in what the browser says, until it ends."""
        async for message in self._socket:
            told = message.json()
            if "id" in told:
                self._answers.pop(told["id"]).set_result(told)
            else:
                self._note(told["method"], told["params"])

    def _note(self, event: str, told: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.asked.append(told["request"]["url"])
        elif event == "Log.entryAdded" and told["entry"]["level"] in ("warning", "error"):
            self.complaints.append(told["entry"]["text"])
        elif event == "Runtime.consoleAPICalled" and told["type"] in ("warning", "error", "assert"):
            self.complaints.append(str([one.get("value") for one in told["args"]]))
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"].get("exception")))

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the browser's answer to one command of its protocol."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        told = await asyncio.wait_for(answer, PATIENCE_S)
        assert "error" not in told, (method, told["error"])
        return dict(told["result"])

    async def run(self, script: str) -> Any:
        """Return what ``script``, an expression, is in the page; a promise is waited for."""
        told = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    async def until(self, script: str) -> Any:
        """Return the first true value of ``script``."""
        deadline_s = asyncio.get_running_loop().time() + PATIENCE_S
        while not (value := await self.run(script)):
            assert asyncio.get_running_loop().time() < deadline_s, f"never true: {script}"
            await asyncio.sleep(0.05)  # a page tells nobody when it is drawn
        return value

    async def open(self, url: str) -> None:
        """Go to ``url``, with everything noted that happens from the first request on."""
        for domain in ("Network", "Log", "Runtime", "Page"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)
        await self.until("location.href !== 'about:blank' && document.readyState === 'complete'")

    async def type(self, selector: str, text: str) -> None:
        """Type ``text`` into the field that ``selector`` finds, in place of what was there."""
        await self.run(f"document.querySelector({selector!r}).select()")
        await self.call("Input.insertText", text=text)


def found() -> str:
    """Return the path of a browser; skip the test if there is none."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no browser on this machine: install Debian's package 'chromium'")
    return path


@contextmanager
def browser(folder: Path) -> Iterator[str]:
    """Start a browser whose profile is ``folder``; yield the address of its protocol; end it."""
    written = folder / "profile" / "DevToolsActivePort"
    with (folder / "said").open("wb") as out:
        process = subprocess.Popen(
            [found(), *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        until(lambda: written.exists() and written.read_text(), PATIENCE_S, "a browser")
        yield f"http://127.0.0.1:{written.read_text().splitlines()[0]}"
    finally:
        process.kill()  # its profile goes with it
        process.wait(PATIENCE_S)


@asynccontextmanager
async def tab(address: str) -> AsyncIterator[Tab]:
    """Open a tab in the browser at ``address``; yield it; close it."""
    async with aiohttp.ClientSession(address) as session:
        async with session.put("/json/new?about:blank") as told:
            made = await told.json()
        async with session.ws_connect(made["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            opened = Tab(socket)
            listening = asyncio.create_task(opened.listen())
            yield opened
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening
        async with session.get(f"/json/close/{made['id']}"):
            pass
