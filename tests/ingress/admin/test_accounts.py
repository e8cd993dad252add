"""Users, logins and visitors on the wire: bodies, replies, what is counted and written down."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from serve_app import auth
from serve_app.auth import Caller, Credential, How, Kind, Known, Tenants
from serve_app.auth.users.passwords import Passwords
from serve_app.auth.users.users import Users
from serve_app.auth.users.visitors import Visitors
from serve_app.auth_settings import Visitor
from serve_app.errors import (
    BodyTooLarge,
    Forbidden,
    GateError,
    InvalidLogin,
    InvalidRequest,
    NoSuchRoute,
    NoSuchUser,
    TooManyAttempts,
    UpstreamFailed,
)
from serve_app.ingress.admin import accounts
from serve_app.ingress.exchange import Exchange
from serve_app.ports import free_port
from serve_app.redaction import redacted
from serve_app.store import Store, keys
from tests.accounts import ACME, OPERATOR, OTHER, PASSWORD, QUICK, Tokens, asked, users_on
from tests.captcha import answers, service

NEW_PASSWORD = "battery staple horse"
HERE = "192.0.2.7"


@dataclass
class Wire:
    """One request, and what was answered."""

    body: bytes = b""
    query: str = ""
    name: str = ""
    sent: list[Any] = field(default_factory=list)

    def exchange(self) -> Exchange:
        scope = {
            "method": "POST",
            "path": "/",
            "query_string": self.query.encode(),
            "headers": [(b"content-type", b"application/json")],
            "path_params": {"name": self.name},
        }
        return Exchange(scope, self.receive, self.send)

    async def receive(self) -> dict[str, Any]:
        return {"type": "http.request", "body": self.body}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def said(self) -> Any:
        return json.loads(self.sent[1]["body"])


@dataclass
class Attempts:
    """Blocks an address for 30 s after its third wrong credential."""

    wrong: dict[str, int] = field(default_factory=dict)

    def blocked_s(self, address: str, what: str = "") -> float:
        return 30.0 if self.wrong.get(what + address, 0) >= 3 else 0.0

    async def failed(self, address: str, what: str = "") -> float:
        self.wrong[what + address] = self.wrong.get(what + address, 0) + 1
        return self.blocked_s(address, what)

    def succeeded(self, address: str, what: str = "") -> None:
        self.wrong.pop(what + address, None)


@dataclass
class SmallGate:
    """What the handlers need, without a wire: real users and visitors, and what was noted."""

    users: Users
    visitors: Visitors
    attempts: Attempts = field(default_factory=Attempts)
    noted_down: list[dict[str, Any]] = field(default_factory=list)
    revocations: "Revoked" = field(default_factory=lambda: Revoked())  # noqa: PLW0108 - it is made below
    shown: Credential | None = None
    tenants: Tenants | None = None

    @property
    def identity(self) -> "SmallGate":
        return self

    def address(self, _exchange: Exchange) -> str:
        return HERE

    async def noted(self, _exchange: Exchange, caller: Caller | None, **what: Any) -> None:
        actor = caller.key_id if caller else ""
        entry = {"actor": actor, "result": "ok"} | {k: v for k, v in what.items() if v}
        self.noted_down.append({k: v for k, v in entry.items() if k != "tenant"})


@dataclass
class Revoked:
    """The tokens that were ended."""

    tokens: list[tuple[str, str]] = field(default_factory=list)

    async def revoke(self, tenant: str, token_id: str, *, ttl_s: int) -> None:
        assert ttl_s > 0
        self.tokens.append((tenant, token_id))


SESSION = Credential(
    How.BEARER, "acme", "user-1", "user-1", kind=Kind.USER, user="ada", token_id="j1"
)


@pytest.fixture
async def gate(store: Store) -> AsyncIterator[SmallGate]:
    await store.run("tenant_put", [keys.tenant_record("acme")], ["", '{"id": "acme"}', ""])
    passwords = Passwords(threads=1, max_waiting=16, hasher=QUICK)
    visitors = Visitors(Visitor(), secret=None, sessions=Tokens())
    yield SmallGate(users_on(store, passwords), visitors, tenants=Tenants(store, Known(())))
    await visitors.close()
    passwords.close()


async def post(
    handler: Callable[..., Any], gate: SmallGate, *who: Caller, body: Any = None, **wire: str
) -> Wire:
    """Return what ``handler`` answers."""
    made = Wire(json.dumps(body).encode(), **wire)
    exchange = made.exchange()
    exchange.credential = gate.shown
    await handler(gate, exchange, *who)
    return made


async def refusal(handler: Callable[..., Any], *args: Any, **kwargs: Any) -> GateError:
    """Return how ``handler`` refuses."""
    with pytest.raises(GateError) as refused:
        await post(handler, *args, **kwargs)
    return refused.value


def credentials(name: str = "ada", password: str = PASSWORD) -> dict[str, str]:
    return {"username": name, "password": password}


async def test_a_login_on_the_wire(gate: SmallGate) -> None:
    """A token, its type and its end; never to be kept; the log gets the id, the audit too."""
    made = await gate.users.create(asked("ada@example.org"), by=ACME)
    gate.attempts.wrong[HERE] = 2
    wire = Wire(json.dumps(credentials("Ada@Example.org")).encode())
    exchange = wire.exchange()
    await accounts.login(gate, exchange)
    assert (wire.status, wire.headers[b"cache-control"]) == (200, b"no-store")
    assert wire.said.keys() == {"token", "token_type", "expires_at"}
    assert wire.said["token_type"] == "Bearer"
    assert wire.said["expires_at"].endswith("Z")
    assert exchange.notes == {"tenant": "acme", "key_id": made.key_id}
    assert gate.noted_down == [
        {"actor": made.key_id, "action": "login", "result": "ok", "target": made.key_id}
    ]
    assert gate.attempts.wrong == {}


async def test_a_login_that_fails(gate: SmallGate) -> None:
    """401 alike for all, until there were too many: then 429, before any password is looked at."""
    made = await gate.users.create(asked("ada"), by=ACME)
    told = []
    for name, password in [("nobody@example.org", PASSWORD), ("ada", "wrong horse")]:
        err = await refusal(accounts.login, gate, body=credentials(name, password))
        assert type(err) is InvalidLogin
        told.append(str(err))
    assert len(set(told)) == 1
    err = await refusal(accounts.login, gate, body=credentials("ada", "wrong again"))
    assert (type(err), err.retry_after_s) == (TooManyAttempts, 30.0)
    err = await refusal(accounts.login, gate, body=credentials())
    assert (type(err), err.retry_after_s) == (TooManyAttempts, 30.0)
    assert [entry.get("target", "") for entry in gate.noted_down] == ["", made.key_id, made.key_id]
    assert {entry["result"] for entry in gate.noted_down} == {"invalid_login"}
    assert "example.org" not in str(gate.noted_down)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "username"),
        ({"username": "ada"}, "password"),
        ({"username": "ada", "password": ""}, "password"),
        ({"username": "ada", "password": 12345678}, "password"),
        ({"username": ["ada"], "password": PASSWORD}, "username"),
        ({**credentials(), "role": "admin"}, "role"),
        ({**credentials(), "password": "\ud800" * 8}, "body"),
    ],
)
async def test_a_login_that_is_none(gate: SmallGate, body: Any, param: str) -> None:
    """What is no login is 400, names its field, and counts as no wrong credential."""
    err = await refusal(accounts.login, gate, body=body)
    assert (type(err), err.param) == (InvalidRequest, param)
    assert PASSWORD not in str(err)
    assert gate.attempts.wrong == {}


async def test_a_login_is_small(gate: SmallGate) -> None:
    """More than 8 KB is no login; the longest password that can be set is."""
    long = "\U0001f511" * 597
    await gate.users.create(asked("a" * 128, password=long), by=ACME)
    assert (await post(accounts.login, gate, body=credentials("a" * 128, long))).status == 200
    err = await refusal(accounts.login, gate, body=credentials("ada", "x" * 8_192))
    assert type(err) is BodyTooLarge


async def test_refusals_are_not_to_be_kept_either(gate: SmallGate) -> None:
    """Every reply of a login says so, also one that the door writes."""
    wire = Wire(json.dumps(credentials()).encode())
    exchange = wire.exchange()
    with pytest.raises(InvalidLogin):
        await accounts.login(gate, exchange)
    assert exchange.headers_out["cache-control"] == "no-store"


async def test_users_on_the_wire(gate: SmallGate) -> None:
    """Create, list, show, change and remove, each with its status, each in the audit."""
    body = {"name": "Ada@example.org", "password": PASSWORD, "role": "operator", "class": "batch"}
    wire = await post(accounts.create_user, gate, ACME, body=body)
    assert (wire.status, wire.headers[b"cache-control"]) == (201, b"no-store")
    ada = wire.said
    assert (ada["name"], ada["role"], ada["class"]) == ("ada@example.org", "operator", "batch")
    assert "password" not in ada
    shown = await post(accounts.get_user, gate, ACME, name="ada@example.org")
    assert (shown.status, shown.said) == (200, ada)
    listed = await post(accounts.list_users, gate, ACME)
    assert listed.said == {"object": "list", "data": [ada], "has_more": False, "after": None}
    body = {"role": "viewer", "class": None, "password": NEW_PASSWORD, "metadata": {"a": 1}}
    changed = await post(accounts.update_user, gate, ACME, body=body, name="ada@example.org")
    assert changed.status == 200
    assert (changed.said["role"], changed.said["class"]) == ("viewer", None)
    gone = await post(accounts.remove_user, gate, ACME, name="ada@example.org")
    assert (gone.status, gone.sent[1]["body"]) == (204, b"")
    assert type(await refusal(accounts.get_user, gate, ACME, name="ada@example.org")) is NoSuchUser
    create, update, remove = gate.noted_down
    target = f"user-{ada['id']}"
    assert {entry["target"] for entry in gate.noted_down} == {target}
    assert {entry["actor"] for entry in gate.noted_down} == {ACME.key_id}
    assert create["after"]["role"] == "operator"
    assert update["before"] == {"role": "operator", "class": "batch"}
    assert update["after"] == {"role": "viewer", "class": None, "password": "changed"}
    assert remove["before"]["role"] == "viewer"
    assert not [secret for secret in (PASSWORD, NEW_PASSWORD, "example.org")
                if secret in str(gate.noted_down)]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": "a b", "password": PASSWORD}, "name"),
        ({"name": "ada"}, "password"),
        ({"name": "ada", "password": "short"}, "password"),
        ({"name": "ada", "password": PASSWORD, "limits": {"requests_per_minute": "x"}},
         "limits.requests_per_minute"),
        ({"name": "ada", "password": PASSWORD, "class": "nosuch"}, "class"),
        ({"name": "ada", "password": PASSWORD, "class_": "batch"}, "class_"),
        ({"name": "ada", "password": PASSWORD, "id": "mine"}, "id"),
    ],
)  # fmt: skip
async def test_a_wrong_field_is_named(gate: SmallGate, body: Any, param: str) -> None:
    """A mistake names its field as the client wrote it, and never shows what stood in it."""
    err = await refusal(accounts.create_user, gate, ACME, body=body)
    assert (type(err), err.param) == (InvalidRequest, param)
    assert "short" not in str(err)
    assert gate.noted_down == []


async def test_pages_on_the_wire(gate: SmallGate) -> None:
    """A cursor leads through the pages; another tenant's are for operators."""
    for name in ("ada", "bob", "eve"):
        await gate.users.create(asked(name), by=ACME)
    first = (await post(accounts.list_users, gate, ACME, query="limit=2")).said
    assert first["has_more"]
    query = f"limit=2&after={first['after']}&tenant=acme"
    second = (await post(accounts.list_users, gate, OPERATOR, query=query)).said
    assert [user["name"] for user in first["data"] + second["data"]] == ["ada", "bob", "eve"]
    assert type(await refusal(accounts.list_users, gate, OTHER, query="tenant=acme")) is Forbidden
    assert type(await refusal(accounts.list_users, gate, ACME, query="limit=0")) is InvalidRequest


async def test_ones_own_password_on_the_wire(gate: SmallGate) -> None:
    """A user who has logged in, and knows the old password; guessing it counts as at a login."""
    ada = (await gate.users.create(asked("ada", role="viewer"), by=ACME)).caller()
    body = {"old_password": PASSWORD, "new_password": NEW_PASSWORD}
    assert type(await refusal(accounts.change_password, gate, ACME, body=body)) is Forbidden
    gate.shown = SESSION
    wrong = {**body, "old_password": "wrong horse"}
    err = await refusal(accounts.change_password, gate, ada, body=wrong)
    assert (type(err), err.param) == (InvalidLogin, "old_password")
    assert gate.attempts.wrong == {auth.PASSWORDS + HERE: 1}
    short = {**body, "new_password": "short"}
    err = await refusal(accounts.change_password, gate, ada, body=short)
    assert (type(err), err.param) == (InvalidRequest, "new_password")
    assert redacted(str(err)) == str(err)  # what is wrong stands after the name of a secret
    wire = await post(accounts.change_password, gate, ada, body=body)
    assert (wire.status, wire.said.keys()) == (200, {"token", "token_type", "expires_at"})
    assert (await post(accounts.login, gate, body=credentials("ada", NEW_PASSWORD))).status == 200
    gate.attempts.wrong[HERE] = 3
    err = await refusal(accounts.change_password, gate, ada, body=body)
    assert type(err) is TooManyAttempts
    results = [(entry["action"], entry["result"]) for entry in gate.noted_down]
    assert results == [
        ("user.password", "invalid_login"),
        ("user.password", "ok"),
        ("login", "ok"),
    ]


async def test_logout_on_the_wire(gate: SmallGate) -> None:
    """A token is revoked; whoever shows a key is told what to do instead."""
    assert type(await refusal(accounts.logout, gate, ACME)) is InvalidRequest
    gate.shown = SESSION
    assert (await post(accounts.logout, gate, ACME)).status == 204
    assert gate.revocations.tokens == [("acme", "j1")]
    assert [entry["action"] for entry in gate.noted_down] == ["logout"]


async def test_visitors_on_the_wire(gate: SmallGate) -> None:
    """Let in or counted, as the service says; without one no route, with a dead one no blame."""
    body = {"captcha_token": "solved"}
    assert type(await refusal(accounts.visitor, gate, body={})) is NoSuchRoute
    url = f"http://127.0.0.1:{free_port()}/"
    gate.visitors = Visitors(Visitor(siteverify_url=url), secret="s", sessions=Tokens())
    assert type(await refusal(accounts.visitor, gate, body=body)) is UpstreamFailed
    assert type(await refusal(accounts.visitor, gate, body={})) is InvalidRequest
    assert gate.attempts.wrong == {}
    await gate.visitors.close()
    for success in (False, True):
        async with service(answers({"success": success})) as (url, heard):
            gate.visitors = Visitors(Visitor(siteverify_url=url), secret="s", sessions=Tokens())
            if success:
                wire = await post(accounts.visitor, gate, body=body)
                assert (wire.status, wire.said["token_type"]) == (200, "Bearer")
                assert gate.attempts.wrong == {}
            else:
                assert type(await refusal(accounts.visitor, gate, body=body)) is InvalidLogin
                assert gate.attempts.wrong == {auth.PASSWORDS + HERE: 1}
            gate.attempts.wrong[HERE] = 3
            assert type(await refusal(accounts.visitor, gate, body=body)) is TooManyAttempts
            gate.attempts.wrong[HERE] = 0
            assert len(heard) == 1
            await gate.visitors.close()
    refused, let_in = gate.noted_down
    assert (refused["result"], let_in["result"]) == ("invalid_login", "ok")
    assert let_in["target"].startswith("visitor-")
