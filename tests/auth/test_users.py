"""Users on the real store: names, tenants, logins, sessions (CONTRACT §1.4)."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import redis
from argon2 import PasswordHasher

from serve_app.auth import Caller
from serve_app.auth.users.passwords import Passwords
from serve_app.auth.users.user import PasswordRequest, UserRecord, identify_user
from serve_app.auth.users.user_records import LEASE_US, STALE_US
from serve_app.auth.users.users import Users
from serve_app.errors import (
    AlreadyExists,
    Forbidden,
    GateError,
    InUse,
    InvalidRequest,
    NoSuchUser,
    RateLimited,
    StoreUnavailable,
    UnknownTenant,
)
from serve_app.store import Store, keys
from tests.accounts import (
    ACME,
    OPERATOR,
    OTHER,
    PASSWORD,
    QUICK,
    TTL_S,
    Tokens,
    asked,
    change,
    shown,
    users_on,
    without,
)

NEW_PASSWORD = "battery staple horse"
LOSSY_MS = 2147486425857
HELD = ("attributes", "disabled", "not_before_ms", "limits")


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = Passwords(threads=1, max_waiting=100, hasher=QUICK)
    yield made
    made.close()


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


@pytest.fixture
async def users(store: Store, passwords: Passwords, tokens: Tokens) -> Users:
    """The users of a store with the tenants acme and other."""
    for tenant in ("acme", "other"):
        await store.run("tenant_put", [keys.tenant_record(tenant)], ["", "{}", ""])
    return users_on(store, passwords, tokens)


@pytest.fixture
def server(store_url: str) -> Iterator["redis.Redis"]:
    """The store behind the gate's back."""
    with redis.Redis.from_url(store_url, decode_responses=True) as client:
        yield client


@contextmanager
def slow_passwords() -> Iterator[Passwords]:
    """Passwords that take so long to hash that something happens meanwhile."""
    hasher = PasswordHasher(time_cost=20, memory_cost=19_456, parallelism=1)
    made = Passwords(threads=1, max_waiting=1, hasher=hasher)
    try:
        yield made
    finally:
        made.close()


async def logs_in(users: Users, name: str, password: str = PASSWORD) -> bool:
    """Return whether name and password fit."""
    return (await users.login(shown(name, password))).session is not None


async def test_a_users_life(users: Users, tokens: Tokens) -> None:
    """Made, logged in, changed, removed: each in force at once."""
    ada = await users.create(asked("Ada@Example.org", role="operator"), by=ACME)
    assert (ada.name, ada.tenant, ada.role) == ("ada@example.org", "acme", "operator")
    assert await users.get("ADA@example.org", by=ACME) == ada
    user, session = await users.login(shown("ada@EXAMPLE.org"))
    assert user == ada
    assert session is not None
    issued = tokens.issued[session.token]
    assert (issued.caller, issued.user, issued.ttl_s) == (ada.caller(), ada.name, TTL_S)
    before, after = await users.update(ada.name, change(role="viewer", weight=2), by=ACME)
    assert before == ada
    assert (after.role, after.weight, after.id) == ("viewer", 2.0, ada.id)
    assert after.revision != ada.revision
    assert await users.get(ada.name, by=ACME) == after
    assert await users.remove(ada.name, by=ACME) == after
    with pytest.raises(NoSuchUser):
        await users.get(ada.name, by=ACME)
    assert await users.login(shown(ada.name)) == (None, None)


async def test_what_the_hold_reads(users: Users, server: "redis.Redis") -> None:
    """A record has the fields that admit its sessions, as they are now."""

    def held(tenant: str) -> tuple[Caller, str, int, str | None]:
        record = keys.user_record(tenant, "ada")
        attributes, disabled, not_before_ms, limits = server.hmget(record, HELD)
        return identify_user(attributes), disabled, int(not_before_ms), limits

    seconds, us = server.time()
    made = await users.create(asked("ada"), by=ACME)
    caller, disabled, not_before_ms, told = held("acme")
    assert caller == made.caller()
    assert (disabled, told) == ("0", None)
    assert 0 <= not_before_ms - (seconds * 1_000 + us // 1_000) < 5_000
    limits = {"requests_per_minute": {"limit": 60, "burst": 5}}
    await users.update("ada", change(role="viewer", limits=limits, disabled=True), by=ACME)
    caller, disabled, later_ms, told = held("acme")
    assert caller == replace(made, role="viewer").caller()
    assert (disabled, told) == ("1", "r 60 5 0")
    assert later_ms > not_before_ms
    await users.update("ada", change(limits={"requests_per_minute": 7}, disabled=False), by=ACME)
    assert held("acme")[1:] == ("0", later_ms, "r 7 7 0")
    await users.update("ada", change(limits={}), by=ACME)
    assert held("acme")[1:] == ("0", later_ms, None)
    await users.remove("ada", by=ACME)
    assert not server.exists(keys.user_record("acme", "ada"))


async def test_no_password_is_stored(users: Users, server: "redis.Redis") -> None:
    """The store holds an Argon2id hash; no record that is shown or logged holds even that."""
    made = await users.create(asked("ada"), by=ACME)
    await users.update("ada", change(password=NEW_PASSWORD), by=ACME)
    record = server.hgetall(keys.user_record("acme", "ada"))
    assert record["password"].startswith("$argon2id$")
    assert PASSWORD not in str(record)
    assert NEW_PASSWORD not in str(record)
    assert "argon2" not in record["attributes"] + str(made.public()) + repr(made)


@pytest.mark.parametrize(
    ("name", "password", "known"),
    [
        ("eve", "wrong horse battery", True),
        ("eve", PASSWORD + " ", True),
        ("eve", PASSWORD.upper(), True),
        ("off", PASSWORD, True),
        ("nobody", PASSWORD, False),
        ("no/name", PASSWORD, False),
        ("-", PASSWORD, False),
        ("eve ", PASSWORD, False),
        ("eve", "x", True),
        ("eve", "x" * 8_000, True),
    ],
)
async def test_a_login_that_does_not_fit(
    users: Users, name: str, password: str, known: bool
) -> None:
    """Unknown, wrong and disabled are all the same; only the audit hears whose name it was."""
    await users.create(asked("eve"), by=ACME)
    await users.create(asked("off", disabled=True), by=ACME)
    user, session = await users.login(shown(name, password))
    assert session is None
    assert (user is not None) == known


async def test_every_login_asks_the_store_alike(users: Users, server: "redis.Redis") -> None:
    """A wrong login costs the same calls whether there is such a user, none, or no such name."""

    def calls() -> dict[str, int]:
        stats = server.info("commandstats")
        return {name: told["calls"] for name, told in stats.items() if name != "cmdstat_info"}

    await users.create(asked("eve"), by=ACME)
    await users.create(asked("off", disabled=True), by=ACME)
    cost = []
    for name in ("eve", "off", "nobody", "no/name"):
        before = calls()
        assert not await logs_in(users, name, "wrong horse")
        cost.append({one: n - before[one] for one, n in calls().items() if n != before[one]})
    assert cost[0]
    assert cost == cost[:1] * 4


async def test_a_session_ends_with_its_password(
    users: Users, tokens: Tokens, server: "redis.Redis"
) -> None:
    """Sessions issued before a new password are refused, those after it are good, to the ms."""

    async def issued_ms(password: str) -> int:
        _, session = await users.login(shown("ada", password))
        assert session is not None
        return tokens.issued[session.token].issued_ms

    def not_before_ms() -> int:
        return int(server.hget(keys.user_record("acme", "ada"), "not_before_ms") or 0)

    ada = await users.create(asked("ada"), by=ACME)
    for old, new in [(PASSWORD, NEW_PASSWORD), (NEW_PASSWORD, PASSWORD)] * 5:
        before_ms = await issued_ms(old)
        assert before_ms >= not_before_ms()
        if old == PASSWORD:
            await users.update("ada", change(password=new), by=ACME)
        else:
            request = PasswordRequest(old_password=old, new_password=new)
            session = await users.change_password("ada", request, by=ada.caller())
            assert session is not None
            assert tokens.issued[session.token].issued_ms >= not_before_ms()
        assert before_ms < not_before_ms()
        assert await issued_ms(new) >= not_before_ms()
        assert not await logs_in(users, "ada", old)


async def test_a_session_counts_from_when_its_password_was_read(
    users: Users, tokens: Tokens, store: Store, server: "redis.Redis"
) -> None:
    """A password changed while a login with the old one is being hashed ends that login too."""
    await users.create(asked("ada"), by=ACME)
    record = keys.user_record("acme", "ada")
    with slow_passwords() as slow:
        with slow.place() as place:
            server.hset(record, "password", await place.hash(PASSWORD))
        login = asyncio.create_task(users_on(store, slow, tokens).login(shown("ada")))
        await asyncio.sleep(0.05)  # its hash takes some 300 ms
        await users.update("ada", change(password=NEW_PASSWORD), by=ACME)
        assert not login.done()
        _, session = await login
    assert session is not None
    assert tokens.issued[session.token].issued_ms < int(server.hget(record, "not_before_ms") or 0)


async def test_a_session_keeps_its_millisecond(
    users: Users, tokens: Tokens, server: "redis.Redis"
) -> None:
    """A time that seconds as a float cannot hold exactly does not end a session as it begins."""
    await users.create(asked("ada"), by=ACME)
    record = keys.user_record("acme", "ada")
    assert int(LOSSY_MS / 1_000 * 1_000) < LOSSY_MS
    server.hset(record, "not_before_ms", LOSSY_MS)
    _, session = await users.login(shown("ada"))
    assert session is not None
    assert tokens.issued[session.token].issued_ms == LOSSY_MS


async def test_disabling_ends_sessions_and_other_changes_do_not(
    users: Users, server: "redis.Redis"
) -> None:
    """A session that was cut off by disabling its user does not come back with it."""
    await users.create(asked("ada"), by=ACME)
    record = keys.user_record("acme", "ada")
    made_ms = server.hget(record, "not_before_ms")
    await users.update("ada", change(role="viewer", weight=2, metadata={"a": 1}), by=ACME)
    assert server.hget(record, "not_before_ms") == made_ms
    await users.update("ada", change(disabled=True), by=ACME)
    cut_ms = server.hget(record, "not_before_ms")
    assert int(cut_ms or 0) > int(made_ms or 0)
    await users.update("ada", change(disabled=False), by=ACME)
    assert server.hget(record, "not_before_ms") == cut_ms
    assert await logs_in(users, "ada")


async def test_a_namesake_inherits_nothing(users: Users, tokens: Tokens, server: Any) -> None:
    """A session of a removed user is none of the next user of that name."""
    await users.create(asked("ada", role="admin"), by=ACME)
    _, session = await users.login(shown("ada"))
    assert session is not None
    await users.remove("ada", by=ACME)
    second = await users.create(asked("ada"), by=ACME)
    first_ms = tokens.issued[session.token].issued_ms
    assert int(server.hget(keys.user_record("acme", "ada"), "not_before_ms")) >= first_ms
    assert tokens.issued[session.token].caller.key_id != second.key_id


@pytest.mark.parametrize(
    ("by", "what", "refusal"),
    [
        pytest.param(ACME, {}, None, id="its own tenant"),
        pytest.param(ACME, {"tenant": "acme"}, None, id="its own tenant, named"),
        pytest.param(ACME, {"tenant": "other"}, UnknownTenant, id="another tenant"),
        pytest.param(ACME, {"tenant": "nosuch"}, UnknownTenant, id="no tenant"),
        pytest.param(OPERATOR, {"tenant": "other"}, None, id="an operator, anywhere"),
        pytest.param(OPERATOR, {"tenant": "nosuch"}, UnknownTenant, id="an operator, no tenant"),
        pytest.param(OPERATOR, {"all_tenants": True}, None, id="an operator's like"),
        pytest.param(ACME, {"all_tenants": True}, Forbidden, id="reach that it lacks"),
        pytest.param(without("write_config"), {"role": "admin"}, Forbidden, id="more than it may"),
        pytest.param(
            ACME,
            {"name": "correct-horse", "password": "correct-horse"},
            InvalidRequest,
            id="its name as password",
        ),
    ],
)
async def test_who_may_make_users_where(
    users: Users, server: Any, by: Caller, what: dict[str, Any], refusal: type[GateError] | None
) -> None:
    """In one's own tenant, an operator's in every one; what is refused leaves nothing behind."""
    request = asked(**{"name": "eve", **what})
    if refusal is None:
        made = await users.create(request, by=by)
        assert made.tenant == what.get("tenant", by.tenant)
        assert await logs_in(users, "eve")
    else:
        with pytest.raises(GateError) as refused:
            await users.create(request, by=by)
        assert refused.type is refusal
        assert not server.exists(keys.USERNAMES)


@pytest.mark.parametrize("name", ["other-user", "root", "nobody", "no/name", ""])
async def test_nobody_reaches_across(users: Users, name: str) -> None:
    """Another tenant's user, and an operator, look like none at all, whatever is asked of them."""
    await users.create(asked("other-user"), by=OTHER)
    await users.create(asked("root", tenant="acme", all_tenants=True), by=OPERATOR)
    for asking in (
        users.get(name, by=ACME),
        users.update(name, change(weight=2), by=ACME),
        users.update(name, change(password=NEW_PASSWORD), by=ACME),
        users.remove(name, by=ACME),
    ):
        with pytest.raises(NoSuchUser) as refused:
            await asking
        assert str(refused.value) == "There is no user of that name."
    assert await logs_in(users, "other-user")
    assert await logs_in(users, "root")


async def test_an_operator_reaches_everywhere(users: Users) -> None:
    """An operator sees, changes and removes every tenant's users, and its like."""
    await users.create(asked("root", all_tenants=True, role="admin"), by=OPERATOR)
    root = (await users.get("root", by=OPERATOR)).caller()
    await users.create(asked("eve"), by=OTHER)
    assert (await users.get("eve", by=root)).tenant == "other"
    await users.update("eve", change(disabled=True), by=root)
    await users.remove("eve", by=root)
    await users.update("root", change(all_tenants=False), by=OPERATOR)
    assert (await users.get("root", by=replace(ACME, tenant="default"))).all_tenants is False


async def test_nobody_locks_oneself_out(users: Users) -> None:
    """An admin neither removes, disables nor demotes itself, nor skips its old password."""
    ada = (await users.create(asked("ada", role="admin"), by=ACME)).caller()
    for what in ({"disabled": True}, {"role": "user"}, {"password": NEW_PASSWORD}):
        with pytest.raises(Forbidden):
            await users.update("ada", change(**what), by=ada)
    with pytest.raises(Forbidden):
        await users.remove("ada", by=ada)
    assert await logs_in(users, "ada")


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        pytest.param("ada", PASSWORD, NEW_PASSWORD, None, id="one's own"),
        pytest.param("ada", "wrong horse", NEW_PASSWORD, "wrong", id="a wrong old one"),
        pytest.param("ada", PASSWORD, "ada-lovelace", None, id="any other"),
        pytest.param("eve", PASSWORD, NEW_PASSWORD, NoSuchUser, id="somebody else's"),
        pytest.param("gone", PASSWORD, NEW_PASSWORD, NoSuchUser, id="nobody's"),
    ],
)
async def test_ones_own_password(users: Users, name: str, old: str, new: str, told: Any) -> None:
    """Whoever knows the old password, and is that user, sets a new one."""
    ada = (await users.create(asked("ada", role="viewer"), by=ACME)).caller()
    await users.create(asked("eve"), by=ACME)
    request = PasswordRequest(old_password=old, new_password=new)
    if told is NoSuchUser:
        with pytest.raises(NoSuchUser):
            await users.change_password(name, request, by=ada)
    else:
        session = await users.change_password(name, request, by=ada)
        assert (session is None) == (told == "wrong")
    assert await logs_in(users, "ada", new) == (told is None)
    assert await logs_in(users, "eve")


async def test_an_admins_new_password_is_not_undone(users: Users, store: Store) -> None:
    """Whoever is changing the own password while an admin resets it has come too late."""
    ada = (await users.create(asked("ada"), by=ACME)).caller()
    request = PasswordRequest(old_password=PASSWORD, new_password="mallory's choice")
    with slow_passwords() as slow:
        own = asyncio.create_task(users_on(store, slow).change_password("ada", request, by=ada))
        await asyncio.sleep(0.05)  # its hash takes some 300 ms
        await users.update("ada", change(password=NEW_PASSWORD), by=ACME)
        assert not own.done()
        with pytest.raises(InUse, match="changed just now"):
            await own
    assert await logs_in(users, "ada", NEW_PASSWORD)


async def test_a_name_is_won_once(store: Store, passwords: Passwords, server: Any) -> None:
    """Of many creates of one name at once, in whatever tenants, exactly one wins, every time."""
    await store.run("tenant_put", [keys.tenant_record("acme")], ["", "{}", ""])
    users = users_on(store, passwords)
    for round_ in range(10):
        name = f"user-{round_}"
        made = await asyncio.gather(
            *(
                users.create(asked(name, weight=n + 1), by=by)
                for n in range(4)
                for by in (ACME, OTHER)
            ),
            return_exceptions=True,
        )
        (won,) = [one for one in made if isinstance(one, UserRecord)]
        assert {type(one) for one in made} == {UserRecord, AlreadyExists}
        assert await users.get(name, by=OPERATOR) == won
        assert (
            sum(server.exists(keys.user_record(tenant, name)) for tenant in ("acme", "other")) == 1
        )


@pytest.mark.parametrize("by", [ACME, OTHER], ids=["its own tenant", "another tenant"])
async def test_a_half_made_user_is_made_whole(users: Users, server: Any, by: Caller) -> None:
    """A claim that no record followed is passed on after a while, to whoever wants the name."""
    seconds, _ = server.time()
    for age_us, taken in [(STALE_US // 2, True), (STALE_US + 2_000_000, False)]:
        claimed_us = seconds * 1_000_000 - age_us
        server.hset(keys.USERNAMES, "ada", f"acme {claimed_us} {'x' * 12}")
        assert not await logs_in(users, "ada")
        if taken:
            with pytest.raises(AlreadyExists, match="just being taken"):
                await users.create(asked("ada"), by=by)
        else:
            assert (await users.create(asked("ada"), by=by)).tenant == by.tenant
            assert await logs_in(users, "ada")
    with pytest.raises(AlreadyExists, match="is taken"):
        await users.create(asked("ada"), by=ACME)


async def test_a_half_removed_user_is_gone(users: Users, server: Any) -> None:
    """A record dropped whose name was not released lets nobody in, and the name comes free."""
    await users.create(asked("ada"), by=ACME)
    claim = server.hget(keys.USERNAMES, "ada")
    await users.remove("ada", by=ACME)
    tenant, claimed_us, user_id = claim.split()
    stale = f"{tenant} {int(claimed_us) - 2 * STALE_US} {user_id}"
    server.hset(keys.USERNAMES, "ada", stale)
    with pytest.raises(NoSuchUser):
        await users.remove("ada", by=ACME)
    assert not await logs_in(users, "ada")
    await users.create(asked("ada"), by=OTHER)
    assert await logs_in(users, "ada")


async def test_a_record_without_its_name_lets_nobody_in(users: Users, server: Any) -> None:
    """A login goes by the name's claim, also in the tenant that always exists."""
    await users.create(asked("ada", tenant="default"), by=OPERATOR)
    assert await logs_in(users, "ada")
    server.hdel(keys.USERNAMES, "ada")
    assert not await logs_in(users, "ada")


def test_no_record_follows_a_claim_that_may_be_passed_on() -> None:
    """A record may be written for a while only, which ends well before the claim is passed on."""
    assert 2 * LEASE_US <= STALE_US


async def test_steps_that_are_sent_twice_happen_once(store: Store, server: Any) -> None:
    """A step whose reply was lost is sent again and answers alike; too late a record is refused."""
    record, index = keys.user_record("acme", "ada"), keys.user_index("acme")
    names = [record, index, keys.tenant_record("acme")]
    claims = [
        await store.run("user_claim", [keys.USERNAMES], ["ada", "acme", "id1", ""])
        for _ in range(2)
    ]
    assert claims[0][:2] == claims[1][:2]
    assert claims[0][0] == 1
    claim = claims[0][1]
    claimed_us = int(claim.split()[1])
    put: list[Any] = ["ada", "id1", "hash", "{}", 0, "", "r1"]
    assert await store.run("user_put", names, [*put, claimed_us - 2_000, 1_000, 0]) == -1
    assert await store.run("user_put", names, [*put, claimed_us, LEASE_US, 1]) == -2
    assert not server.exists(record)
    for _ in range(2):
        assert await store.run("user_put", names, [*put, claimed_us, LEASE_US, 0]) == 1
    assert await store.run("user_put", names, [*put, claimed_us, LEASE_US, 1]) == 1
    other = ["ada", "id2", "hash", "{}", 0, "", "r1"]
    assert await store.run("user_put", names, [*other, claimed_us, LEASE_US, 0]) == 0
    assert server.zcard(index) == 1
    changed = [
        await store.run("user_change", [record], ["r1", "r2", "{}", 0, "", "new", 1])
        for _ in range(2)
    ]
    assert changed[0] == changed[1]
    changed_ms, not_before_ms = changed[0]
    assert not_before_ms == changed_ms + 1  # a session of this very ms may be of the old password
    assert await store.run("user_change", [record], ["r1", "r3", "{}", 0, "", "", 0]) == [0, 0]
    assert await store.run("user_drop", [record, index], ["ada", "r1"]) == 0
    for _ in range(2):
        assert await store.run("user_drop", [record, index], ["ada", "r2"]) == 1
    assert await store.run("user_change", [record], ["r2", "r3", "{}", 0, "", "", 0]) == [-1, 0]
    assert await store.run("user_release", [keys.USERNAMES], ["ada", claim + "x"]) == 0
    assert [
        await store.run("user_release", [keys.USERNAMES], ["ada", claim]) for _ in range(2)
    ] == [
        1,
        0,
    ]
    assert not server.keys("*")


async def test_two_admins_at_once(users: Users) -> None:
    """Changes of different fields at once are all kept; one made of what was, is refused."""
    made = await users.create(asked("ada"), by=ACME)
    await asyncio.gather(
        users.update("ada", change(role="viewer"), by=ACME),
        users.update("ada", change(weight=2), by=ACME),
        users.update("ada", change(**{"class": "batch"}), by=ACME),
    )
    now = await users.get("ada", by=ACME)
    assert (now.role, now.weight, now.class_) == ("viewer", 2.0, "batch")
    with pytest.raises(InUse, match="changed since"):
        await users.update("ada", change(weight=3, revision=made.revision), by=ACME)
    _, after = await users.update("ada", change(weight=3, revision=now.revision), by=ACME)
    assert after.weight == 3.0


async def test_who_rises_meanwhile_is_out_of_reach(users: Users, store: Store) -> None:
    """What is written is judged by what it is written over, not by an earlier look."""
    await users.create(asked("ada"), by=ACME)
    with slow_passwords() as slow:
        change_it = users_on(store, slow).update(
            "ada", change(password=NEW_PASSWORD), by=without("write_config")
        )
        changing = asyncio.create_task(change_it)
        await asyncio.sleep(0.05)  # its hash takes some 300 ms
        await users.update("ada", change(role="admin"), by=ACME)
        assert not changing.done()
        with pytest.raises(Forbidden):
            await changing
    assert await logs_in(users, "ada", PASSWORD)


async def test_pages(users: Users) -> None:
    """A listing goes through a tenant's users, oldest first, in pages, each user once."""
    names = [f"user-{n}" for n in range(7)]
    for name in names:
        await users.create(asked(name), by=ACME)
    await users.create(asked("elsewhere"), by=OTHER)
    await users.create(asked("root", tenant="acme", all_tenants=True), by=OPERATOR)
    for by, expected in [(ACME, names), (OPERATOR, [*names, "root"])]:
        for size in (1, 3, 7, 8, 100):
            seen, after = [], ""
            while True:
                page, after = await users.listed("acme", by=by, after=after, size=size)
                assert len(page) <= size
                seen += [record.name for record in page]
                if not after:
                    break
            assert seen == expected


async def test_an_older_hash_is_made_anew(users: Users, server: Any) -> None:
    """A login that fits renews a hash with other parameters; sessions and revision stay."""
    made = await users.create(asked("ada"), by=ACME)
    record = keys.user_record("acme", "ada")
    older = PasswordHasher(time_cost=2, memory_cost=128, parallelism=1).hash(PASSWORD)
    server.hset(record, "password", older)
    before = server.hgetall(record)
    assert not await logs_in(users, "ada", "wrong horse")
    assert server.hgetall(record) == before
    assert await logs_in(users, "ada")
    after = server.hgetall(record)
    assert not QUICK.check_needs_rehash(after["password"])
    assert {**after, "password": older} == before
    assert await users.get("ada", by=ACME) == made
    assert await logs_in(users, "ada")


async def test_a_rehash_never_undoes_a_new_password(store: Store, server: Any) -> None:
    """A hash that was replaced meanwhile is left alone."""
    record = keys.user_record("acme", "ada")
    server.hset(record, "password", "newer")
    assert await store.run("user_rehash", [record], ["seen", "rehashed"]) == 0
    assert server.hget(record, "password") == "newer"
    assert await store.run("user_rehash", [record], ["newer", "rehashed"]) == 1


async def test_a_flood_of_logins(store: Store) -> None:
    """Of 200 logins at once those with a place are answered; the rest come again later."""
    passwords = Passwords(threads=1, max_waiting=16, hasher=QUICK)
    users = users_on(store, passwords)
    tried = await asyncio.gather(
        *(users.login(shown(f"user-{n}")) for n in range(200)), return_exceptions=True
    )
    passwords.close()
    refused = [one for one in tried if isinstance(one, RateLimited)]
    assert len(refused) == 200 - 17
    assert tried.count((None, None)) == 17


async def test_without_a_store_nobody_comes_in(passwords: Passwords) -> None:
    """A login that cannot be checked is no wrong login."""
    away = Store("redis://127.0.0.1:1", timeout_ms=50)
    with pytest.raises(StoreUnavailable):
        await users_on(away, passwords).login(shown("ada"))
    await away.close()
