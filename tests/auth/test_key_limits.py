"""Limits that keys carry: what the hold reads of them, and who may write them."""

from dataclasses import replace

import pytest

from serve_app.auth import (
    KeyChange,
    KeyRequest,
    Keys,
    Rotation,
    TenantChange,
    Tenants,
)
from serve_app.errors import (
    Forbidden,
)
from serve_app.store import Store, keys
from tests.auth.owners import ACME, LIMITS, OPERATOR, TEXT


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
