"""One engine process: started under a reaper, watched, ended with its whole family."""

import asyncio
import os
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from serve_app import reaper
from serve_app.engine.guard import KEY_ENV
from serve_app.engine.offer import EngineLoad
from serve_app.store import Address

POLL_S = 0.1
HEALTH_S = 8.0
"""Seconds within which a healthy engine says so."""
OURS_ONLY = ("SLUICEGATE_", "RAY_AUTH_", "OMP_NUM_THREADS")
"""What no engine inherits: our secrets, Ray's token, and the 1 that Ray sets for threads."""


class EngineStartError(RuntimeError):
    """The engine did not become healthy; the message ends with its last words. None is left.

    Attributes:
        outline: what happened and which log knows more, without a word of the engine's own.
    """

    outline = "the engine did not start"


class EngineProcess:
    """A running engine; :meth:`start` before use, :meth:`stop` after.

    Args:
        argv: its command line.
        address: where it will listen.
        env: variables it gets on top of ours; our own secrets are taken out.
        niceness: how far it stands back for others, as ``nice`` counts.
        log: file for what it prints.
    """

    def __init__(
        self,
        argv: list[str],
        address: Address,
        *,
        env: Mapping[str, str],
        log: Path,
        niceness: int = 0,
    ) -> None:
        self._argv = ["nice", "-n", str(niceness), *argv] if niceness else argv
        self.address = address
        self._env = env
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._scratch = tempfile.TemporaryDirectory(prefix="sluicegate-engine-")

    async def start(self, timeout_s: float) -> None:
        """Start the engine and return when it is healthy.

        Raises:
            EngineStartError: it ended, or was not healthy in ``timeout_s``; it is ended.
        """
        self._log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *reaper.command(*self._argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
            )
        try:
            async with asyncio.timeout(timeout_s):
                await self._healthy()
        except TimeoutError:
            await self.stop()
            raise self._failed(f"was not healthy in {timeout_s:g} s") from None

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(OURS_ONLY)}
        quiet = {
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_HOST_IP": self.address.host,
            "TMPDIR": self._scratch.name,  # vLLM leaves its sockets there
        }
        return {**kept, **quiet, **self._env, KEY_ENV: self.address.key}

    async def _healthy(self) -> None:
        while self.exit_code is None:
            if await self.answers(HEALTH_S):
                return
            await asyncio.sleep(POLL_S)  # an engine says nothing when it is ready
        raise self._failed(f"ended with exit code {self.exit_code}")

    async def answers(self, limit_s: float) -> bool:
        """Return whether the engine says within ``limit_s`` that it is well."""
        timeout = aiohttp.ClientTimeout(total=limit_s)
        headers = self.address.headers
        try:
            async with (
                aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
                session.get(f"{self.address.url}/health") as reply,
            ):
                return reply.ok
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def load(self, limit_s: float) -> EngineLoad | None:
        """Return what the engine says of its load; None if it does not say in time."""
        timeout = aiohttp.ClientTimeout(total=limit_s)
        try:
            async with (
                aiohttp.ClientSession(headers=self.address.headers, timeout=timeout) as session,
                session.get(f"{self.address.url}/metrics") as reply,
            ):
                return EngineLoad.from_metrics(await reply.text()) if reply.ok else None
        except (aiohttp.ClientError, TimeoutError):
            return None

    @property
    def exit_code(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.returncode if self._process else None

    async def ended(self) -> str:
        """Wait for the engine's end and return how it ended, in one line."""
        assert self._process is not None, "start first"
        await self._process.wait()
        return self._told(f"ended with exit code {self.exit_code}")

    async def stop(self) -> None:
        """End the engine and all it started; a second call does nothing."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        await self._process.wait()
        self._scratch.cleanup()

    def _failed(self, what: str) -> EngineStartError:
        err = EngineStartError(self._told(what))
        err.outline = f"the engine {what}, see {self._log.name}"
        return err

    def _told(self, what: str) -> str:
        words = " | ".join(last_words(self._log)) or "it said nothing"
        return f"the engine {what}; its log {self._log} ends: {words}"


def last_words(log: Path, lines: int = 8) -> list[str]:
    """Return the last lines of ``log`` that say something, each at most 300 characters."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16_384))
        said = file.read().decode(errors="replace").splitlines()
    return [line.strip()[:300] for line in said if line.strip()][-lines:]
