"""Who may make, change and see which user. Pure.

Whoever changes a user must be able to make both who it was and who it becomes: permissions, models
and classes that one lacks can be neither given nor taken over by way of a new password. Nobody can
lock oneself out.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from serve_app.auth.caller import ROLES, Caller
from serve_app.auth.grant import Known, must_be_classes, must_be_limitable, must_cover
from serve_app.auth.users.user import UserChange, UserRecord, UserRequest
from serve_app.errors import Forbidden, InvalidRequest


def may_see(by: Caller, record: UserRecord) -> bool:
    """Return whether ``record`` is there at all, as far as ``by`` can tell."""
    return by.operator or (record.tenant == by.tenant and not record.all_tenants)


def created(
    request: UserRequest, *, user_id: str, by: Caller, classes: Sequence[str]
) -> UserRecord:
    """Return the record of a new user; what the request leaves open is what ``by`` itself has.

    Args:
        request: what is asked for.
        user_id: its id.
        by: who asks.
        classes: the classes there are, highest first.

    Raises:
        Forbidden: it would be given what ``by`` lacks, or be exempt from limits.
        InvalidRequest: it names an unknown class, or a class above its ceiling.
    """
    own: dict[str, Any] = {} if by.operator else {"max_class": by.max_class}
    if by.models is not None:
        own["models"] = sorted(by.models)
    told = own | {name: value for name, value in request.given().items() if value is not None}
    record = UserRecord(user_id, request.name, request.tenant or by.tenant, 0, **told)
    must_not_be_name(request.password, record, param="password")
    must_be_limitable(request.limits, by)
    must_be_classes(record, Known(classes), ())
    must_be_able_to_make(by, record, classes)
    return record


def changed(
    record: UserRecord, change: UserChange, *, by: Caller, classes: Sequence[str]
) -> UserRecord:
    """Return ``record`` with ``change``; arguments and errors as in :func:`created`."""
    must_be_able_to_make(by, record, classes)
    given = change.given()
    after = replace(record, **given)
    must_not_be_name(change.password, record, param="password")
    must_be_limitable(change.limits, by)
    named = replace(after, class_=given.get("class_"), max_class=given.get("max_class"))
    must_be_classes(named, Known(classes), ())  # those that were there before may be gone by now
    if {after.class_, after.max_class} <= {*classes, None}:
        must_be_classes(after, Known(classes), ())
    must_be_able_to_make(by, after, classes)
    if by.key_id == record.key_id:
        _must_not_lock_out(record, change, after)
    return after


def removable(record: UserRecord, *, by: Caller, classes: Sequence[str]) -> None:
    """Return if ``by`` may remove ``record``; ``classes`` as in :func:`created`.

    Raises:
        Forbidden: it is ``by`` itself, or more than ``by``.
    """
    must_be_able_to_make(by, record, classes)
    if by.key_id == record.key_id:
        raise Forbidden("Nobody removes oneself; ask another admin.")


def must_be_able_to_make(by: Caller, record: UserRecord, classes: Sequence[str]) -> None:
    """Return if ``by`` holds all that ``record`` does; ``classes`` as in :func:`created`.

    Raises:
        Forbidden: it does not.
    """
    if record.all_tenants and not by.operator:
        raise Forbidden("Only who may act for all tenants may allow it.", param="all_tenants")
    must_cover(by, record.caller(), Known(classes))


def must_not_be_name(password: str, record: UserRecord, *, param: str) -> None:
    """Return if ``password`` is not the user's name.

    Raises:
        InvalidRequest: it is; ``param`` names the field that held it.
    """
    if password.lower() == record.name:
        raise InvalidRequest("The password must not be the user name.", param=param)


def _must_not_lock_out(record: UserRecord, change: UserChange, after: UserRecord) -> None:
    lost = ROLES.get(record.role, frozenset()) - ROLES.get(after.role, frozenset())
    if lost or after.disabled or (record.all_tenants and not after.all_tenants):
        raise Forbidden("Nobody disables or demotes oneself; ask another admin.")
    if change.password:
        raise Forbidden(
            "Change your own password with POST /v1/auth/password, which asks for the old one.",
            param="password",
        )
