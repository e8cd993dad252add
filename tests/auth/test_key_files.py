"""Keys in files: exported and imported, without their secrets."""

import json

import pytest
import redis

from serve_app.auth import (
    KeyRequest,
    Keys,
    export_keys,
    import_keys,
)
from serve_app.errors import (
    InvalidRequest,
)
from serve_app.store import Store, keys
from tests.auth.owners import ACME, LIMITS, OPERATOR


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
    found, _ = await own.listed("acme", by=OPERATOR, after="", size=9)
    by_name = sorted((record for record, _ in found), key=lambda record: record.name)
    assert by_name == [limited, exempt]  # both were made within a millisecond, or not


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


async def test_a_capture_does_not_travel(own: Keys, store: Store) -> None:
    """An operator began it here; no file begins one elsewhere."""
    _, record = await own.create(KeyRequest(name="x"), by=ACME)
    _, watched = await own.capture("acme", record.id, 60, by=OPERATOR)
    assert watched.capture_ends_ms > 0
    (line,) = [line async for line in export_keys(store)]
    await own.revoke("acme", record.id, by=ACME)
    assert await import_keys(store, [line]) == {"written": 1}
    assert (await own.get("acme", record.id, by=ACME))[0] == record
