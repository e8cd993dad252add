"""What a store can suffer: each a state of its own, told at once and over as soon as it is over.

The servers are real ones, put into that state; only what takes connections and never answers is a
fake.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from serve_app.errors import StoreUnavailable
from serve_app.store import Store, Watch, keys
from tests.stores import Fake, Server, timed

TIMEOUT_S = 0.1
NOISE_S = 0.5
"""What a busy machine may add to a measured time."""
RECOVERY_S = 1.0
PASSWORD = "the-right-one"
NUMBERS = itertools.count()


@dataclass(frozen=True)
class Ill:
    """One state, and how a server gets into it and out of it.

    Attributes:
        state: its name.
        words: what the refusal says to the operator.
        get: brings the server into it.
        mend: brings it out.
        away: whether nothing at all can be had.
    """

    state: str
    words: str
    get: Callable[[Server], object]
    mend: Callable[[Server], object]
    away: bool = True


def configured(name: str, ill: str | int, well: str | int) -> dict[str, Callable[[Server], object]]:
    """Return how a setting of the server makes it ill and well."""
    return {
        "get": lambda server: server.told("CONFIG", "SET", name, ill),
        "mend": lambda server: server.told("CONFIG", "SET", name, well),
    }


def become_a_lost_replica(server: Server) -> None:
    """Follow a primary that is not there, and answer nobody meanwhile."""
    server.told("CONFIG", "SET", "replica-serve-stale-data", "no")
    server.told("REPLICAOF", "127.0.0.1", 1)


def change_the_password(server: Server) -> None:
    server.told("CONFIG", "SET", "requirepass", "another")
    with server.client(password="another") as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal")


def restore_the_password(server: Server) -> None:
    with server.client(password="another") as client:
        client.config_set("requirepass", "")


def load_slowly(server: Server) -> None:
    """Start again with so much data that reading it takes half a minute."""
    server.told("DEBUG", "POPULATE", 100_000, "key", 8)
    server.told("SAVE")
    server.kill()
    server.start()


ILLS = [
    Ill("unreachable", "cannot be reached", lambda s: s.kill(), lambda s: s.start()),
    Ill("timeout", "does not answer in time", lambda s: s.pause(), lambda s: s.go_on()),
    Ill(
        "loading",
        "is still reading its data",
        load_slowly,
        lambda s: s.told("CONFIG", "SET", "key-load-delay", 0),
    ),
    Ill(
        "failing_over",
        "has no primary just now",
        become_a_lost_replica,
        lambda s: s.told("REPLICAOF", "NO", "ONE"),
    ),
    Ill(
        "wrong_password",
        "refuses our user or password",
        change_the_password,
        restore_the_password,
    ),
    Ill(
        "read_only",
        "is a replica and takes no writes",
        lambda s: s.told("REPLICAOF", "127.0.0.1", 1),
        lambda s: s.told("REPLICAOF", "NO", "ONE"),
        away=False,
    ),
    Ill("out_of_memory", "is out of memory", away=False, **configured("maxmemory", 1, 0)),
    Ill(
        "refusing_writes",
        "refuses writes",
        away=False,
        **configured("min-replicas-to-write", 1, 0),
    ),
    Ill(
        "no_scripts",
        "runs no scripts for us",
        lambda s: s.told("ACL", "SETUSER", "default", "-@scripting"),
        lambda s: s.told("ACL", "SETUSER", "default", "+@scripting"),
        away=False,
    ),
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of this test's own."""
    started = Server(
        tmp_path,
        "maxmemory-policy noeviction",
        "enable-debug-command local",
        "key-load-delay 200",
        "loading-process-events-interval-bytes 1024",
    )
    yield started
    started.end()


@asynccontextmanager
async def opened(
    url: str, timeout_s: float = TIMEOUT_S, watch: Watch | None = None
) -> AsyncIterator[Store]:
    """Lend a store that has answered once."""
    store = Store(url, timeout_ms=round(timeout_s * 1_000), watch=watch)
    try:
        await back(store)
        yield store
    finally:
        await store.close()


async def write(store: Store, tenant: str = "t") -> None:
    """Make a call that writes."""
    await store.run("token_revoke", [keys.revoked(tenant, str(next(NUMBERS)))], [60])


async def back(store: Store, tenant: str = "t") -> float:
    """Return how many seconds it takes until a write succeeds; give up after ten."""
    began_s = time.monotonic()
    while time.monotonic() - began_s < 10:
        with suppress(StoreUnavailable):
            await write(store, tenant)
            return time.monotonic() - began_s
        await asyncio.sleep(0.01)
    raise AssertionError(f"it is still {store.state}")


@pytest.mark.parametrize("ill", ILLS, ids=lambda ill: ill.state)
async def test_each_failure_is_a_state_of_its_own(server: Server, ill: Ill) -> None:
    """It has a name and says what to do; it comes within the time limit, and then at once.

    When the server is well again, so are we, within a second and with nobody's help.
    """
    async with opened(server.url) as store:
        await asyncio.to_thread(ill.get, server)
        with timed() as first, pytest.raises(StoreUnavailable) as told:
            await write(store)
        assert told.value.details == {"state": ill.state} == {"state": store.state}
        assert (told.value.retry_after_s, told.value.refused_by) == (1.0, "state_store_unavailable")
        assert ill.words in str(told.value)
        assert ill.words in (store.message or "")
        assert "redis://" not in str(told.value)
        assert first[0] < TIMEOUT_S + NOISE_S
        with timed() as second, pytest.raises(StoreUnavailable) as again:
            await write(store)
        assert again.value.details == {"state": ill.state}
        assert second[0] < (TIMEOUT_S / 2 if ill.away else TIMEOUT_S + NOISE_S)

        await asyncio.to_thread(ill.mend, server)
        took_s = await back(store)
        async with asyncio.timeout(5):
            while store.state != "ok":
                await asyncio.sleep(0.01)
        told_s = f"{ill.state}: refused in {first[0] * 1e3:.1f}, then {second[0] * 1e3:.2f} ms; "
        print(f"{told_s} back after {took_s * 1e3:.0f} ms")
        assert took_s < RECOVERY_S + NOISE_S
        assert store.message is None


@pytest.mark.parametrize("state", ["out_of_memory", "read_only", "refusing_writes"])
async def test_a_store_that_takes_no_writes_is_still_read(server: Server, state: str) -> None:
    """What only reads, or frees memory, must not be refused with the rest."""
    (ill,) = [one for one in ILLS if one.state == state]
    async with opened(server.url) as store:
        await store.keep("sg:{a}:x", "kept")
        ill.get(server)
        with pytest.raises(StoreUnavailable):
            await write(store)
        assert await store.text("sg:{a}:x") == "kept"
        if state == "out_of_memory":
            await store.remove("sg:{a}:x")


async def test_a_store_that_never_answers_holds_nobody_up() -> None:
    """It takes connections and says nothing: one waits for the time limit, the others do not.

    Whoever comes later is refused without a connection of its own.
    """
    fake = Fake()
    store = Store(fake.url, timeout_ms=100)
    with timed() as crowd:
        told = await asyncio.gather(*(write(store) for _ in range(200)), return_exceptions=True)
    assert {one.details["state"] for one in told if isinstance(one, StoreUnavailable)} == {
        "timeout"
    }
    assert len(told) == 200
    assert crowd[0] < 2.0  # two hundred tracebacks take a busy machine a while
    connections = fake.taken
    with timed() as later:
        for _ in range(1_000):
            with pytest.raises(StoreUnavailable):
                await write(store)
    print(f"200 at once: {crowd[0] * 1e3:.0f} ms; then 1,000 in turn: {later[0] * 1e3:.0f} ms")
    assert later[0] < 0.5
    assert fake.taken <= connections + 4  # probes
    await store.close()
    fake.end()


async def test_a_probe_at_a_time_knocks_gently() -> None:
    """A server that is away is asked five times a second, whatever the traffic."""
    fake = Fake()
    store = Store(fake.url, timeout_ms=50)
    ends_s = time.monotonic() + 1.0
    while time.monotonic() < ends_s:
        with suppress(StoreUnavailable):
            await write(store)
        await asyncio.sleep(0.002)
    assert 3 <= fake.taken <= 7
    await store.close()
    fake.end()


@pytest.mark.parametrize("state", ["unreachable", "timeout", "loading", "wrong_password"])
async def test_a_listener_hears_again_within_a_second(server: Server, state: str) -> None:
    """Its connection is lost with the others, and made anew when the store is well."""
    (ill,) = [one for one in ILLS if one.state == state]
    async with opened(server.url) as store:
        heard: asyncio.Queue[str] = asyncio.Queue()
        listening = asyncio.create_task(listen(store, heard))
        await spoken(server, heard)
        await asyncio.to_thread(ill.get, server)
        with pytest.raises(StoreUnavailable):
            await write(store)
        await asyncio.sleep(0.6)  # the listener has noticed
        while not heard.empty():
            heard.get_nowait()
        await asyncio.to_thread(ill.mend, server)
        with timed() as took:
            await spoken(server, heard)
        print(f"{state}: heard again after {took[0] * 1e3:.0f} ms")
        assert took[0] < RECOVERY_S + NOISE_S
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def listen(store: Store, heard: "asyncio.Queue[str]") -> None:
    """Listen as a gateway's line does, again and again."""
    while True:
        with suppress(StoreUnavailable):
            async for message in store.hear("sg:wake:test"):
                heard.put_nowait(message)
        await asyncio.sleep(0.05)


async def spoken(server: Server, heard: "asyncio.Queue[str]") -> None:
    """Publish until it is heard."""
    with server.client() as client:
        while heard.empty():
            with suppress(redis.RedisError):
                client.publish("sg:wake:test", "now")
            await asyncio.sleep(0.01)


async def test_a_command_refused_for_its_own_sake_is_no_state(server: Server) -> None:
    """A key of a wrong type is one request's trouble; the others go on, and the gate is ready."""
    async with opened(server.url) as store:
        server.told("LPUSH", keys.key_record("t", "k"), "no hash")
        with pytest.raises(StoreUnavailable) as told:
            await store.fields(keys.key_record("t", "k"), "sha256")
        assert told.value.details == {"state": "command_refused"}
        assert store.state == "ok"
        await write(store)


async def test_a_hiccup_costs_only_those_it_meets(server: Server) -> None:
    """After one slow answer the store is asked at once, and is well again in a moment."""
    async with opened(server.url) as store:
        slow = asyncio.create_task(asyncio.to_thread(server.told, "DEBUG", "SLEEP", "0.15"))
        await asyncio.sleep(0.02)
        with pytest.raises(StoreUnavailable, match="does not answer in time"):
            await write(store)
        took_s = await back(store)
        await slow
        assert took_s < 0.05 + 2 * TIMEOUT_S + NOISE_S


async def test_nothing_secret_is_told(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the refusal nor the log shows the password, right or wrong."""
    server.told("CONFIG", "SET", "requirepass", PASSWORD)
    store = Store(f"redis://:hunter2@127.0.0.1:{server.port}/0", timeout_ms=500)
    with pytest.raises(StoreUnavailable) as told:
        await write(store)
    assert told.value.details == {"state": "wrong_password"}
    assert "hunter2" not in str(told.value) + caplog.text
    assert "SLUICEGATE_STORE_URL" in str(told.value)
    await store.close()
