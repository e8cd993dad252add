"""Who may make, change and see which user: the rules alone, without a store (CONTRACT §1.4)."""

from dataclasses import replace
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from serve_app.auth import Caller
from serve_app.auth.caller import ROLES
from serve_app.auth.users.granting import changed, created, may_see, removable
from serve_app.auth.users.user import Role, UserRecord, drawn, identify_user
from serve_app.errors import Forbidden, GateError, InvalidRequest, ModelForbidden
from tests.accounts import ACME, CLASSES, OPERATOR, OTHER, PASSWORD, asked, change, without

ADA = UserRecord("a" * 12, "ada", "acme", 1, role="admin")
EVE = UserRecord("e" * 12, "eve", "acme", 1)
ROOT = UserRecord("r" * 12, "root", "acme", 1, role="viewer", all_tenants=True)
ON_BATCH = replace(ACME, max_class="batch")
ON_M1 = replace(ACME, models=frozenset({"m1"}))
USERS_ONLY = Caller("acme", "k", frozenset({"manage_users"}))


def make(by: Caller, **what: Any) -> UserRecord:
    return created(asked("eve", **what), user_id=drawn(), by=by, classes=CLASSES)


def alter(record: UserRecord, by: Caller, **what: Any) -> UserRecord:
    return changed(record, change(**what), by=by, classes=CLASSES)


def test_the_roles_are_the_roles() -> None:
    """What a request may name and what is known are the same."""
    assert set(get_args(Role)) == set(ROLES)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("ada", "ada"),
        ("Ada.Lovelace+x@Example.org", "ada.lovelace+x@example.org"),
        ("0", "0"),
        ("a" * 128, "a" * 128),
    ],
)
def test_a_name(name: str, kept: str) -> None:
    """Letters, digits and what e-mail addresses need; capitals are lowered."""
    assert asked(name).name == kept


@pytest.mark.parametrize(
    "name", ["", "-a", ".a", "@a", "a b", "a/b", "a\n", "ä", "\u212a", "a" * 129]
)
def test_no_name(name: str) -> None:
    """Anything else is refused, also what only becomes a letter when it is lowered."""
    with pytest.raises(ValidationError, match="name"):
        asked(name)


@pytest.mark.parametrize(
    "wrong",
    [
        {"role": "root"},
        {"role": None},
        {"password": "short"},
        {"disabled": "yes"},
        {"disabled": None},
        {"models": "m1"},
        {"class": "No Class"},
        {"class_": "batch"},
        {"weight": 0},
        {"weight": 1_001},
        {"limits": {"requests_per_minute": -1}},
        {"limits": {"tokens": 1}},
        {"metadata": {"a": {"b": 1}}},
        {"metadata": {"a": "x" * 4_097}},
        {"all_tenants": 1},
        {"permissions": ["run_inference"]},
        {"name": "other"},
        {"tenant": "other"},
        {"id": "0"},
    ],
    ids=str,
)
def test_what_no_change_may_say(wrong: dict[str, Any]) -> None:
    """Unknown fields and wrong values are refused; name, tenant and id stay what they are."""
    with pytest.raises(ValidationError):
        change(**wrong)


def test_a_new_user_has_what_its_maker_has() -> None:
    """What a request leaves open is a plain user's, within the maker's models and classes."""
    plain = make(ACME)
    assert (plain.tenant, plain.role, plain.models, plain.max_class) == ("acme", "user", None, None)
    bound = make(replace(ON_M1, max_class="batch"))
    assert (bound.models, bound.max_class) == (["m1"], "batch")
    assert make(replace(OPERATOR, max_class="batch"), tenant="acme").max_class is None


@pytest.mark.parametrize(
    ("by", "what", "refusal"),
    [
        pytest.param(ACME, {"role": "admin"}, None, id="an admin makes an admin"),
        pytest.param(without("write_config"), {"role": "admin"}, Forbidden, id="more than it may"),
        pytest.param(without("write_config"), {"role": "operator"}, None, id="as much as it may"),
        pytest.param(USERS_ONLY, {"role": "user"}, Forbidden, id="users only makes no user"),
        pytest.param(ACME, {"all_tenants": True}, Forbidden, id="all tenants by a tenant's"),
        pytest.param(OPERATOR, {"all_tenants": True}, None, id="all tenants by an operator"),
        pytest.param(ACME, {"limits": {"exempt": True}}, Forbidden, id="exempt by a tenant's"),
        pytest.param(OPERATOR, {"limits": {"exempt": True}}, None, id="exempt by an operator"),
        pytest.param(ACME, {"limits": {"tokens_per_day": 10**12}}, None, id="however much"),
        pytest.param(ON_M1, {"models": ["m1"]}, None, id="its model"),
        pytest.param(ON_M1, {"models": ["m1", "m2"]}, ModelForbidden, id="another model"),
        pytest.param(ON_M1, {"models": []}, None, id="no model"),
        pytest.param(ACME, {"class": "batch", "max_class": "standard"}, None, id="classes"),
        pytest.param(ACME, {"class": "nosuch"}, InvalidRequest, id="no such class"),
        pytest.param(ACME, {"max_class": "nosuch"}, InvalidRequest, id="no such ceiling"),
        pytest.param(
            ACME, {"class": "standard", "max_class": "batch"}, InvalidRequest, id="over its ceiling"
        ),
        pytest.param(ON_BATCH, {"class": "batch"}, None, id="as high as it may"),
        pytest.param(ON_BATCH, {"max_class": "standard"}, Forbidden, id="a higher ceiling"),
        pytest.param(
            ON_BATCH, {"class": "interactive", "max_class": "interactive"}, Forbidden, id="higher"
        ),
        pytest.param(
            replace(ON_BATCH, operator=True), {"class": "interactive"}, None, id="operator"
        ),
        pytest.param(ACME, {"name": PASSWORD.replace(" ", "-")}, None, id="another password"),
        pytest.param(
            ACME,
            {"password": "eve-eve-eve", "name": "eve-eve-eve"},
            InvalidRequest,
            id="its name as password",
        ),
        pytest.param(
            ACME,
            {"password": "Eve-Eve-Eve", "name": "eve-eve-eve"},
            InvalidRequest,
            id="its name in capitals",
        ),
    ],
)
def test_nobody_gives_what_it_lacks(
    by: Caller, what: dict[str, Any], refusal: type[GateError] | None
) -> None:
    """A new user has no permission, model, class or reach that its maker lacks."""
    told = {"name": "eve", **what}
    request = asked(**told)
    if refusal is None:
        record = created(request, user_id=drawn(), by=by, classes=CLASSES)
        assert record.caller().permissions <= by.permissions
    else:
        with pytest.raises(GateError) as refused:
            created(request, user_id=drawn(), by=by, classes=CLASSES)
        assert refused.type is refusal


@pytest.mark.parametrize(
    ("by", "record", "what", "refusal"),
    [
        pytest.param(ACME, ADA, {"role": "viewer"}, None, id="an admin demotes an admin"),
        pytest.param(without("write_config"), ADA, {"weight": 2}, Forbidden, id="touch one above"),
        pytest.param(
            without("write_config"), ADA, {"password": PASSWORD}, Forbidden, id="take one over"
        ),
        pytest.param(without("write_config"), ADA, {"role": "user"}, Forbidden, id="demote above"),
        pytest.param(without("write_config"), EVE, {"role": "admin"}, Forbidden, id="promote"),
        pytest.param(without("write_config"), EVE, {"password": PASSWORD}, None, id="one below"),
        pytest.param(ON_M1, EVE, {"password": PASSWORD}, Forbidden, id="one with every model"),
        pytest.param(ON_M1, replace(EVE, models=["m1"]), {"password": PASSWORD}, None, id="alike"),
        pytest.param(
            ON_M1, replace(EVE, models=["m1"]), {"models": None}, Forbidden, id="every model"
        ),
        pytest.param(ON_BATCH, EVE, {"weight": 2}, Forbidden, id="one without a ceiling"),
        pytest.param(ON_BATCH, replace(EVE, max_class="batch"), {"weight": 2}, None, id="below it"),
        pytest.param(
            ON_BATCH, replace(EVE, max_class="batch"), {"max_class": None}, Forbidden, id="lift it"
        ),
        pytest.param(ACME, EVE, {"all_tenants": True}, Forbidden, id="all tenants"),
        pytest.param(ACME, ROOT, {"all_tenants": False}, Forbidden, id="an operator"),
        pytest.param(OPERATOR, ROOT, {"all_tenants": False}, None, id="an operator by its like"),
        pytest.param(ACME, EVE, {"class": "nosuch"}, InvalidRequest, id="no such class"),
        pytest.param(ACME, replace(EVE, class_="gone"), {"weight": 2}, None, id="a class of old"),
        pytest.param(ACME, EVE, {"password": "a-long-name"}, None, id="a password"),
        pytest.param(
            ACME,
            replace(EVE, name="a-long-name"),
            {"password": "a-long-name"},
            InvalidRequest,
            id="its name",
        ),
        pytest.param(ADA.caller(), ADA, {"disabled": True}, Forbidden, id="disable oneself"),
        pytest.param(ADA.caller(), ADA, {"role": "operator"}, Forbidden, id="demote oneself"),
        pytest.param(ADA.caller(), ADA, {"password": PASSWORD}, Forbidden, id="own password"),
        pytest.param(ADA.caller(), ADA, {"weight": 2, "role": "admin"}, None, id="own weight"),
    ],
)
def test_who_may_change_what(
    by: Caller, record: UserRecord, what: dict[str, Any], refusal: type[GateError] | None
) -> None:
    """Whoever changes a user holds all that it was and becomes; nobody locks oneself out."""
    if refusal is None:
        alter(record, by, **what)
    else:
        with pytest.raises(GateError) as refused:
            alter(record, by, **what)
        assert refused.type is refusal


def test_own_reach_is_not_given_up() -> None:
    """An operator stays one until another one changes that."""
    root = replace(ADA, all_tenants=True)
    with pytest.raises(Forbidden, match="oneself"):
        alter(root, root.caller(), all_tenants=False)


def test_only_what_is_named_changes() -> None:
    """A change sets what it names, null included, and keeps the rest."""
    full = replace(
        EVE,
        models=["m1"],
        class_="batch",
        max_class="standard",
        weight=2.0,
        limits={"requests_per_minute": 5},
        metadata={"team": "x"},
    )
    assert alter(full, ACME) == full
    assert alter(full, ACME, models=None) == replace(full, models=None)
    assert alter(full, ACME, limits={}) == replace(full, limits={})
    assert alter(full, ACME, **{"class": None, "weight": 3}) == replace(
        full, class_=None, weight=3.0
    )
    assert alter(full, ACME, metadata={"a": 1}) == replace(full, metadata={"a": 1})


@pytest.mark.parametrize(
    ("by", "record", "told"),
    [
        (ACME, ADA, None),
        (OPERATOR, ROOT, None),
        (without("write_config"), ADA, "write_config"),
        (ADA.caller(), ADA, "oneself"),
        (ADA.caller(), EVE, None),
    ],
)
def test_who_may_remove_whom(by: Caller, record: UserRecord, told: str | None) -> None:
    """Whoever could make a user may remove it, but nobody oneself."""
    if told is None:
        removable(record, by=by, classes=CLASSES)
    else:
        with pytest.raises(Forbidden, match=told):
            removable(record, by=by, classes=CLASSES)


@pytest.mark.parametrize(
    ("by", "record", "seen"),
    [
        (ACME, EVE, True),
        (OTHER, EVE, False),
        (OPERATOR, EVE, True),
        (ACME, ROOT, False),
        (OPERATOR, ROOT, True),
    ],
)
def test_who_sees_whom(by: Caller, record: UserRecord, seen: bool) -> None:
    """A tenant's own users, without its operators; an operator sees all."""
    assert may_see(by, record) is seen


def test_a_record_comes_back() -> None:
    """What the store keeps is the record, and the caller it makes has all that it says."""
    record = replace(
        EVE, role="operator", models=["m1"], class_="batch", max_class="standard", weight=0.5
    )
    assert UserRecord.from_json(record.to_json()) == record
    assert identify_user(record.to_json()) == Caller(
        "acme",
        f"user-{record.id}",
        ROLES["operator"],
        frozenset({"m1"}),
        class_="batch",
        max_class="standard",
        weight=0.5,
    )
    assert identify_user(ROOT.to_json()).operator


def test_a_newer_gateways_record_is_read() -> None:
    """Fields that we do not know are passed over; a role that we do not know may do nothing."""
    record = UserRecord.from_json(EVE.to_json()[:-1] + ',"later":1}')
    assert record == EVE
    assert replace(record, role="later").caller().permissions == frozenset()


@pytest.mark.parametrize(
    ("limits", "text", "exempt"),
    [
        ({}, "", False),
        ({"requests_per_minute": 7, "cost_per_day": 0.5}, "r 7 7 0 D 500000000 500000000 0", False),
        ({"exempt": True}, "x 0 0 0", True),
    ],
)
def test_a_users_own_limits(limits: dict[str, Any], text: str, exempt: bool) -> None:
    """Its own as steps read them, or the gate's default."""
    eve = replace(EVE, limits=limits)
    assert (eve.limits_text(), eve.caller().exempt) == (text, exempt)


def test_what_is_shown_and_what_is_logged() -> None:
    """The API shows the record, without internals; the audit keeps no name and no metadata."""
    told = replace(EVE, metadata={"mail": "e@x"}, changed_ms=1_000, revision="r1").public()
    assert told["permissions"] == sorted(ROLES["user"])
    assert (told["class"], told["changed_at"]) == (None, "1970-01-01T00:00:01Z")
    assert not {"class_", "created_ms", "password"} & told.keys()
    assert not {"name", "metadata", "id"} & EVE.audited().keys()
    assert "'eve'" not in repr(EVE)
    assert PASSWORD not in repr(asked("eve")) + repr(change(password=PASSWORD))
