"""Captures: whole requests and replies of single keys, one JSON object a line, without credentials.

begun ─→ take … ─→ keep ─→ one thread: redacted, appended ─→ <folder>/<key id>-<day>.jsonl
└── what has no room in memory, on the disk or within the bounds is counted as lost ──┘
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from serve_app.settings import Capture
from serve_app.telemetry.captured import Captured, to_json

HELD_MAX_BYTES = 67_108_864
"""Bytes of captures that wait in memory, in all of a gateway."""

RECORD_BYTES = 16_384
"""Bytes that a record counts beside its bodies."""

FREE_MIN_BYTES = 268_435_456
"""Bytes that captures leave free on the disk: the store's own file may lie on it."""

DAY_S = 86_400
SWEEP_S = 600.0
WARN_S = 60.0
CLOSE_S = 5.0
_log = logging.getLogger("sluicegate.captures")


class Captures:
    """Writes captures to files, beside the event loop; what fails there fails no request.

    Args:
        folder: where to; made, for its owner alone, with the first file.
        settings: the bounds.
    """

    def __init__(self, folder: Path, settings: Capture) -> None:
        self._folder, self._settings = folder, settings
        self._thread = ThreadPoolExecutor(1, "captures")
        self._keeping: set[asyncio.Task[None]] = set()
        self._held_bytes = self._lost = 0
        self._swept_s = self._warned_s = -WARN_S - SWEEP_S

    @property
    def max_minutes(self) -> int:
        """Minutes that one capture of a key may last; 0 lets nobody capture."""
        return self._settings.max_minutes

    def lost(self) -> int:
        """Return how many exchanges were to be captured and are in no file."""
        return self._lost

    def begun(self) -> bool:
        """Return whether one more exchange may be captured; if not, it is counted as lost."""
        if self._held_bytes + RECORD_BYTES > HELD_MAX_BYTES:
            self._lose("too many of them wait to be written")
            return False
        self._held_bytes += RECORD_BYTES
        return True

    def take(self, captured: Captured, piece: bytes) -> None:
        """Keep a piece of the reply, from the first on, until there is no room for one."""
        left = self._settings.max_body_bytes - captured.kept_bytes
        room = min(left, HELD_MAX_BYTES - self._held_bytes)
        if captured.kept_bytes == captured.reply_bytes and room > 0:
            captured.pieces.append(piece[:room])
            captured.kept_bytes += len(captured.pieces[-1])
            self._held_bytes += len(captured.pieces[-1])
        captured.reply_bytes += len(piece)

    def keep(self, captured: Captured) -> None:
        """Write what was begun, soon."""
        self._held_bytes += captured.body_bytes
        task = asyncio.get_running_loop().create_task(self._kept(captured))
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)

    async def _kept(self, captured: Captured) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, captured)
        except (OSError, RuntimeError) as err:  # no room, no right, or the thread has ended
            self._lose(str(err))
        finally:
            self._held_bytes -= RECORD_BYTES + captured.body_bytes + captured.kept_bytes

    def _write(self, captured: Captured) -> None:
        """Add a line; in the thread.

        Raises:
            OSError: it does not fit, or nothing can be written here.
        """
        line = to_json(captured, self._settings.max_body_bytes).encode() + b"\n"
        day = datetime.fromtimestamp(captured.at_s, UTC).strftime("%Y-%m-%d")
        path = self._folder / f"{re.sub('[^0-9A-Za-z]', '_', captured.key_id)}-{day}.jsonl"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        self._make_room(len(line), path)
        append(path, line)

    def _make_room(self, size: int, path: Path) -> None:
        """Remove the oldest files until ``size`` bytes fit; never ``path`` itself.

        Raises:
            OSError: they fit nowhere.
        """
        files = self._files()
        total = sum(one.st_size for _, one in files) + size
        for other, one in files:
            if total > self._settings.max_bytes and other != path:
                other.unlink(missing_ok=True)
                total -= one.st_size
        if total > self._settings.max_bytes:
            raise OSError(f"{path.name} alone has capture.max_bytes")
        if shutil.disk_usage(self._folder).free - size < FREE_MIN_BYTES:
            raise OSError("the disk is nearly full")

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        """Return the files there are, oldest first; others may write here, too."""
        found = []
        for path in self._folder.glob("*.jsonl"):
            with contextlib.suppress(FileNotFoundError):
                found.append((path, path.stat()))
        return sorted(found, key=lambda one: one[1].st_mtime)

    async def tend(self) -> None:
        """Remove what is older than it may be; every ten minutes, however often it is called."""
        if time.monotonic() - self._swept_s >= SWEEP_S:
            self._swept_s = time.monotonic()
            with contextlib.suppress(OSError):  # later, then
                await asyncio.get_running_loop().run_in_executor(self._thread, self._sweep)

    def _sweep(self) -> None:
        oldest_s = time.time() - self._settings.keep_days * DAY_S
        for path, one in self._files():
            if one.st_mtime < oldest_s:
                path.unlink(missing_ok=True)

    async def close(self) -> None:
        """Write what was kept, as far as it takes no longer than a moment."""
        if self._keeping:
            await asyncio.wait(self._keeping, timeout=CLOSE_S)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _lose(self, why: str) -> None:
        self._lost += 1
        if time.monotonic() - self._warned_s >= WARN_S:
            self._warned_s = time.monotonic()
            _log.warning("a capture was lost, the %dth: %s", self._lost, why)


def append(path: Path, line: bytes) -> None:
    """Add ``line`` to a file that only its owner may read; all of it or nothing.

    Raises:
        OSError: nothing was added.
    """
    how = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(path, how, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)  # other gateways of this node write here, too
        before = os.fstat(file).st_size
        try:
            written = os.write(file, line)
        except OSError:
            os.ftruncate(file, before)
            raise
        if written < len(line):
            os.ftruncate(file, before)
            raise OSError("the disk is full")
    finally:
        os.close(file)
