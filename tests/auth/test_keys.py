"""Keys and tenants on a real store: made, changed, rotated, listed, revoked; nobody crosses."""

import asyncio
from dataclasses import replace

import pytest
import redis

from serve_app.auth import (
    KeyChange,
    KeyRequest,
    Keys,
    Revocations,
    Rotation,
    TenantChange,
    TenantRequest,
    Tenants,
)
from serve_app.errors import (
    AlreadyExists,
    Forbidden,
    GateError,
    InUse,
    InvalidRequest,
    NoSuchKey,
    NoSuchTenant,
    UnknownTenant,
)
from serve_app.store import Store, keys
from tests.auth.owners import ACME, OPERATOR, OTHER


async def test_what_is_stored_of_a_key_is_no_secret(own: Keys, store_url: str) -> None:
    """The text is nowhere in the store; its SHA-256 is, in the key's record alone."""
    made, record = await own.create(KeyRequest(name="x"), by=ACME)
    with redis.Redis.from_url(store_url, decode_responses=True) as client:
        for name in client.keys("*"):
            kind = client.type(name)
            text = str(client.hgetall(name) if kind == "hash" else client.zrange(name, 0, -1))
            assert made.text[-49:-6] not in text
            assert (made.key.sha256 in text) == (name == keys.key_record("acme", record.id))


async def test_crossing_tenants(own: Keys) -> None:
    """A tenant's admin cannot see, make, change, rotate or revoke what is another's."""
    _, theirs = await own.create(KeyRequest(name="theirs"), by=OTHER)
    with pytest.raises(UnknownTenant):
        await own.create(KeyRequest(name="x", tenant="other"), by=ACME)
    for tenant in ("acme", "default"):
        for attempt in (
            own.get(tenant, theirs.id, by=ACME),
            own.rotate(tenant, theirs.id, Rotation(), by=ACME),
            own.revoke(tenant, theirs.id, by=ACME),
        ):
            with pytest.raises(NoSuchKey):
                await attempt
    with pytest.raises(GateError):
        await own.change("other", theirs.id, KeyChange(name="mine now"), by=ACME)
    assert (await own.get("other", theirs.id, by=OTHER))[0] == theirs


async def test_an_operators_key_is_out_of_reach(own: Keys) -> None:
    """In its own tenant, too, only operators see, change and revoke it."""
    request = KeyRequest(name="root", tenant="acme", all_tenants=True)
    _, record = await own.create(request, by=OPERATOR)
    listed, _ = await own.listed("acme", by=ACME, after="", size=10)
    assert listed == []
    for attempt in (
        own.get("acme", record.id, by=ACME),
        own.change("acme", record.id, KeyChange(name="x"), by=ACME),
        own.rotate("acme", record.id, Rotation(), by=ACME),
        own.revoke("acme", record.id, by=ACME),
    ):
        with pytest.raises(NoSuchKey):
            await attempt
    assert [one.id for one, _ in (await own.listed("acme", by=OPERATOR, after="", size=10))[0]] == [
        record.id
    ]


async def test_an_unknown_tenant_owns_nothing(own: Keys) -> None:
    """Also for an operator."""
    with pytest.raises(UnknownTenant) as told:
        await own.create(KeyRequest(name="x", tenant="nobody"), by=OPERATOR)
    assert told.value.param == "tenant"
    made, _ = await own.create(KeyRequest(name="x", tenant="default"), by=OPERATOR)
    assert made.key.tenant == "default"


async def test_a_tenants_ceiling_binds_its_admin(own: Keys, tenants: Tenants) -> None:
    """No key above it is made or changed; lowered later, it binds at use."""
    with pytest.raises(Forbidden):
        await own.create(KeyRequest.model_validate({"name": "x", "class": "interactive"}), by=ACME)
    _, record = await own.create(KeyRequest(name="x"), by=ACME)
    change = KeyChange.model_validate({"class": "interactive"})
    with pytest.raises(Forbidden):
        await own.change("acme", record.id, change, by=ACME)
    with pytest.raises(Forbidden):
        await tenants.change("acme", TenantChange(max_class="interactive"), by=ACME)


async def test_two_changes_at_once_both_count(own: Keys) -> None:
    """Who is overtaken goes again; neither change is lost."""
    _, record = await own.create(KeyRequest(name="x"), by=ACME)
    await asyncio.gather(
        own.change("acme", record.id, KeyChange(weight=7), by=ACME),
        own.change("acme", record.id, KeyChange(name="y"), by=ACME),
    )
    now, _ = await own.get("acme", record.id, by=ACME)
    assert (now.weight, now.name) == (7, "y")


async def test_rotation(own: Keys, store: Store) -> None:
    """The new secret counts at once; the old one for the overlap, and the one before it no more."""
    made, record = await own.create(KeyRequest(name="x"), by=ACME)
    second, _, until_ms = await own.rotate("acme", record.id, Rotation(overlap_s=60), by=ACME)
    assert second.key.key_id == made.key.key_id
    name = keys.key_record("acme", record.id)
    kept = await store.fields(name, "sha256", "old_sha256", "old_until_ms")
    assert kept == [second.key.sha256, made.key.sha256, str(until_ms)]
    third, _, _ = await own.rotate("acme", record.id, Rotation(), by=ACME)
    kept = await store.fields(name, "sha256", "old_sha256")
    assert kept == [third.key.sha256, second.key.sha256]
    weak = replace(ACME, permissions=frozenset({"manage_keys"}))
    with pytest.raises(Forbidden):
        await own.rotate("acme", record.id, Rotation(), by=weak)


async def test_a_rotation_that_is_sent_twice(own: Keys, store: Store) -> None:
    """A step whose reply was lost is sent again, and the old secret still overlaps."""
    made, record = await own.create(KeyRequest(name="x"), by=ACME)
    name = keys.key_record("acme", record.id)
    ends = [await store.run("key_rotate", [name], ["new", 60_000]) for _ in range(2)]
    assert ends[0] == ends[1] > 0
    assert await store.fields(name, "sha256", "old_sha256") == ["new", made.key.sha256]


async def test_two_changes_of_a_tenant_both_count(tenants: Tenants) -> None:
    """Who is overtaken goes again; neither change is lost."""
    limits = TenantChange.model_validate({"limits": {"requests_per_minute": 5}})
    await asyncio.gather(
        *(tenants.change("acme", TenantChange(weight=w), by=OPERATOR) for w in (2, 3)),
        tenants.change("acme", limits, by=OPERATOR),
        tenants.change("acme", TenantChange(name="Acme"), by=OPERATOR),
    )
    now = await tenants.get("acme", by=OPERATOR)
    assert (now.name, now.limits) == ("Acme", {"requests_per_minute": 5})


async def test_a_second_revocation_lengthens_the_first(store: Store, store_url: str) -> None:
    """And never shortens it."""
    revocations = Revocations(store)
    with redis.Redis.from_url(store_url) as client:
        for ttl_s, kept_s in ((1, 121), (1_000, 1_120), (1, 1_120)):
            await revocations.revoke("acme", "j1", ttl_s=ttl_s)
            assert kept_s - 5 <= client.ttl(keys.revoked("acme", "j1")) <= kept_s


async def test_listing_walks_everything_once(own: Keys, store_url: str) -> None:
    """Page by page, oldest first, also keys of one instant and though one is revoked meanwhile."""
    made = [(await own.create(KeyRequest(name=str(n)), by=ACME))[1].id for n in range(7)]
    with redis.Redis.from_url(store_url) as client:  # an import gives many the same instant
        client.zadd(keys.key_index("acme"), dict.fromkeys(made[:5], 1000))
    expected = [*sorted(made[:5]), *made[5:]]
    seen, after = [], ""
    while True:
        page, after = await own.listed("acme", by=ACME, after=after, size=2)
        seen += [record.id for record, _ in page]
        if len(seen) == 4:
            await own.revoke("acme", seen[-1], by=ACME)
        if not after:
            break
    assert seen == expected


@pytest.mark.parametrize("after", ["x", "1", "-", "--", "12 3-x", "1" * 30 + "-x", "1-\n"])
async def test_a_cursor_that_is_none(own: Keys, after: str) -> None:
    """400 that names it."""
    with pytest.raises(InvalidRequest) as told:
        await own.listed("acme", by=ACME, after=after, size=2)
    assert told.value.param == "after"


async def test_a_tenant_is_made_once_and_goes_when_it_owns_nothing(
    own: Keys, tenants: Tenants
) -> None:
    """Its id is taken while it is there; ``default`` always is."""
    for taken in ("acme", "default"):
        with pytest.raises(AlreadyExists):
            await tenants.create(TenantRequest(id=taken), by=OPERATOR)
        with pytest.raises(Forbidden):
            await tenants.create(TenantRequest(id="mine"), by=ACME)
    _, record = await own.create(KeyRequest(name="x"), by=ACME)
    with pytest.raises(InUse, match="owns keys"):
        await tenants.remove("acme", by=OPERATOR)
    with pytest.raises(InUse, match="always exists"):
        await tenants.remove("default", by=OPERATOR)
    await own.revoke("acme", record.id, by=ACME)
    await tenants.remove("acme", by=OPERATOR)
    for gone in (tenants.get("acme", by=OPERATOR), tenants.remove("acme", by=OPERATOR)):
        with pytest.raises(NoSuchTenant):
            await gone
    with pytest.raises(UnknownTenant):
        await own.create(KeyRequest(name="x", tenant="acme"), by=OPERATOR)


async def test_who_sees_which_tenant(tenants: Tenants) -> None:
    """An operator all, in order, ``default`` first; everyone else its own."""
    listed, _ = await tenants.listed(by=OPERATOR, after="", size=10)
    assert [one.id for one in listed] == ["default", "acme", "other"]
    mine, _ = await tenants.listed(by=ACME, after="", size=10)
    assert [one.id for one in mine] == ["acme"]
    assert (await tenants.get("default", by=OPERATOR)).public()["class"] is None
    with pytest.raises(NoSuchTenant):
        await tenants.get("other", by=ACME)
    _, record = await tenants.change("default", TenantChange(weight=2), by=OPERATOR)
    assert (await tenants.get("default", by=OPERATOR)) == record
