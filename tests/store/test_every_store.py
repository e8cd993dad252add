"""One server, a cluster of three primaries, a server behind Sentinel: the rooms see no odds."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_app.auth import (
    Attempts,
    KeyChange,
    KeyRequest,
    Keys,
    Known,
    Revocations,
    Rotation,
    TenantChange,
    TenantRequest,
    Tenants,
    export_keys,
    import_keys,
)
from serve_app.auth.users.passwords import Passwords
from serve_app.auth_settings import BruteForce
from serve_app.errors import QueueCancelled, StoreUnavailable
from serve_app.limits import Charge, Demand, Hold, Holds, Ledger, Usage
from serve_app.queueing import Asks, Kept, Line
from serve_app.queueing.desk import rules_of
from serve_app.settings import QueueClass
from serve_app.store import TEXTS, Address, Loaded, Store, adapters, keys, registry
from serve_app.telemetry import Audit, Entry
from tests.accounts import (
    ACME,
    CLASSES,
    OPERATOR,
    PASSWORD,
    QUICK,
    asked,
    change,
    shown,
    users_on,
)
from tests.holding import Claim
from tests.store.test_failures import NOISE_S, RECOVERY_S, back, listen, opened, write
from tests.stores import Cluster, Fake, Sentinels, timed

KNOWN = Known(CLASSES)
PATIENT = QueueClass(name="standard", max_wait_s=20, max_tickets=10)
SEARCH_S = 1.5
"""What the client library may wait, deaf to being cancelled, when a cluster has lost a primary."""

TENANT_COUNT = 24
"""So many that each of three primaries has some."""


async def test_every_step_runs_on_every_store(any_store_url: str) -> None:
    """A gate's whole life runs every step there is, and no step touches two slots."""
    run: set[str] = set()
    async with opened(any_store_url, 5.0, lambda step, _s, _state: run.add(step)) as store:
        await tenants_and_keys(store)
        await people(store)
        await requests(store)
        await strangers(store)
        await store.ping()
        assert set(TEXTS) - run == set()
        assert store.state == "ok"


async def tenants_and_keys(store: Store) -> None:
    tenants, own = Tenants(store, KNOWN), Keys(store, KNOWN)
    for number in range(TENANT_COUNT):
        await tenants.create(TenantRequest(id=f"t{number}"), by=OPERATOR)
    await tenants.create(TenantRequest(id="acme"), by=OPERATOR)
    await tenants.change("acme", TenantChange(weight=2), by=OPERATOR)
    made, record = await own.create(KeyRequest(name="x"), by=ACME)
    await own.change("acme", record.id, KeyChange(weight=3), by=ACME)
    await own.rotate("acme", record.id, Rotation(overlap_s=60), by=ACME)
    assert made.text
    lines = [line async for line in export_keys(store)]
    assert len(lines) == 1
    await own.revoke("acme", record.id, by=ACME)
    many = [
        lines[0]
        .replace(record.id, f"{number:08d}{record.id[8:]}")
        .replace('"acme"', f'"t{number}"')
        for number in range(TENANT_COUNT)
    ]
    assert (await import_keys(store, many, CLASSES))["written"] == TENANT_COUNT
    assert len([line async for line in export_keys(store)]) == TENANT_COUNT
    listed, _ = await tenants.listed(by=OPERATOR, after="", size=100)
    assert len(listed) == TENANT_COUNT + 2  # acme, and the default one
    await tenants.create(TenantRequest(id="gone"), by=OPERATOR)
    await tenants.remove("gone", by=OPERATOR)


async def people(store: Store) -> None:
    passwords = Passwords(threads=1, max_waiting=100, hasher=QUICK)
    users = users_on(store, passwords)
    await users.create(asked("ada"), by=ACME)
    stale = await users.update("ada", change(role="viewer"), by=ACME)
    assert stale[1].role == "viewer"
    assert (await users.login(shown("ada"))).session is not None
    seen = await store.fields(keys.user_record("acme", "ada"), "password")
    rehash = [keys.user_record("acme", "ada")], [seen[0] or "", seen[0] or ""]
    await store.run("user_rehash", *rehash)
    listed, _ = await users.listed("acme", by=ACME, after="", size=10)
    assert [user.name for user in listed] == ["ada"]
    await users.remove("ada", by=ACME)
    assert (await users.login(shown("ada", PASSWORD))).session is None
    passwords.close()
    await Revocations(store).revoke("acme", "j", ttl_s=60)


async def requests(store: Store) -> None:
    await registry.beat(store, "m", "r", 1, Address("127.0.0.1", 1, "k"))
    line = Line(store, ["m"], [PATIENT])
    await line.open()
    holds = Holds(store, defaults="r 600 600 0 t 60000 60000 0", ttl_s=5)
    ledger = Ledger(store)
    for number in range(TENANT_COUNT):
        claim = Claim(tenant=f"t{number}")
        held = await holds.hold(claim, Demand(40, 0, 1, 9), model="m", request=str(number))
        assert held.refusing is None
        async with line.seat("m", Asks(PATIENT)) as seat:
            assert seat.replica == "r"
        place = {"model": "m", "asked": "m", "replica": "r"}
        await Kept(store).note(claim.tenant, claim.key_id, "resp_1", **place)
        await store.run("renew", *renewing(held))
        await holds.settle(held, Charge(Usage(1, 1), sample=(40, 10, 9)))
        ledger.refused(claim.tenant, claim.key_id, "m", "standard", held.now_us)
    await ledger.pay()
    async with asyncio.timeout(10), line.seat("m", Asks(PATIENT)):
        second = asyncio.create_task(took_a_seat(line))
        await shown_at_the_desk(line)  # it waits in line, to be woken by push
    assert await asyncio.wait_for(second, 5)
    while not line.tended:
        await asyncio.sleep(0.01)
    await line.close()
    await registry.note_failure(store, "m", "r1", "the engine ended with exit code 1")
    assert await registry.failure(store, "m", "r1") == "the engine ended with exit code 1"
    assert not await registry.failure(store, "m", "r2"), "a new deployment begins anew"
    await registry.clear_failure(store, "m")
    assert not await registry.failure(store, "m", "r1")
    await registry.withdraw(store, "m", "r")
    await adapt(store)


async def adapt(store: Store) -> None:
    """Put an adapter, once, and take it out."""
    one = Loaded("poet", "org/poet")
    for before, after, done in ((None, one, 1), (None, Loaded("poet", "org/2"), 0), (one, None, 1)):
        assert await adapters.change(store, "m", before, after) == done
    assert await adapters.listed(store, ["m", "n"]) == {"m": [], "n": []}


def renewing(held: Hold) -> tuple[list[str], list[str | int | float]]:
    """Return the keys and arguments that renew ``held``."""
    names = keys.scopes(held.claim.tenant, held.claim.bucket, held.model)[1::2]
    return names, [5_000, *held.leases]


async def shown_at_the_desk(line: Line) -> None:
    """Two wait; one of them is sent away; the line is paused and opened again."""
    third = asyncio.create_task(took_a_seat(line))
    while len(found := await line.waiting("m")) < 2:
        await asyncio.sleep(0.01)  # until both wait
    while line.loads["m"].waiting < 2:
        await asyncio.sleep(0.01)  # until the tender has looked who was forgotten
    assert (await line.look("m")).waiting == 2
    assert await line.whose(found[-1].ticket) == found[-1]
    assert await line.cancel(found[-1].ticket) == ("m", "", "")
    with pytest.raises(QueueCancelled):
        await asyncio.wait_for(third, 5)
    assert await line.set_mode("m", "paused") == "open"
    assert await line.set_mode("m", "open") == "paused"


async def took_a_seat(line: Line) -> bool:
    async with line.seat("m", Asks(PATIENT)):
        return True


async def strangers(store: Store) -> None:
    attempts = Attempts(store, BruteForce())
    for _ in range(6):
        await attempts.failed("192.0.2.7")
    await attempts.tend()
    assert attempts.blocked_s("192.0.2.7") > 0
    await attempts.close()
    audit = Audit(store, keep_days=1)
    await audit.write(Entry("key.create", tenant="acme"))
    entries, _ = await audit.page(tenant=None, after=None, size=10)
    assert len(entries) == 1


async def test_what_is_published_anywhere_is_heard(any_store: Store) -> None:
    """A step publishes on the server that has its keys; a gateway listens wherever it likes."""
    listening = [asyncio.create_task(anext(any_store.hear("sg:wake:x"))) for _ in range(3)]
    with_seat = "sg:wake:x/1"
    await asyncio.sleep(0.3)  # until they listen
    for model in ("a", "b", "c"):
        await registry.beat(any_store, model, "r", 0, Address("h", 1, "k"))
        whose: list[str | int | float] = ["t", "k", 1, 1, 0, 0]
        times: list[str | int | float] = [0, 10**7, 10**7, "", "", 0, rules_of([PATIENT])]
        await any_store.run("line_enter", keys.line(model), [with_seat, 0, *whose, *times])
        await registry.beat(any_store, model, "r", 1, Address("h", 1, "k"))
    heard = await asyncio.wait_for(asyncio.gather(*listening), 5)
    assert all(message.startswith(with_seat) for message in heard)


async def test_a_forgotten_script_is_sent_again_to_every_server(any_store: Store) -> None:
    """Servers forget scripts when they start; a pipeline of many calls brings them back."""
    calls = [([keys.revoked(f"t{number}", "j")], [60]) for number in range(TENANT_COUNT)]  # type: ignore[var-annotated]
    assert await any_store.run_many("token_revoke", calls) == [1] * TENANT_COUNT


@pytest.mark.parametrize("kind", ["cluster", "sentinels"])
@pytest.mark.parametrize("password", ["open%20sesame", "hunter2"])
async def test_the_password_of_the_url_opens_every_server(
    request: pytest.FixtureRequest, kind: str, password: str
) -> None:
    """User and password are the nodes'; sentinels have their own. A wrong one is named as such."""
    servers: Cluster | Sentinels = request.getfixturevalue(kind)
    for server in servers.all:
        server.told("ACL", "SETUSER", "app", "on", ">open sesame", "~*", "&*", "+@all")
    url = servers.url.replace("://", f"://app:{password}@")
    if kind == "sentinels":
        url += f"?sentinel_username=app&sentinel_password={password}"
    store = Store(url, timeout_ms=5_000)
    if password != "hunter2":
        for number in range(TENANT_COUNT):
            await write(store, f"t{number}")
    else:
        with pytest.raises(StoreUnavailable, match="refuses our user or password") as told:
            await write(store)
        assert told.value.details == {"state": "wrong_password"}
        assert "hunter2" not in str(told.value)
    await store.close()


@pytest.mark.parametrize(
    "url", ["rediss://{at}", "rediss+cluster://{at}", "rediss+sentinel://{at}/x"]
)
async def test_tls_is_spoken_from_the_first_byte(url: str) -> None:
    """Nodes and sentinels alike see a TLS handshake, and no password before it."""
    fake = Fake()
    store = Store(url.format(at=f"app:hunter2@127.0.0.1:{fake.port}"), timeout_ms=200)
    with pytest.raises(StoreUnavailable):
        await write(store)
    assert fake.heard.startswith(b"\x16\x03")
    assert b"hunter2" not in fake.heard
    await store.close()
    fake.end()


# What happens when a server goes


async def refused(store: Store, tenant: str) -> str | None:
    """Return the state in which a write is refused, None if it is not; it never hangs.

    A cluster's client looks for the slot's new owner before it gives up.
    """
    try:
        with timed() as took:
            await write(store, tenant)
    except StoreUnavailable as err:
        assert took[0] < SEARCH_S
        return str((err.details or {})["state"])
    return None


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[Cluster]:
    started = Cluster(tmp_path)
    yield started
    started.end()


async def test_a_lost_primary_costs_its_own_tenants_only(own_cluster: Cluster) -> None:
    """The others are served until the cluster itself gives up; then all are told what is up.

    When the primary is there again, all are served within a second.
    """
    async with opened(own_cluster.url) as store:
        tenants = [f"t{number}" for number in range(TENANT_COUNT)]
        for tenant in tenants:
            await back(store, tenant)
        await asyncio.to_thread(own_cluster.nodes[0].kill)
        told = [await refused(store, tenant) for tenant in tenants]
        lost = TENANT_COUNT - told.count(None)
        assert set(told) <= {None, "unreachable", "timeout"}
        assert 2 <= lost <= TENANT_COUNT - 4
        assert store.state in ("unreachable", "timeout")
        ends_s = time.monotonic() + 10
        while None in told and time.monotonic() < ends_s:
            told = [await refused(store, tenant) for tenant in tenants]
            assert set(told) <= {None, "unreachable", "failing_over", "timeout"}
            await asyncio.sleep(0.05)
        assert "failing_over" in told
        assert None not in told

        await asyncio.to_thread(own_cluster.nodes[0].start)
        await asyncio.to_thread(own_cluster.until_well)
        took_s = max([await back(store, tenant) for tenant in tenants])
        print(f"a cluster is whole again: all tenants served after {took_s * 1e3:.0f} ms")
        assert took_s < RECOVERY_S + NOISE_S
        async with asyncio.timeout(5):
            while store.state != "ok":
                await asyncio.sleep(0.01)


@pytest.fixture
def own_sentinels(tmp_path: Path) -> Iterator[Sentinels]:
    started = Sentinels(tmp_path, down_after_ms=500)
    yield started
    started.end()


async def test_a_lost_primary_silences_no_listener(own_cluster: Cluster) -> None:
    """Whoever listened to it listens to another one; the rest hear on."""
    async with opened(own_cluster.url) as store:
        heard: list[asyncio.Queue[str]] = [asyncio.Queue() for _ in range(6)]
        listening = [asyncio.create_task(listen(store, one)) for one in heard]
        await asyncio.sleep(0.3)  # until they listen
        await asyncio.to_thread(own_cluster.nodes[0].kill)
        for number in range(TENANT_COUNT):
            await refused(store, f"t{number}")
        async with asyncio.timeout(5):
            while any(one.empty() for one in heard):
                own_cluster.nodes[1].told("PUBLISH", "sg:wake:test", "now")
                await asyncio.sleep(0.05)
        for one in listening:
            one.cancel()
        await asyncio.gather(*listening, return_exceptions=True)


@pytest.mark.parametrize("how", ["asked", "killed", "stopped"])
async def test_a_failover_is_told_and_then_over(own_sentinels: Sentinels, how: str) -> None:
    """While there is no primary all are refused; within a second of the new one all are served.

    A primary that hangs is no different from one that died.
    """
    async with opened(own_sentinels.url) as store:
        await back(store)
        old = own_sentinels.primary
        loses = {"asked": own_sentinels.fail_over, "killed": old.kill, "stopped": old.pause}
        await asyncio.to_thread(loses[how])
        told: set[str | None] = set()
        ends_s = time.monotonic() + 20
        while not await asyncio.to_thread(is_over, own_sentinels, old.port):
            told.add(await refused(store, "t"))
            assert time.monotonic() < ends_s
            await asyncio.sleep(0.02)
        took_s = await back(store)
        print(
            f"{how}: refused as {told - {None}}, back {took_s * 1e3:.0f} ms after the new primary"
        )
        assert told <= {None, "unreachable", "timeout", "failing_over", "read_only"}
        assert took_s < RECOVERY_S + NOISE_S
        async with asyncio.timeout(5):
            while store.state != "ok":
                await asyncio.sleep(0.01)


def is_over(sentinels: Sentinels, old_port: int) -> bool:
    """Return whether the sentinel names another server, which takes writes."""
    new = sentinels.primary
    return new.port != old_port and new.told("ROLE")[0] == "master"
