"""Who is calling (CONTRACT §1), from outside: a whole gate with two gateways behind HAProxy."""

import itertools
import secrets
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import jwt
import pytest

from serve_app import auth
from tests.auth.issuing import LocalIssuer
from tests.running import ADMIN_KEY, RunningGate, chat, simulated, until

ISSUER_SECRET = secrets.token_urlsafe(32)
HS_ISSUER, AUDIENCE = "https://hs.example", "gate"
_addresses = (f"198.51.{high}.{low}" for high, low in itertools.product(range(256), range(256)))
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def issuer() -> Iterator[LocalIssuer]:
    """An issuer on this machine."""
    with LocalIssuer("RS256", "ES256", "EdDSA", "PS256") as running:
        yield running


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, issuer: LocalIssuer) -> Iterator[RunningGate]:
    """A gate with two gateways, two issuers, and proxies in front that it trusts."""
    config = simulated()
    args = config["applications"][0]["args"]
    args["gateway"] = {"min_replicas": 2, "max_replicas": 2, "num_cpus": 0.1}
    claims = {"tenant": "org.tenant", "permissions": "scope", "class": "org.class"}
    args["auth"] = {
        "trusted_proxies": ["127.0.0.0/8"],
        "issuers": [
            {
                "issuer": HS_ISSUER,
                "audience": AUDIENCE,
                "algorithms": ["HS256"],
                "secret_env": "TEST_ISSUER_SECRET",
                "claims": claims,
            },
            {
                "issuer": issuer.name,
                "audience": AUDIENCE,
                "algorithms": ["RS256", "ES256", "EdDSA", "PS256"],
                "jwks_url": issuer.url,
            },
        ],
    }
    env = {"SLUICEGATE_ADMIN_KEY": ADMIN_KEY, "TEST_ISSUER_SECRET": ISSUER_SECRET}
    running = RunningGate(tmp_path_factory.mktemp("house"), config, env).start()
    try:
        yield running.ready()
    finally:
        running.stop()


def from_somewhere() -> dict[str, str]:
    """Headers of a client whose address no other test uses."""
    return {"x-forwarded-for": next(_addresses)}


def told(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


def token(**claims: Any) -> str:
    now_s = int(time.time())
    whole = {"iss": HS_ISSUER, "aud": AUDIENCE, "exp": now_s + 600, "iat": now_s, "sub": "s"}
    whole["org"] = {"tenant": "default"}
    return jwt.encode({**whole, **claims}, ISSUER_SECRET, "HS256")


def tenant(house: RunningGate, **more: Any) -> str:
    """Make a tenant and return its id."""
    name = f"t{secrets.token_hex(4)}"
    with house.client() as admin:
        assert admin.post("/v1/tenants", json={"id": name, **more}).status_code == 201
    return name


@pytest.mark.parametrize(
    ("how", "headers"),
    [
        ("bearer", lambda key: {"authorization": f"Bearer {key}"}),
        ("x-api-key", lambda key: {"X-API-Key": key}),
        ("apikey", lambda key: {"apikey": key}),
        (
            "cf-access",
            lambda key: {
                "CF-Access-Client-Id": f"{key.split('-')[2]}.access",
                "CF-Access-Client-Secret": key.rpartition("-")[2],
            },
        ),
        ("authorization", lambda _: {"authorization": token()}),
        ("cf-access-jwt", lambda _: {"Cf-Access-Jwt-Assertion": token()}),
    ],
)
def test_every_place_of_a_credential(
    house: RunningGate, how: str, headers: Callable[[str], dict[str, str]]
) -> None:
    """Each is served, and the access log says which one it was, never its value."""
    key, request_id = house.new_key(), f"how-{secrets.token_hex(6)}"
    with house.client(None) as client:
        said = client.get("/v1/auth/whoami", headers={**headers(key), "x-request-id": request_id})
    assert (said.status_code, said.json()["credential"]) == (200, how)

    def line() -> dict[str, Any]:
        found = [one for one in house.access_lines() if one["request_id"] == request_id]
        return found[0] if found else {}

    assert until(line, 20, "the log line")["credential"] == how


@pytest.mark.parametrize(
    "place", ["authorization", "x-api-key", "apikey", "cf-access-jwt-assertion"]
)
@pytest.mark.parametrize(
    "value", [b"", b"x" * 65_536, b"\x01\x02", b"\xff\xfe", "ключ".encode()], ids=len
)
def test_a_hostile_credential_is_refused_clearly(
    any_gate: RunningGate, place: str, value: bytes
) -> None:
    """Empty, 64 KB, control and non-ASCII bytes: a clear 4xx or a closed door, never a 5xx."""
    whole = b"Bearer " + value if place == "authorization" else value
    request = b"GET /v1/models HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n"
    with socket.create_connection(("127.0.0.1", any_gate.port), timeout=20) as wire:
        with suppress(BrokenPipeError):
            wire.sendall(request + place.encode() + b": " + whole + b"\r\n\r\n")
        said = b""
        with suppress(ConnectionResetError):
            while piece := wire.recv(65_536):
                said += piece
    assert said == b"" or said.split()[1] in (b"400", b"401", b"413", b"429", b"431"), said[:200]
    assert b"Traceback" not in said


def test_each_request_has_its_line(house: RunningGate) -> None:
    """Two gateways, two hundred requests that look alike, two hundred lines in the log."""
    sent = {f"line-{secrets.token_hex(6)}" for _ in range(200)}
    with house.client(house.new_key()) as client:
        for request_id in sent:
            client.get("/v1/models", headers={"x-request-id": request_id})

    def logged() -> bool:
        lines = [line["request_id"] for line in house.access_lines()]
        return sent <= set(lines) and len([one for one in lines if one in sent]) == len(sent)

    until(logged, 30, "a line for each", every_s=1)


def test_two_different_keys_are_400(house: RunningGate) -> None:
    """Which of them is meant, nobody guesses."""
    with house.client(house.new_key()) as client:
        said = client.get("/v1/models", headers={"x-api-key": house.new_key()})
    assert told(said) == (400, "invalid_request")


Change = Callable[[httpx.Client, str], httpx.Response]
CHANGES: dict[str, tuple[Change, set[int]]] = {
    "revoked": (lambda admin, path: admin.delete(path), {401, 429}),
    "rotated": (lambda admin, path: admin.post(f"{path}/rotate"), {401, 429}),
    "narrowed": (
        lambda admin, path: admin.patch(path, json={"permissions": ["run_inference"]}),
        {403},
    ),
    "kept away": (
        lambda admin, path: admin.patch(path, json={"allowed_addresses": ["192.0.2.0/24"]}),
        {403},
    ),
}


@dataclass
class Load:
    """Callers with one key, who note every answer and when its request began."""

    house: RunningGate
    key: str
    stop: threading.Event = field(default_factory=threading.Event)
    answers: list[tuple[float, int]] = field(default_factory=list)

    def call(self) -> None:
        with self.house.client(self.key) as client:
            while not self.stop.is_set() and len(self.answers) < 20_000:
                began_s = time.monotonic()
                self.answers.append((began_s, client.get("/v1/models").status_code))

    def seen(self, more: int) -> None:
        """Return after ``more`` further answers."""
        wanted = len(self.answers) + more
        until(lambda: len(self.answers) >= wanted, 30, "the load", every_s=0.01)


@pytest.mark.parametrize("change", CHANGES)
def test_no_stale_answer_after_a_change(house: RunningGate, change: str) -> None:
    """With two gateways under load, a change binds every request that begins after it."""
    made, wanted = CHANGES[change]
    stale, served = [], 0
    for _ in range(3):
        load = Load(house, house.new_key())
        callers = [threading.Thread(target=load.call) for _ in range(4)]
        for caller in callers:
            caller.start()
        load.seen(40)
        with house.client() as admin:
            path = f"/v1/auth/api-keys/{load.key.split('-')[2]}"
            assert made(admin, path).status_code in (200, 204)
        changed_s = time.monotonic()
        load.seen(200)
        load.stop.set()
        for caller in callers:
            caller.join()
        served += sum(status == 200 for began_s, status in load.answers if began_s < changed_s)
        stale += [
            status
            for began_s, status in load.answers
            if began_s > changed_s and status not in wanted
        ]
    assert served >= 100
    assert stale == []


def test_a_key_is_shown_changed_rotated_and_used(house: RunningGate) -> None:
    """The whole life of a key over HTTP."""
    with house.client() as admin:
        asked = {"name": "mine", "class": "batch", "weight": 2, "metadata": {"team": "a"}}
        made = admin.post("/v1/auth/api-keys", json=asked).json()
        path = f"/v1/auth/api-keys/{made['id']}"
        assert admin.get(path).json() == {k: v for k, v in made.items() if k != "key"}
        with house.client(made["key"]) as caller:
            said = caller.post("/v1/chat/completions", json=chat())
            assert said.headers["x-served-class"] == "batch"
        assert admin.get(path).json()["last_used_at"] is not None
        changed = admin.patch(path, json={"class": None, "limits": {"requests_per_minute": 2}})
        assert (changed.status_code, changed.json()["class"]) == (200, None)
        renewed = admin.post(f"{path}/rotate", json={"overlap_s": 60}).json()
        for key in (made["key"], renewed["key"]):
            with house.client(key) as caller:
                said = caller.get("/v1/auth/whoami").json()
                (left,) = [one for one in said["limits"] if one["limit"] == "requests_per_minute"]
                assert (left["scope"], left["allowed"]) == ("key", 2)
                assert said["class"] == "standard"
        assert admin.post(f"{path}/rotate").status_code == 200
        with house.client(made["key"]) as caller:
            assert caller.get("/v1/models", headers=from_somewhere()).status_code == 401


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        ({"models": ["another"]}, 403, "model_not_allowed"),
        ({"endpoints": ["/v1/completions"]}, 403, "permission_denied"),
        ({"permissions": ["read_models"]}, 403, "permission_denied"),
        ({"allowed_addresses": ["192.0.2.0/24"]}, 403, "address_not_allowed"),
        ({"expires_in_days": 0.000001}, 401, "invalid_api_key"),
        ({"limits": {"requests_per_minute": 0}}, 429, "insufficient_quota"),
    ],
)
def test_what_a_key_may_not(house: RunningGate, given: dict[str, Any], status: int, code) -> None:
    """Models, endpoints, permissions, addresses, end and limit bind; a refusal costs nothing."""
    key = house.new_key(**given)
    time.sleep(0.2)  # the one that expires has expired
    with house.client(key) as client:
        assert told(client.post("/v1/chat/completions", json=chat())) == (status, code)


def test_an_allowed_address_is_served(house: RunningGate) -> None:
    """The address is the first untrusted hop from the right."""
    key = house.new_key(allowed_addresses=["192.0.2.0/24"])
    with house.client(key) as client:
        for hops, status in (("192.0.2.9", 200), ("192.0.2.9, 198.18.0.1", 403), ("x", 403)):
            said = client.get("/v1/models", headers={"x-forwarded-for": hops})
            assert said.status_code == status, hops


def test_a_tenants_admin_does_all_inside_and_nothing_outside(house: RunningGate) -> None:
    """Keys, users, tenant and audit of another tenant cannot be reached by any route."""
    mine, other = tenant(house), tenant(house)
    admin_key = house.new_key(tenant=mine, permissions=sorted(auth.PERMISSIONS))
    theirs = house.new_key(tenant=other).split("-")[2]
    with house.client() as root:
        user = {"name": f"u.{other}", "password": PASSWORD, "tenant": other}
        assert root.post("/v1/auth/users", json=user).status_code == 201
    with house.client(admin_key) as client:
        made = client.post("/v1/auth/api-keys", json={"name": "inside"})
        assert (made.status_code, made.json()["tenant"]) == (201, mine)
        for method, path, body in (
            ("GET", f"/v1/auth/api-keys/{theirs}", None),
            ("GET", f"/v1/auth/api-keys/{theirs}?tenant={other}", None),
            ("GET", f"/v1/auth/api-keys?tenant={other}", None),
            ("PATCH", f"/v1/auth/api-keys/{theirs}?tenant={other}", {"name": "x"}),
            ("DELETE", f"/v1/auth/api-keys/{theirs}?tenant={other}", None),
            ("POST", f"/v1/auth/api-keys/{theirs}/rotate?tenant={other}", {}),
            ("POST", "/v1/auth/api-keys", {"name": "x", "tenant": other}),
            ("POST", "/v1/auth/api-keys", {"name": "x", "all_tenants": True}),
            ("GET", f"/v1/auth/users/u.{other}", None),
            ("PATCH", f"/v1/auth/users/u.{other}", {"role": "viewer"}),
            ("DELETE", f"/v1/auth/users/u.{other}", None),
            ("GET", f"/v1/auth/users?tenant={other}", None),
            ("POST", "/v1/auth/users", {"name": "x.y", "password": PASSWORD, "tenant": other}),
            ("GET", f"/v1/tenants/{other}", None),
            ("PATCH", f"/v1/tenants/{other}", {"weight": 9}),
            ("PATCH", f"/v1/tenants/{mine}", {"weight": 9}),
            ("DELETE", f"/v1/tenants/{other}", None),
            ("POST", "/v1/tenants", {"id": "new"}),
            ("GET", f"/v1/audit?tenant={other}", None),
            ("POST", "/v1/auth/revocations", {"issuer": "i", "jti": "j", "tenant": other}),
        ):
            said = client.request(method, path, json=body)
            assert said.status_code in (400, 403, 404), (method, path, said.text)
        assert {entry["tenant"] for entry in client.get("/v1/audit").json()["data"]} == {mine}
    with house.client() as root:
        assert root.get(f"/v1/auth/api-keys/{theirs}?tenant={other}").status_code == 200


def test_a_tenants_limit_binds_all_its_keys(house: RunningGate) -> None:
    """Two a minute for the tenant, whoever asks; the refusal names the scope."""
    mine = tenant(house, limits={"requests_per_minute": 2}, max_class="batch")
    said = []
    for _ in range(3):
        with house.client(house.new_key(tenant=mine)) as client:
            said.append(client.post("/v1/chat/completions", json=chat()))
    assert [one.status_code for one in said] == [200, 200, 429]
    assert said[0].headers["x-served-class"] == "batch"
    assert said[2].headers["x-refused-by"] == "tenant:requests_per_minute"


def test_a_token_of_an_issuer_is_served_and_revoked(house: RunningGate) -> None:
    """Claims say tenant, permissions and class; logout and an admin's revocation end it at once."""
    mine = tenant(house)
    claims = {"org": {"tenant": mine, "class": "batch"}, "scope": "openid run_inference"}
    one, two = token(**claims, jti="j1"), token(**claims, jti="j2")
    with house.client(one) as client:
        said = client.get("/v1/auth/whoami").json()
        assert (said["tenant"], said["class"]) == (mine, "batch")
        assert said["permissions"] == ["run_inference"]
        assert client.post("/v1/chat/completions", json=chat()).status_code == 200
        assert client.post("/v1/auth/logout").status_code == 204
        assert told(client.get("/v1/auth/whoami")) == (401, "invalid_token")
    with house.client(two) as client, house.client() as admin:
        assert client.get("/v1/auth/whoami").status_code == 200
        body = {"issuer": HS_ISSUER, "jti": "j2", "tenant": mine}
        assert admin.post("/v1/auth/revocations", json=body).status_code == 204
        assert told(client.get("/v1/auth/whoami")) == (401, "invalid_token")
    with house.client(token(org={"tenant": "nobody"})) as client:
        assert told(client.get("/v1/auth/whoami")) == (400, "unknown_tenant")
    with house.client(token(exp=int(time.time()) - 61)) as client:
        assert told(client.get("/v1/auth/whoami")) == (401, "token_expired")


def test_tokens_of_a_key_set(house: RunningGate, issuer: LocalIssuer) -> None:
    """Each algorithm of a JWKS issuer is served; a key that it rotates to is found."""
    for algorithm in ("RS256", "ES256", "EdDSA", "PS256"):
        now_s = int(time.time())
        times = {"iat": now_s, "nbf": now_s, "exp": now_s + 600}
        with house.client(issuer.token(algorithm, aud=AUDIENCE, **times)) as client:
            assert client.get("/v1/auth/whoami").status_code == 200, algorithm


def login(house: RunningGate, name: str, password: str = PASSWORD) -> httpx.Response:
    with house.client(None) as client:
        body = {"username": name, "password": password}
        return client.post("/v1/auth/login", json=body, headers=from_somewhere())


def test_a_user_logs_in_works_and_logs_out(house: RunningGate) -> None:
    """Role, password and logout are in force for the next request, on both gateways."""
    name = f"ada-{secrets.token_hex(3)}@example.org"
    with house.client() as admin:
        made = admin.post(
            "/v1/auth/users", json={"name": name, "password": PASSWORD, "role": "user"}
        )
        assert made.status_code == 201, made.text
        assert told(login(house, name, "wrong password")) == (401, "invalid_login")
        assert told(login(house, "nobody", "wrong password")) == (401, "invalid_login")
        one, two = (login(house, name).json()["token"] for _ in range(2))
        with house.client(one) as client:
            assert client.post("/v1/chat/completions", json=chat()).status_code == 200
            assert told(client.get("/v1/auth/users")) == (403, "permission_denied")
            assert admin.patch(f"/v1/auth/users/{name}", json={"role": "viewer"}).is_success
            assert told(client.post("/v1/chat/completions", json=chat()))[0] == 403
            assert client.post("/v1/auth/logout").status_code == 204
            assert told(client.get("/v1/auth/whoami")) == (401, "invalid_token")
        with house.client(two) as client:
            body = {"old_password": PASSWORD, "new_password": "another good one"}
            changed = client.post("/v1/auth/password", json=body)
            assert changed.status_code == 200, changed.text
            assert told(client.get("/v1/auth/whoami")) == (401, "invalid_token")
        with house.client(login(house, name, "another good one").json()["token"]) as client:
            assert admin.patch(f"/v1/auth/users/{name}", json={"disabled": True}).is_success
            assert told(client.get("/v1/auth/whoami")) == (401, "invalid_token")
        assert told(login(house, name, "another good one")) == (401, "invalid_login")
        assert admin.delete(f"/v1/auth/users/{name}").status_code == 204
    logs = "".join(path.read_text(errors="replace") for path in (house.data / "logs").iterdir())
    assert name not in logs


def test_wrong_credentials_block_an_address_and_never_a_valid_key(house: RunningGate) -> None:
    """Five are 401, then 429 with a true wait, on both gateways; a valid key clears it."""
    for wrong in (auth.make("default").text, "sk-nonsense"):
        where = from_somewhere()
        with house.client(wrong) as stranger, house.client(house.new_key()) as caller:
            said = [stranger.get("/v1/models", headers=where) for _ in range(9)]
            codes = [one.json()["error"]["code"] for one in said]
            if wrong != "sk-nonsense":
                assert codes == ["invalid_api_key"] * 5 + ["too_many_failed_attempts"] * 4
            else:  # counted in memory; the other gateway learns of it within a second
                assert set(codes[:5]) == {"invalid_api_key"}

            def blocked(where: dict[str, str] = where, stranger: httpx.Client = stranger) -> bool:
                replies = [stranger.get("/v1/models", headers=where) for _ in range(4)]
                return all(one.status_code == 429 for one in replies)

            until(blocked, 10, "the block on both gateways")
            last = stranger.get("/v1/models", headers=where)
            assert 0 < int(last.headers["retry-after"]) <= 30
            assert last.headers["x-refused-by"] == "too_many_failed_attempts"
            assert stranger.get("/v1/models", headers=from_somewhere()).status_code == 401
            assert caller.get("/v1/models", headers=where).status_code == 200
            until(
                lambda where=where, stranger=stranger: (
                    stranger.get("/v1/models", headers=where).status_code == 401
                ),
                10,
                "the end of the block",
            )


def test_a_blocked_address_cannot_log_in(house: RunningGate) -> None:
    """Wrong passwords count like wrong keys, and a blocked address is refused before hashing."""
    where = from_somewhere()
    with house.client(None) as client:
        body = {"username": "nobody", "password": "wrong password"}
        said = [client.post("/v1/auth/login", json=body, headers=where) for _ in range(7)]
    assert [told(one) for one in said[:5]] == [(401, "invalid_login")] * 5
    assert told(said[6]) == (429, "too_many_failed_attempts")


def test_a_session_does_not_help_to_guess_its_password(house: RunningGate) -> None:
    """Wrong old passwords block like wrong logins, though the session that comes along is good."""
    name, where = f"mallory-{secrets.token_hex(3)}", from_somewhere()
    with house.client() as admin:
        user = {"name": name, "password": PASSWORD}
        assert admin.post("/v1/auth/users", json=user).status_code == 201
    body = {"old_password": "wrong password", "new_password": "another good one"}
    with house.client(login(house, name).json()["token"]) as client:
        said = [client.post("/v1/auth/password", json=body, headers=where) for _ in range(7)]
    assert [told(one) for one in said[:5]] == [(401, "invalid_login")] * 5
    assert told(said[6]) == (429, "too_many_failed_attempts")


def test_a_weak_manager_gains_nothing(house: RunningGate) -> None:
    """Neither by a new key, a change, a rotation nor a revocation; the attempts are on record."""
    mine = tenant(house)
    strong = house.new_key(
        tenant=mine, permissions=sorted(auth.PERMISSIONS), allowed_addresses=["10.0.0.1/32"]
    ).split("-")[2]
    weak = house.new_key(tenant=mine, permissions=["manage_keys"], max_class="batch")
    own = weak.split("-")[2]
    with house.client(weak) as client:
        made = client.post("/v1/auth/api-keys", json={"name": "x", "permissions": []}).json()
        assert made["max_class"] == "batch"
        cleared = client.patch(f"/v1/auth/api-keys/{own}", json={"max_class": None}).json()
        assert cleared["max_class"] == "batch"
        for method, path, body in (
            ("PATCH", f"/v1/auth/api-keys/{own}", {"class": "interactive"}),
            ("PATCH", f"/v1/auth/api-keys/{strong}", {"allowed_addresses": None}),
            ("PATCH", f"/v1/auth/api-keys/{strong}", {"expires_in_days": 100}),
            ("POST", f"/v1/auth/api-keys/{strong}/rotate", {}),
            ("DELETE", f"/v1/auth/api-keys/{strong}", None),
        ):
            assert client.request(method, path, json=body).status_code == 403, (method, path)
    with house.client() as admin:
        entries = admin.get("/v1/audit", params={"tenant": mine, "result": "permission_denied"})
    assert len(entries.json()["data"]) == 5


def test_missing_credentials_and_preflights_do_not_count(house: RunningGate) -> None:
    """Twenty requests without a credential leave an address as it was."""
    where = from_somewhere()
    with house.client(None) as client:
        for _ in range(20):
            assert told(client.get("/v1/models", headers=where)) == (401, "missing_credentials")
            empty = {**where, "x-api-key": ""}
            assert told(client.get("/v1/models", headers=empty)) == (401, "missing_credentials")
        ask = {"origin": "https://a.example", "access-control-request-method": "POST"}
        assert client.options("/v1/models", headers={**where, **ask}).status_code == 400
        wrong = {**where, "x-api-key": auth.make("default").text}
        assert client.get("/v1/models", headers=wrong).status_code == 401


def test_unknown_id_and_wrong_secret_look_alike(house: RunningGate) -> None:
    """The same words, and the same time: medians of 300 interleaved requests differ by noise."""
    key = house.new_key()
    tenant_id, key_id = key.split("-")[1:3]
    known_id = auth.make(tenant_id, key_id).text
    took: dict[str, list[float]] = {"known": [], "unknown": []}
    bodies = set()
    with house.client(None) as client:
        for _ in range(300):
            for kind, text in (("known", known_id), ("unknown", auth.make(tenant_id).text)):
                headers = {"x-api-key": text, **from_somewhere()}
                began_s = time.perf_counter()
                said = client.get("/v1/models", headers=headers)
                took[kind].append(time.perf_counter() - began_s)
                bodies.add((said.status_code, said.text))
    assert len(bodies) == 1
    known_s, unknown_s = (statistics.median(times) for times in took.values())
    spread_s = statistics.quantiles(took["known"], n=4)[2] - statistics.quantiles(took["known"])[0]
    assert abs(known_s - unknown_s) < max(spread_s / 2, 0.1 * known_s)


def test_the_audit_says_who_did_what(house: RunningGate) -> None:
    """Changes of keys, tenants and users, logins good and bad, blocks, with before and after."""
    mine = tenant(house)
    name = f"eve-{secrets.token_hex(3)}"
    with house.client() as admin:
        key_id = house.new_key(tenant=mine).split("-")[2]
        path = f"/v1/auth/api-keys/{key_id}?tenant={mine}"
        admin.patch(path, json={"weight": 3})
        admin.post(path.replace("?", "/rotate?"))
        admin.delete(path)
        body = {"name": name, "password": PASSWORD, "tenant": mine}
        assert admin.post("/v1/auth/users", json=body).status_code == 201
        login(house, name)
        login(house, name, "wrong password")
        entries = admin.get("/v1/audit", params={"tenant": mine, "limit": 100}).json()["data"]
        by_action = {entry["action"]: entry for entry in entries}
        assert {"tenant.create", "key.create", "key.update", "key.rotate", "key.revoke"} <= set(
            by_action
        )
        change = by_action["key.update"]
        assert (change["before"]["weight"], change["after"]["weight"]) == (None, 3)
        assert change["actor"].startswith("static-admin-")
        assert {"user.create", "login"} <= set(by_action)
        assert PASSWORD not in str(entries)
        only = admin.get("/v1/audit", params={"tenant": mine, "action": "key.revoke"}).json()
        assert [entry["target"] for entry in only["data"]] == [key_id]
        blocks = admin.get("/v1/audit", params={"action": "address.block"}).json()["data"]
        assert all(entry["after"]["block_s"] >= 30 for entry in blocks)
        lines = admin.get("/v1/audit", params={"tenant": mine, "format": "jsonl"})
        assert len(lines.text.splitlines()) == len(entries)
