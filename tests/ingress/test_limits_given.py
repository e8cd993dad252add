"""Limits over the admin API's bodies: what is refused, and how it is said (CONTRACT §1.1, §4)."""

import json
import re
from typing import Any

import pytest
from pydantic import BaseModel

from serve_app.auth import (
    KeyChange,
    KeyRequest,
    TenantChange,
    TenantRequest,
    UserChange,
    UserRequest,
)
from serve_app.errors import InvalidRequest
from serve_app.ingress.admin.asked import body_as
from serve_app.ingress.exchange import Exchange
from tests.test_allowance import WRONG

BODIES: dict[type[BaseModel], dict[str, Any]] = {
    KeyRequest: {"name": "x"},
    KeyChange: {},
    TenantRequest: {"id": "acme"},
    TenantChange: {},
    UserRequest: {"name": "ada", "password": "correct horse battery"},
    UserChange: {},
}


async def read(kind: type[BaseModel], body: object) -> BaseModel:
    """What a handler makes of a body on the wire."""

    async def wire(*_: Any) -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(body).encode()}

    scope = {
        "method": "POST",
        "path": "/",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    return await body_as(kind, Exchange(scope, wire, wire))


@pytest.mark.parametrize("kind", BODIES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(("written", "where", "says"), WRONG)
async def test_a_wrong_limit_is_refused_when_it_is_written(
    kind: type[BaseModel], written: Any, where: str, says: str | None
) -> None:
    """400 with the path of the member and one plain sentence, for keys, tenants and users alike."""
    with pytest.raises(InvalidRequest) as told:
        await read(kind, BODIES[kind] | {"limits": written})
    assert told.value.param == f"limits.{where}"
    assert told.value.status == 400
    said = str(told.value)
    assert said.startswith(f"'limits.{where}': ")
    assert said.endswith((".", "?"))
    if says and not says.startswith("Extra"):
        assert says.removeprefix("Value error, ") in said
    assert not re.search(r"pydantic|Value error|Extra inputs|union|constrained|int\b", said)


@pytest.mark.parametrize(
    ("limits", "param", "says"),
    [
        (
            {"request_per_minute": 1},
            "limits.request_per_minute",
            "is not known; did you mean requests_per_minute?",
        ),
        (
            {"models": {"m": {"token_per_day": 1}}},
            "limits.models.m.token_per_day",
            "is not known; did you mean tokens_per_day?",
        ),
        (
            {"tokens_per_day": {"limit": 1, "reset": 2}},
            "limits.tokens_per_day.reset",
            "is not known; known here: limit.",
        ),
        (
            {"tokens_per_minute": {"limits": 1, "limit": 1}},
            "limits.tokens_per_minute.limits",
            "is not known; did you mean limit?",
        ),
        (5, "limits", "Input should be an object."),
    ],
)
async def test_an_unknown_limit_is_told_what_it_may_have_meant(
    limits: Any, param: str, says: str
) -> None:
    """A word that is nearly one of ours, or all that would do."""
    with pytest.raises(InvalidRequest) as told:
        await read(KeyRequest, {"name": "x", "limits": limits})
    assert (told.value.param, str(told.value)) == (param, f"'{param}': {says}")


@pytest.mark.parametrize("kind", [TenantRequest, TenantChange], ids=lambda kind: kind.__name__)
async def test_no_tenant_is_exempt(kind: type[BaseModel]) -> None:
    """A tenant without limits has none; exempt are its callers, from its limits too."""
    with pytest.raises(InvalidRequest, match="is for keys and users") as told:
        await read(kind, BODIES[kind] | {"limits": {"exempt": True}})
    assert told.value.param == "limits.exempt"
    await read(kind, BODIES[kind] | {"limits": {"exempt": False}})


@pytest.mark.parametrize("kind", [KeyRequest, KeyChange], ids=lambda kind: kind.__name__)
async def test_over_limit_is_one_of_two_words(kind: type[BaseModel]) -> None:
    """A key's requests beyond a limit are refused, or wait; null is the default."""
    for word in ("refuse", "wait", None):
        assert (await read(kind, BODIES[kind] | {"over_limit": word})).over_limit == word
    for wrong in ("explode", "Wait", 1, True, ["wait"]):
        with pytest.raises(InvalidRequest) as told:
            await read(kind, BODIES[kind] | {"over_limit": wrong})
        assert told.value.param == "over_limit"
        assert "'refuse' or 'wait'" in str(told.value)
    with pytest.raises(InvalidRequest) as unknown:
        await read(UserChange, {"over_limit": "wait"})
    assert unknown.value.param == "over_limit"
