import os
import signal
import threading
from pathlib import Path

import pytest
import redis

from serve_app import reaper
from serve_app.store import EmbeddedStore, running_url
from tests.running import until


def test_what_was_written_survives_a_restart(tmp_path: Path) -> None:
    """The folder outlives the process: keys are there again."""
    first = EmbeddedStore(tmp_path)
    with redis.Redis.from_url(first.url) as client:
        client.set("sg:bootstrap", "made")
    first.stop()

    second = EmbeddedStore(tmp_path)
    with redis.Redis.from_url(second.url) as client:
        assert client.get("sg:bootstrap") == b"made"
    second.stop()


def test_it_refuses_whoever_lacks_the_password(tmp_path: Path) -> None:
    """Its port is no side door."""
    embedded = EmbeddedStore(tmp_path)
    open_url = "redis://" + embedded.url.rpartition("@")[2]
    with redis.Redis.from_url(open_url) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    embedded.stop()


def test_the_password_is_on_no_command_line(tmp_path: Path) -> None:
    """Anybody may read command lines; only the owner may read the folder."""
    embedded = EmbeddedStore(tmp_path)
    password = embedded.url.partition(":")[2].partition(":")[2].partition("@")[0]
    lines = [Path(f"/proc/{pid}/cmdline").read_text() for pid in reaper.descendants(os.getpid())]
    assert lines
    assert not any(password in line for line in lines)
    assert (tmp_path / "valkey.conf").stat().st_mode & 0o077 == 0
    embedded.stop()


def test_two_on_one_folder_are_one_too_many(tmp_path: Path) -> None:
    """The second says who is in the way, and leaves the first alone."""
    first = EmbeddedStore(tmp_path)
    with pytest.raises(RuntimeError, match="another Sluicegate uses the data folder"):
        EmbeddedStore(tmp_path)
    with redis.Redis.from_url(first.url) as client:
        assert client.ping()
    first.stop()


def test_a_killed_valkey_keeps_what_it_had_told(tmp_path: Path) -> None:
    """After a kill, what was written more than a second before is there."""
    first = EmbeddedStore(tmp_path)
    with redis.Redis.from_url(first.url) as client:
        client.set("a", 1)
        client.execute_command("WAITAOF", 1, 0, 2_000)  # until it is on disk
    os.kill(server_in(tmp_path), signal.SIGKILL)
    first.stop()

    second = EmbeddedStore(tmp_path)
    with redis.Redis.from_url(second.url) as client:
        assert client.get("a") == b"1"
    second.stop()


def test_a_valkey_that_dies_is_started_again_at_the_same_url(tmp_path: Path) -> None:
    """Whoever knew the URL still does, and finds what was there."""
    embedded = EmbeddedStore(tmp_path)
    watching = threading.Thread(target=embedded.watch)
    watching.start()
    with redis.Redis.from_url(embedded.url) as client:
        client.set("a", 1)
        client.execute_command("WAITAOF", 1, 0, 2_000)  # until it is on disk
        os.kill(server_in(tmp_path), signal.SIGKILL)
        until(lambda: answers(client), 20, "the restart")
        assert client.get("a") == b"1"
    embedded.stop()
    watching.join(5)
    assert not watching.is_alive()


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def server_in(folder: Path) -> int:
    """Return the pid of the Valkey that works in ``folder``."""
    for pid in reaper.descendants(os.getpid()):
        line = Path(f"/proc/{pid}/cmdline").read_text()
        if "serve_app.reaper" not in line and Path(f"/proc/{pid}/cwd").readlink() == folder:
            return pid
    raise AssertionError("no Valkey there")


def test_programs_beside_the_gate_find_its_store(tmp_path: Path) -> None:
    """The URL is told while it runs, to whoever may read the folder; after that there is none."""
    assert running_url(tmp_path) is None
    embedded = EmbeddedStore(tmp_path / "store")
    assert running_url(tmp_path) == embedded.url
    embedded.stop()
    assert running_url(tmp_path) is None
