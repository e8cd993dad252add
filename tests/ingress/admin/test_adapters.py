"""LoRA adapters at run time on two simulated engines: on all replicas or on none, and who may."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from serve_app.engine import adapters as keeping
from serve_app.ingress.admin import adapters as loading
from serve_app.queueing import Adapters, Loaded
from serve_app.store import Address, Store, keys, registry
from serve_app.telemetry import Entry
from tests.engine.test_simulated_server import FAST, running
from tests.ingress.admin import test_ledger
from tests.ingress.admin.test_ledger import ADMIN, House, house
from tests.stories.test_document import mistakes

__all__ = ["house"]
PATH, POET = "/v1/adapters", {"model": "m", "name": "poet", "source": "org/poet"}
OTHER = {"name": "sim", "engine": "simulated", "source": "none"}


@pytest.fixture(autouse=True)
def _models(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model with an adapter of its own, one that takes some, one that takes none."""
    adapted = {"name": "m", "aliases": ["m2"], "adapters": [{"name": "first", "source": "org/1"}]}
    enabled = {"name": "n", "engine_args": {"enable_lora": True}}
    models = [OTHER | adapted, OTHER | enabled, OTHER]
    monkeypatch.setitem(test_ledger.ARGS, "models", models)


@dataclass
class Replicas:
    """A gate, two replicas of the model ``m``, and what stands in the audit."""

    house: House
    store: Store
    at: list[Address] = field(default_factory=list)
    audit: list[Entry] = field(default_factory=list)

    async def do(
        self, method: str, path: str = PATH, /, shown: str = ADMIN, **json: Any
    ) -> httpx.Response:
        async with self.house.client(shown) as client:
            told = await client.request(method, path, json=json or None)
        assert path != PATH or not mistakes(path, told), told.text
        return told

    def tell(self, number: int, step: str, **json: str) -> None:
        """Have one engine load or unload, past the gate."""
        told = httpx.post(f"{self.at[number].url}/v1/{step}_lora_adapter", json=json)
        assert told.status_code == 200, told.text

    def has(self) -> list[set[str]]:
        """Return which adapters each engine has."""
        cards = [httpx.get(f"{one.url}/v1/models").json()["data"] for one in self.at]
        return [{card["id"] for card in each if card["parent"]} for each in cards]

    async def beat(self) -> None:
        """Show that the replicas live."""
        for number, one in enumerate(self.at):
            await registry.beat(self.store, "m", f"r{number}", 1, one)


@pytest.fixture
async def replicas(house: House, store: Store) -> AsyncIterator[Replicas]:
    made = Replicas(house, store)

    async def write(entry: Entry) -> None:
        made.audit.append(entry)

    house.gate.audit = SimpleNamespace(write=write)  # type: ignore[assignment]
    with ExitStack() as stack:
        for _ in range(2):
            options = ("--enable-lora", "--lora-modules", "first=org/1")
            url, _process = stack.enter_context(running(FAST, *options))
            made.at.append(Address("127.0.0.1", int(url.rpartition(":")[2]), "k"))
        await made.beat()
        yield made


async def test_it_is_on_every_replica_and_offered(replicas: Replicas) -> None:
    """Loaded on both, listed, callable under its own name, and in the audit; then gone from all."""
    told = await replicas.do("POST", **POET)
    assert (told.status_code, told.json()) == (201, {**POET, "loaded_at": "run", "replicas": 2})
    assert replicas.has() == [{"first", "poet"}] * 2
    card = (await replicas.do("GET", "/v1/models/poet")).json()
    assert (card["root"], card["parent"]) == ("poet", "m")
    first = {"name": "first", "model": "m", "source": "org/1", "loaded_at": "start"}
    listed = (await replicas.do("GET")).json()["data"]
    assert listed == [first, {**POET, "loaded_at": "run"}]
    gone = await replicas.do("DELETE", f"{PATH}/poet")
    assert gone.status_code == 204
    assert replicas.has() == [{"first"}] * 2
    assert (await replicas.do("GET", "/v1/models/poet")).status_code == 404
    assert (await replicas.do("GET")).json()["data"] == [first]
    assert [(one.action, one.target) for one in replicas.audit] == [
        ("adapter.load", "poet"),
        ("adapter.unload", "poet"),
    ]
    assert replicas.audit[0].after == replicas.audit[1].before == POET


async def test_refused_by_one_it_is_on_none(replicas: Replicas) -> None:
    """The engine's words are told, nothing stays written down, and the name is free."""
    told = await replicas.do("POST", **{**POET, "source": "/no/such/folder"})
    error = told.json()["error"]
    assert (told.status_code, error["code"], error["param"]) == (400, "invalid_request", "source")
    assert "No adapter found for /no/such/folder" in error["message"]
    assert replicas.has() == [{"first"}] * 2
    assert not replicas.house.store.exists(keys.adapters("m"))
    assert not replicas.audit
    assert (await replicas.do("POST", **POET)).status_code == 201


async def test_a_replica_that_stays_silent_undoes_it(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was offered all the same, though one was without it: 404 for whoever came there."""
    monkeypatch.setattr(loading, "REACHED_S", 0.3)
    await registry.beat(replicas.store, "m", "silent", 1, Address("127.0.0.1", 9, "k"))
    told = await replicas.do("POST", **POET)
    assert (told.status_code, told.json()["error"]["code"]) == (502, "upstream_failed")
    assert replicas.has() == [{"first"}] * 2
    assert not replicas.house.store.exists(keys.adapters("m"))


async def test_a_replica_that_has_gone_delays_nobody(replicas: Replicas) -> None:
    """It is withdrawn while it is tried."""
    await registry.beat(replicas.store, "m", "dead", 1, Address("127.0.0.1", 9, "k"))
    asking = asyncio.create_task(replicas.do("POST", **POET))
    while replicas.has() != [{"first", "poet"}] * 2:
        await asyncio.sleep(0)  # until the others have it
    await registry.withdraw(replicas.store, "m", "dead")
    told = await asking
    assert (told.status_code, told.json()["replicas"]) == (201, 2)


@pytest.mark.parametrize("there", [True, False])
async def test_a_replica_that_comes_with_the_offer_must_have_it(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """It is told to load, and if it does not, the offer is withdrawn."""
    monkeypatch.setattr(loading, "REACHED_S", 0.3)
    late = replicas.at.pop() if there else Address("127.0.0.1", 9, "k")
    await registry.withdraw(replicas.store, "m", "r1")
    offer = Adapters.offer

    async def coming(adapters: Adapters, model: str, one: Loaded) -> None:
        await offer(adapters, model, one)
        await registry.beat(replicas.store, "m", "late", 1, late)

    monkeypatch.setattr(Adapters, "offer", coming)
    told = await replicas.do("POST", **POET)
    replicas.at = [replicas.at[0], late] if there else replicas.at[:1]
    assert told.status_code == (201 if there else 502)
    assert replicas.has() == ([{"first", "poet"}] * 2 if there else [{"first"}])
    assert bool(replicas.house.store.exists(keys.adapters("m"))) == there
    assert (await replicas.do("GET", "/v1/models/poet")).status_code == (200 if there else 404)


@pytest.mark.parametrize("holders", [[0], [1], []])
async def test_who_comes_to_a_replica_without_it_is_sent_on(
    replicas: Replicas, holders: list[int]
) -> None:
    """An engine's 404 for a name that we offer is not the client's; 502 if no replica has it."""
    await replicas.do("POST", **POET)
    for number in {0, 1} - {*holders}:
        replicas.tell(number, "unload", lora_name="poet")
    await replicas.beat()
    body = {"model": "poet", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    told = await replicas.do("POST", "/v1/chat/completions", **body)
    assert told.status_code == (200 if holders else 502), told.text


async def test_a_replica_makes_up_for_what_it_missed(replicas: Replicas, tmp_path: Path) -> None:
    """Started later, or cut off: before it offers a seat it has what the others have, no more.

    One that cannot be loaded keeps neither it nor the others from serving.
    """
    model = replicas.house.gate.models["m"]
    await replicas.do("POST", **POET)
    lost = tmp_path / "lost"
    lost.mkdir()
    await replicas.do("POST", **{**POET, "name": "lost", "source": str(lost)})
    lost.rmdir()
    options = ("--enable-lora", "--lora-modules", "first=org/1", "old=org/old")
    with running(FAST, *options) as (url, _process):
        replicas.at.append(Address("127.0.0.1", int(url.rpartition(":")[2]), "k"))
        await keeping.Adapters(replicas.store, model, replicas.at[-1]).settle()
        assert replicas.has()[-1] == {"first", "poet"}
    replicas.at.pop()
    replicas.tell(0, "unload", lora_name="poet")
    await keeping.Adapters(replicas.store, model, replicas.at[0]).settle()
    assert replicas.has()[0] == {"first", "poet", "lost"}


async def test_an_adapter_that_hangs_keeps_no_other_out(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The replica loads the rest and says in its log which it lacks."""
    model, say = replicas.house.gate.models["m"], keeping.Adapters._say
    names = [f"a{number}" for number in range(4)]
    for name in names:
        await replicas.house.gate.adapters.put("m", Loaded(name, "org/a"))

    async def hanging(self: Any, engine: Any, step: str, body: dict[str, str]) -> bool:
        if body["lora_name"] == "a1":
            raise TimeoutError
        return await say(self, engine, step, body)

    monkeypatch.setattr(keeping.Adapters, "_say", hanging)
    await keeping.Adapters(replicas.store, model, replicas.at[0]).settle()
    assert replicas.has()[0] == {"first", "a0", "a2", "a3"}
    assert "did not load 'a1'" in caplog.text


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"name": "m"}, 409, "already_exists"),
        ({"name": "m2"}, 409, "already_exists"),
        ({"name": "first"}, 409, "already_exists"),
        ({"name": "a b"}, 400, "invalid_request"),
        ({"model": "nobody"}, 404, "model_not_found"),
        ({"model": "sim"}, 400, "invalid_request"),
        ({"source": "~/poet"}, 400, "invalid_request"),
        ({"source": "../poet"}, 400, "invalid_request"),
        ({"source": ""}, 400, "invalid_request"),
        ({"path": "/poet"}, 400, "invalid_request"),
    ],
)
async def test_what_cannot_be_loaded(replicas: Replicas, body, status: int, code: str) -> None:
    """A taken name, no such model, one without LoRA, a path that means something else elsewhere."""
    told = await replicas.do("POST", **{**POET, **body})
    assert (told.status_code, told.json()["error"]["code"]) == (status, code)
    assert replicas.has() == [{"first"}] * 2


async def test_a_name_is_taken_once_over_all_models(replicas: Replicas) -> None:
    """Also while it is being loaded elsewhere; a model without replicas takes it for later."""
    assert (await replicas.do("POST", **{**POET, "model": "n"})).json()["replicas"] == 0
    replicas.house.gate.catalogue.learn([])  # another gateway, which has not heard of it yet
    assert (await replicas.do("POST", **POET)).status_code == 409
    assert (await replicas.do("DELETE", f"{PATH}/poet")).status_code == 204
    assert (await replicas.do("POST", **POET)).status_code == 201


async def test_what_cannot_be_unloaded(replicas: Replicas) -> None:
    """What the settings name, and what is not there."""
    assert (await replicas.do("DELETE", f"{PATH}/first")).json()["error"]["code"] == "in_use"
    assert (await replicas.do("DELETE", f"{PATH}/m")).status_code == 404
    assert replicas.has() == [{"first"}] * 2


async def test_operators_alone(replicas: Replicas) -> None:
    """All tenants share the models: neither a tenant's admin nor a key without permission may."""
    everything = ["read_models", "write_models", "delete_models"]
    for tenant, permissions in (("acme", everything), ("default", ["read_models"])):
        key, _ = await replicas.house.key(tenant, permissions=permissions)
        for method, path in (("POST", PATH), ("GET", PATH), ("DELETE", f"{PATH}/first")):
            body = POET if method == "POST" else {}
            told = await replicas.do(method, path, shown=key, **body)
            assert (told.status_code, told.json()["error"]["code"]) == (403, "permission_denied")
    assert replicas.has() == [{"first"}] * 2
