"""What may be given, and which class is served."""

from ipaddress import ip_network

import pytest
from pydantic import ValidationError

from serve_app.auth import PERMISSIONS, Caller, Known, class_of
from serve_app.auth.caller import Network
from serve_app.auth.grant import Grant, must_be_classes, must_be_givable, must_cover
from serve_app.auth.keys.key_record import (
    KeyChange,
    KeyRecord,
    KeyRequest,
    changed_record,
    new_record,
)
from serve_app.errors import AddressForbidden, Forbidden, InvalidRequest, ModelForbidden

ORDER = ("interactive", "standard", "batch", "anonymous")
KNOWN = Known(ORDER, frozenset({"/v1/chat/completions", "/v1/completions"}))
DAY_MS = 86_400_000


def caller(**more: object) -> Caller:
    return Caller("acme", "k1", **{"permissions": PERMISSIONS, **more})  # type: ignore[arg-type]


def networks(*cidrs: str) -> tuple[Network, ...]:
    return tuple(ip_network(cidr) for cidr in cidrs)


@pytest.mark.parametrize(
    ("wanted", "ceilings", "served"),
    [
        pytest.param(None, [], "standard", id="the default"),
        pytest.param("batch", [], "batch", id="its own"),
        pytest.param("interactive", ["standard"], "standard", id="a ceiling"),
        pytest.param("interactive", ["standard", "batch"], "batch", id="the lowest ceiling"),
        pytest.param("batch", ["interactive"], "batch", id="a ceiling lifts nobody"),
        pytest.param("gone", [], "standard", id="a class that is gone"),
        pytest.param("interactive", ["gone"], "anonymous", id="a ceiling that is gone"),
        pytest.param("interactive", [None, None], "interactive", id="no ceiling"),
    ],
)
def test_the_class_that_is_served(wanted, ceilings, served: str) -> None:
    """The wanted one, never above a ceiling; what the gate no longer knows favours nobody."""
    assert class_of(wanted, ceilings, ORDER) == served
    assert class_of(None, [], ["only"]) == "only"


@pytest.mark.parametrize(
    ("asked", "ceilings", "refusal"),
    [
        pytest.param({"class": "batch"}, [None], None, id="known"),
        pytest.param({"class": "gold"}, [None], InvalidRequest, id="unknown"),
        pytest.param({"max_class": "gold"}, [None], InvalidRequest, id="unknown ceiling"),
        pytest.param({"class": "interactive"}, ["standard"], Forbidden, id="above the tenant's"),
        pytest.param({"max_class": "interactive"}, ["standard"], Forbidden, id="ceiling above"),
        pytest.param(
            {"class": "interactive", "max_class": "batch"}, [], InvalidRequest, id="above its own"
        ),
    ],
)
def test_classes_that_may_be_given(asked, ceilings, refusal) -> None:
    """A class exists, lies below the giver's and tenant's ceilings, and below its own."""
    grant = Grant.model_validate(asked)
    if refusal is None:
        must_be_classes(grant, KNOWN, ceilings)
    else:
        with pytest.raises(refusal) as told:
            must_be_classes(grant, KNOWN, ceilings)
        assert told.value.param in ("class", "max_class")


@pytest.mark.parametrize(
    ("asked", "by", "refusal"),
    [
        pytest.param({"permissions": ["manage_keys"]}, {}, None, id="held"),
        pytest.param(
            {"permissions": ["manage_keys"]},
            {"permissions": frozenset({"run_inference"})},
            Forbidden,
            id="a permission it lacks",
        ),
        pytest.param({"models": ["b"]}, {"models": frozenset({"a"})}, ModelForbidden, id="model"),
        pytest.param(
            {"endpoints": ["/v1/completions"]},
            {"endpoints": frozenset({"/v1/chat/completions"})},
            Forbidden,
            id="endpoint",
        ),
        pytest.param({"endpoints": ["/v1/fly"]}, {}, InvalidRequest, id="no such endpoint"),
        pytest.param(
            {"allowed_addresses": ["10.1.0.0/16"]},
            {"networks": networks("10.0.0.0/8")},
            None,
            id="a network within its own",
        ),
        pytest.param(
            {"allowed_addresses": ["0.0.0.0/0"]},
            {"networks": networks("10.0.0.0/8")},
            AddressForbidden,
            id="a network beyond its own",
        ),
        pytest.param(
            {"allowed_addresses": ["::/0"]},
            {"networks": networks("10.0.0.0/8")},
            AddressForbidden,
            id="the other family",
        ),
    ],
)
def test_nobody_gives_what_it_lacks(asked, by, refusal) -> None:
    """Permissions, models, endpoints and addresses lie within the giver's own."""
    grant = Grant.model_validate(asked)
    if refusal is None:
        must_be_givable(grant, caller(**by), KNOWN)
    else:
        with pytest.raises(refusal):
            must_be_givable(grant, caller(**by), KNOWN)


def test_a_new_key_inherits_what_it_does_not_name() -> None:
    """Models, endpoints, addresses and the end are the maker's; permissions are a caller's."""
    by = caller(
        models=frozenset({"a"}),
        endpoints=frozenset({"/v1/completions"}),
        networks=networks("10.0.0.0/8"),
        expires_ms=5 * DAY_MS,
        max_class="batch",
    )
    record = new_record("k2", "acme", KeyRequest(name="x"), by, DAY_MS)
    assert (record.models, record.endpoints) == (["a"], ["/v1/completions"])
    assert record.allowed_addresses == ["10.0.0.0/8"]
    assert record.expires_ms == 5 * DAY_MS
    assert record.permissions == ["read_models", "run_inference", "use_streaming"]
    assert record.max_class == "batch"
    must_cover(by, record.caller(), KNOWN)


@pytest.mark.parametrize("days", [4.1, 100])
def test_no_key_outlives_its_maker(days: float) -> None:
    """A key that ends cannot make one that ends later."""
    by = caller(expires_ms=5 * DAY_MS)
    with pytest.raises(Forbidden, match="ends at") as told:
        new_record("k2", "acme", KeyRequest(name="x", expires_in_days=days), by, DAY_MS)
    assert told.value.param == "expires_in_days"


def test_only_an_operator_makes_an_operator() -> None:
    """``all_tenants`` is not given by who does not hold it."""
    request = KeyRequest(name="x", all_tenants=True)
    with pytest.raises(Forbidden):
        new_record("k2", "acme", request, caller(), DAY_MS)
    assert new_record("k2", "acme", request, caller(operator=True), DAY_MS).operator


def test_a_change_replaces_what_it_names_and_nothing_else() -> None:
    """Null resets; what is not named stays."""
    by = caller()
    request = KeyRequest.model_validate(
        {"name": "x", "class": "batch", "weight": 2, "expires_in_days": 1, "metadata": {"a": 1}}
    )
    was = new_record("k2", "acme", request, by, DAY_MS)
    change = KeyChange.model_validate({"weight": 3, "expires_in_days": None})
    now = changed_record(was, change, change.model_fields_set, by, 2 * DAY_MS)
    assert (now.weight, now.expires_ms, now.changed_ms) == (3, 0, 2 * DAY_MS)
    assert (now.name, now.class_, now.metadata, now.permissions) == (
        "x",
        "batch",
        {"a": 1},
        was.permissions,
    )


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"name": ""}, "name"),
        ({"name": "x", "permissions": ["fly"]}, "permissions"),
        ({"name": "x", "allowed_addresses": ["10.0.0.1/8"]}, "allowed_addresses"),
        ({"name": "x", "allowed_addresses": ["everywhere"]}, "allowed_addresses"),
        ({"name": "x", "weight": 0}, "weight"),
        ({"name": "x", "weight": "2"}, "weight"),
        ({"name": "x", "expires_in_days": 0}, "expires_in_days"),
        ({"name": "x", "limits": {"requests_per_minute": -1}}, "limits"),
        ({"name": "x", "limits": {"requests": 1}}, "limits"),
        ({"name": "x", "metadata": {"a": "b" * 5_000}}, "metadata"),
        ({"name": "x", "metadata": {"a": {}}}, "metadata"),
        ({"name": "x", "secret": "mine"}, "secret"),
        ({"name": "x", "over_limit": "explode"}, "over_limit"),
    ],
)
def test_a_wrong_member_is_named(body, where: str) -> None:
    """Each mistake points at its member."""
    with pytest.raises(ValidationError) as told:
        KeyRequest.model_validate(body)
    assert told.value.errors()[0]["loc"][0] == where


def test_a_record_of_a_newer_gateway_is_read() -> None:
    """Members that this version does not know are left out; what an older one lacks is empty."""
    record = KeyRecord("k", "n", "t", [], None, {}, 1, 0)
    text = record.to_json()[:-1] + ',"colour":"red"}'
    assert KeyRecord.from_json(text) == record


COVER = caller(permissions=frozenset({"read_models"}), models=frozenset({"a"}))


@pytest.mark.parametrize(
    ("other", "covered"),
    [
        pytest.param({}, True, id="the same"),
        pytest.param({"models": frozenset()}, True, id="fewer models"),
        pytest.param({"models": None}, False, id="every model"),
        pytest.param({"models": frozenset({"b"})}, False, id="another model"),
        pytest.param({"permissions": frozenset({"manage_keys"})}, False, id="a permission"),
        pytest.param({"operator": True}, False, id="an operator"),
        pytest.param({"exempt": True}, False, id="exempt from limits"),
    ],
)
def test_who_may_rotate_whose_key(other, covered: bool) -> None:
    """A new secret is given only to who may do all that the key may."""
    theirs = {"permissions": COVER.permissions, "models": COVER.models, **other}
    if covered:
        COVER.must_cover(caller(**theirs))
    else:
        with pytest.raises(Forbidden):
            COVER.must_cover(caller(**theirs))


@pytest.mark.parametrize(
    ("by", "other", "covered"),
    [
        pytest.param({"networks": networks("10.0.0.0/8")}, {}, False, id="from anywhere"),
        pytest.param(
            {"networks": networks("10.0.0.0/8")},
            {"networks": networks("10.1.0.0/16")},
            True,
            id="from within",
        ),
        pytest.param({"expires_ms": 5}, {}, False, id="for ever"),
        pytest.param({"expires_ms": 5}, {"expires_ms": 6}, False, id="for longer"),
        pytest.param({"expires_ms": 5}, {"expires_ms": 5}, True, id="as long"),
        pytest.param({"endpoints": frozenset()}, {}, False, id="every endpoint"),
    ],
)
def test_who_may_rotate_from_where_and_until_when(by, other, covered: bool) -> None:
    """Addresses, endpoints and the end count as well."""
    if covered:
        caller(**by).must_cover(caller(**other))
    else:
        with pytest.raises(Forbidden):
            caller(**by).must_cover(caller(**other))


@pytest.mark.parametrize(
    ("by", "other", "covered"),
    [
        pytest.param({}, {}, True, id="no ceiling"),
        pytest.param({"max_class": "batch"}, {}, False, id="none above its own"),
        pytest.param({"max_class": "batch"}, {"max_class": "standard"}, False, id="a higher one"),
        pytest.param({"max_class": "batch"}, {"max_class": "batch"}, True, id="the same"),
        pytest.param({"max_class": "batch"}, {"max_class": "anonymous"}, True, id="a lower one"),
        pytest.param({"max_class": "batch", "operator": True}, {}, True, id="an operator"),
    ],
)
def test_a_ceiling_binds_what_one_makes_and_changes(by, other, covered: bool) -> None:
    """Nobody makes, changes, rotates or revokes a key that may wait in a higher class."""
    if covered:
        must_cover(caller(**by), caller(**other), KNOWN)
    else:
        with pytest.raises(Forbidden) as told:
            must_cover(caller(**by), caller(**other), KNOWN)
        assert told.value.param == "max_class"
