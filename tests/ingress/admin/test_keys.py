"""The admin API's own fields, before the store is asked."""

import json
from typing import Any
from urllib.parse import quote

import pytest

from serve_app.auth import PERMISSIONS, Caller, KeyRequest
from serve_app.errors import Forbidden, InvalidRequest
from serve_app.ingress.admin.asked import body_as
from serve_app.ingress.admin.keys import list_keys
from serve_app.ingress.exchange import Exchange

NO_GATE: Any = None  # whoever asks it for anything fails
ADMIN = Caller("acme", "k1", PERMISSIONS)


def asking(query: str) -> Exchange:
    async def wire(*_: Any) -> Any:
        raise AssertionError("nothing is read or sent")

    scope = {"method": "GET", "path": "/", "query_string": query.encode(), "headers": []}
    return Exchange(scope, wire, wire)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("limit", "0"),
        ("limit", "1001"),
        ("limit", "-1"),
        ("limit", "1.5"),
        ("limit", ""),
        ("limit", "ten"),
        ("limit", "٣"),
        ("limit", "²"),
        ("limit", "9" * 20),
        ("limit", "0" * 20 + "9" * 5_000),
    ],
)
async def test_a_wrong_number_is_named(name: str, text: str) -> None:
    """A page's size is a whole number within its bounds, however long."""
    with pytest.raises(InvalidRequest, match=f"'{name}' must be a whole number") as told:
        await list_keys(NO_GATE, asking(f"{name}={quote(text)}"), ADMIN)
    assert told.value.param == name


async def test_another_tenants_keys() -> None:
    """A tenant's own admin asks for its own tenant only."""
    with pytest.raises(Forbidden, match="its own tenant"):
        await list_keys(NO_GATE, asking("tenant=other"), ADMIN)


@pytest.mark.parametrize(
    "body", [{"name": "a", "x" * 60_000: 1}, {"name": "a", "limits": {"y" * 60_000: 1}}]
)
async def test_a_long_name_is_not_repeated_whole(body: dict[str, Any]) -> None:
    """A member that nobody knows is named by its beginning: 60 KB of it came back once."""
    sent = {"type": "http.request", "body": json.dumps(body).encode()}

    async def receive() -> dict[str, Any]:
        return sent

    headers = [(b"content-type", b"application/json")]
    scope = {"method": "POST", "path": "/", "query_string": b"", "headers": headers}
    with pytest.raises(InvalidRequest, match="is not known") as told:
        await body_as(KeyRequest, Exchange(scope, receive, receive))
    assert len(str(told.value)) < 1_000
    assert len(told.value.param or "") < 100
