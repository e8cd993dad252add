"""Keys and tenants on a real store: made, changed, rotated, listed, revoked; nobody crosses."""

import asyncio
import json
from dataclasses import replace

import pytest
import redis

from serve_app.auth import (
    PERMISSIONS,
    Caller,
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

KNOWN = Known(("interactive", "standard", "batch"), frozenset({"/v1/completions"}))
OPERATOR = Caller("default", "op", PERMISSIONS, operator=True)
ACME = Caller("acme", "acme-admin", PERMISSIONS)
OTHER = Caller("other", "other-admin", PERMISSIONS)


@pytest.fixture
async def tenants(store: Store) -> Tenants:
    """Two tenants, one with a ceiling."""
    made = Tenants(store, KNOWN)
    await made.create(TenantRequest(id="acme", max_class="standard"), by=OPERATOR)
    await made.create(TenantRequest(id="other"), by=OPERATOR)
    return made


@pytest.fixture
def own(store: Store, tenants: Tenants) -> Keys:  # noqa: ARG001 - the tenants must be there
    return Keys(store, KNOWN)


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


async def test_keys_travel_in_files_without_their_secrets(
    own: Keys, store: Store, store_url
) -> None:
    """Export and import give back every key, once; a second import changes nothing."""
    made = [await own.create(KeyRequest(name=f"n{n}"), by=ACME) for n in range(5)]
    made += [await own.create(KeyRequest(name="d"), by=OPERATOR)]
    lines = [line async for line in export_keys(store)]
    assert len(lines) == 6
    assert not [one.text for one, _ in made if one.text[-49:-6] in "".join(lines)]
    with redis.Redis.from_url(store_url) as client:
        client.delete(*client.keys("*key*"))
    assert await import_keys(store, lines) == {"written": 6}
    assert await import_keys(store, lines) == {"taken": 6}
    assert sorted([line async for line in export_keys(store)]) == sorted(lines)
    elsewhere = lines[0].replace('"acme"', '"nobody"').replace('"default"', '"nobody"')
    assert await import_keys(store, [elsewhere, "", "\n"]) == {"no tenant": 1}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sha256": "x"}, "line 2: sha256"),
        ({"key": {}}, "line 2: key"),
        ({"colour": 1}, "line 2: colour"),
    ],
)
async def test_a_wrong_line_is_named(own: Keys, store: Store, change, says: str) -> None:
    """The number of the line and the member; nothing of its batch is written."""
    await own.create(KeyRequest(name="x"), by=ACME)
    (line,) = [line async for line in export_keys(store)]
    wrong = json.dumps({**json.loads(line), **change})
    with pytest.raises(InvalidRequest, match=says):
        await import_keys(store, [line, wrong])


@pytest.mark.parametrize(
    "change",
    [
        {"id": "short"},
        {"tenant": "No Tenant"},
        {"permissions": ["fly"]},
        {"limits": {"requests_per_minute": -1}},
        {"over_limit": "explode"},
        {"allowed_addresses": ["everywhere"]},
        {"expires_ms": "soon"},
    ],
)
async def test_a_wrong_key_in_a_line_is_named(own: Keys, store: Store, change) -> None:
    """What the admin API would refuse, an import refuses."""
    await own.create(KeyRequest(name="x"), by=ACME)
    (line,) = [line async for line in export_keys(store)]
    told = json.loads(line)
    told["key"] |= change
    with pytest.raises(InvalidRequest, match="line 1: key"):
        await import_keys(store, [json.dumps(told)])


LIMITS = {
    "requests_per_minute": {"limit": 60, "burst": 5},
    "cost_per_day": 0.5,
    "output_cap": 256,
    "shadow": {"tokens_per_minute": 9},
    "models": {"org/m:1": {"concurrency": 2}},
}
TEXT = "r 60 5 0 D 500000000 500000000 0 t 9 9 1 n 256 0 0\norg/m:1\tc 2 2 0"


async def test_what_the_hold_reads_of_limits(own: Keys, tenants: Tenants, store: Store) -> None:
    """A record has one field of limits beside its attributes, as they are now; none if empty."""
    request = KeyRequest.model_validate({"name": "x", "limits": LIMITS})
    _, record = await own.create(request, by=ACME)
    name, tenant = keys.key_record("acme", record.id), keys.tenant_record("acme")
    assert record.limits == LIMITS
    assert await store.fields(name, "limits") == [TEXT]
    empty: list[dict[str, object]] = [{}, {"models": {"m": {}}}, {"exempt": False}]
    for written, text in [(LIMITS, TEXT), *((one, None) for one in empty)]:
        change = {"limits": written}
        await own.change("acme", record.id, KeyChange.model_validate(change), by=ACME)
        await tenants.change("acme", TenantChange.model_validate(change), by=OPERATOR)
        assert await store.fields(name, "limits") == [text]
        assert await store.fields(tenant, "limits") == [text]
    await own.change("acme", record.id, KeyChange.model_validate({"limits": LIMITS}), by=ACME)
    _, reset = await own.change("acme", record.id, KeyChange(limits=None), by=ACME)
    assert (reset.limits, await store.fields(name, "limits")) == ({}, [None])
    _, other = await own.create(KeyRequest(name="y"), by=ACME)
    assert await store.fields(keys.key_record("acme", other.id), "limits") == [None]


async def test_a_key_that_waits_says_so(own: Keys) -> None:
    """``over_limit`` is kept, shown, changed, reset by null, and known of the caller."""
    _, record = await own.create(KeyRequest(name="x"), by=ACME)
    assert (record.public()["over_limit"], record.caller().over_limit_waits) == ("refuse", False)
    for change, word in (
        ({"over_limit": "wait"}, "wait"),
        ({"weight": 2}, "wait"),
        ({"over_limit": None}, "refuse"),
    ):
        await own.change("acme", record.id, KeyChange.model_validate(change), by=ACME)
        now, _ = await own.get("acme", record.id, by=ACME)
        assert (now.public()["over_limit"], now.caller().over_limit_waits) == (word, word == "wait")


async def test_only_operators_exempt_a_key(own: Keys, store: Store) -> None:
    """Who could not have made an exempt key cannot change, rotate or revoke it either."""
    exempt = {"name": "x", "limits": {"exempt": True}}
    with pytest.raises(Forbidden) as told:
        await own.create(KeyRequest.model_validate(exempt), by=ACME)
    assert told.value.param == "limits"
    _, plain = await own.create(KeyRequest(name="x"), by=ACME)
    with pytest.raises(Forbidden) as told:
        await own.change("acme", plain.id, KeyChange.model_validate(exempt), by=ACME)
    assert told.value.param == "limits"
    request = KeyRequest.model_validate({**exempt, "tenant": "acme"})
    _, record = await own.create(request, by=OPERATOR)
    assert record.caller().exempt
    assert await store.fields(keys.key_record("acme", record.id), "limits") == ["x 0 0 0"]
    for attempt in (
        own.change("acme", record.id, KeyChange(name="y"), by=ACME),
        own.rotate("acme", record.id, Rotation(), by=ACME),
        own.revoke("acme", record.id, by=ACME),
    ):
        with pytest.raises(Forbidden):
            await attempt
    await own.rotate("acme", record.id, Rotation(), by=replace(ACME, exempt=True))
    await own.change("acme", record.id, KeyChange(limits=None), by=OPERATOR)
    await own.rotate("acme", record.id, Rotation(), by=ACME)


async def test_a_keys_limit_may_be_above_its_tenants(own: Keys, tenants: Tenants) -> None:
    """The tenant's binds all the same, so nobody is kept from writing it."""
    limits = {"requests_per_minute": 5}
    await tenants.change("acme", TenantChange.model_validate({"limits": limits}), by=OPERATOR)
    wide = KeyRequest.model_validate({"name": "x", "limits": {"requests_per_minute": 500}})
    _, record = await own.create(wide, by=ACME)
    assert record.limits == {"requests_per_minute": 500}


async def test_limits_travel_in_files(own: Keys, store: Store, store_url: str) -> None:
    """Export and import give back what was written and what the hold reads, to the letter."""
    request = {"name": "x", "tenant": "acme", "over_limit": "wait", "limits": LIMITS}
    _, limited = await own.create(KeyRequest.model_validate(request), by=OPERATOR)
    request = {"name": "y", "tenant": "acme", "limits": {"exempt": True}}
    _, exempt = await own.create(KeyRequest.model_validate(request), by=OPERATOR)
    lines = [line async for line in export_keys(store)]
    names = [keys.key_record("acme", one.id) for one in (limited, exempt)]
    with redis.Redis.from_url(store_url) as client:
        before = [client.hgetall(name) for name in names]
        client.delete(*client.keys("*key*"))
        assert await import_keys(store, lines) == {"written": 2}
        assert [client.hgetall(name) for name in names] == before
    assert [
        record for record, _ in (await own.listed("acme", by=OPERATOR, after="", size=9))[0]
    ] == [
        limited,
        exempt,
    ]


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (
            {"requests_per_minute": -1},
            "line 1: key.limits.requests_per_minute: must be a whole number from 0 to 1000000",
        ),
        (
            {"models": {"m": {"tokens_per_minute": {"limit": 0, "burst": 5}}}},
            "line 1: key.limits.models.m.tokens_per_minute.burst: contradicts a limit of 0",
        ),
        (
            {"token_per_day": 5},
            "line 1: key.limits.token_per_day: is not known; did you mean tokens_per_day?",
        ),
        ({"exempt": True, "concurrency": 1}, "line 1: key.limits.exempt: stands alone"),
    ],
)
async def test_a_wrong_limit_in_a_line_is_named(own: Keys, store: Store, limits, says: str) -> None:
    """The line, the member, and the sentence of the admin API."""
    await own.create(KeyRequest(name="x"), by=ACME)
    (line,) = [line async for line in export_keys(store)]
    wrong = json.loads(line)
    wrong["key"]["limits"] = limits
    with pytest.raises(InvalidRequest) as told:
        await import_keys(store, [json.dumps(wrong)])
    assert str(told.value).startswith(says)


async def test_a_file_of_an_older_gateway_is_read(own: Keys, store: Store) -> None:
    """A line that says nothing of ``over_limit`` is a key that is refused."""
    _, record = await own.create(KeyRequest(name="x"), by=ACME)
    (line,) = [line async for line in export_keys(store)]
    old = json.loads(line)
    del old["key"]["over_limit"]
    await own.revoke("acme", record.id, by=ACME)
    assert await import_keys(store, [json.dumps(old)]) == {"written": 1}
    assert (await own.get("acme", record.id, by=ACME))[0] == record
