"""How much while the store is away: who goes on, under which share, and what is paid afterwards."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from serve_app.allowance import EXEMPT, KINDS
from serve_app.errors import StoreUnavailable
from serve_app.limits import Charge, Demand, Hold, Holds, Said, State, Terms, Usage, heard
from serve_app.limits.bound import SCOPES, bind
from serve_app.limits.local import LocalLimits
from serve_app.limits.scope import Scope
from serve_app.limits.step import Asked, judge, settle
from serve_app.store import Store, keys
from tests.holding import ANYONE, KEY, RECORD, TENANT, USER, Claim, limits, state
from tests.stores import Server

START_US = 1_709_164_000_000_000
"""A quarter of an hour before a 29th of February."""

GRACE_S = 30
TTL_MS = 120_000
SMALL = Demand(fixed_tokens=10, choices=1, cap=5)
DAY_US, HOUR_US, MINUTE_US = 86_400_000_000, 3_600_000_000, 60_000_000


@dataclass
class House:
    """A store in memory, the gateways that lose it, and a clock that we move."""

    own: dict[str, Any] = field(default_factory=dict)
    tenant: dict[str, Any] = field(default_factory=dict)
    count: int = 1
    now_s: float = 0.0
    number: int = 0

    def __post_init__(self) -> None:
        self.scopes: dict[str, Scope] = {}
        self.gateways = [
            LocalLimits(
                grace_s=GRACE_S,
                gateways=lambda: self.count,
                defaults="",
                ttl_ms=TTL_MS,
                clock=lambda: self.now_s,
            )
            for _ in range(self.count)
        ]

    @property
    def now_us(self) -> int:
        return START_US + round(self.now_s * 1e6)

    def claim(self, claim: Claim | None = None) -> Claim:
        return claim or replace(ANYONE, limits=limits(**self.own))

    def asks(
        self, demand: Demand | None = SMALL, at: int = 0, claim: Claim | None = None, model="m"
    ) -> Hold:
        """Ask the store through one of the gateways."""
        self.number += 1
        who = self.claim(claim)
        names = keys.scopes(who.tenant, who.bucket, model)[::2]
        scopes = [self.scopes.setdefault(name, Scope()) for name in names]
        binds = bind(who.limits or "", "", limits(**self.tenant), model)
        tokens = demand.fixed_tokens if demand else 0
        asked = Asked(demand, Terms(), tokens, 256, f"s{self.number}", TTL_MS)
        judged = judge(scopes, binds, asked, self.now_us)
        said = tuple(
            Said(SCOPES[one], b.kind, b.shadow, b.limit, b.burst, d.left, d.wait_us, d.reset_us)
            for one, b, d in judged.said
        )
        theirs = json.dumps({"limits": self.tenant}) if self.tenant else ""
        held = Hold(who, State.KNOWN, "", theirs, self.now_us, said, request=f"s{self.number}")
        refusing = None if judged.refusing is None else said[judged.refusing]
        held = replace(held, leases=judged.leases, model=model, refusing=refusing)
        self.gateways[at].saw(held)
        return held

    def ended(self, held: Hold, charge: Charge | None = None, at: int = 0) -> None:
        """End what the store let in, in the store."""
        self.gateways[at].ended(held, charge)
        names = keys.scopes(held.claim.tenant, held.claim.bucket, held.model)[::2]
        settle([self.scopes[name] for name in names], held.leases, {}, self.now_us)

    def alone(
        self, demand: Demand | None = SMALL, at: int = 0, claim: Claim | None = None, model="m"
    ) -> Hold:
        """Ask one of the gateways while the store is away."""
        self.number += 1
        request = f"l{self.number}"
        return self.gateways[at].hold(self.claim(claim), demand, Terms(), model, request)

    def let_in(self, at: int = 0, most: int = 1_000, **more: Any) -> int:
        """Return how many pass until one is refused."""
        for passed in range(most):
            if self.alone(at=at, **more).refusing is not None:
                return passed
        return most


@pytest.mark.parametrize(
    ("after_s", "goes_on"),
    [
        pytest.param(0.0, True, id="at once"),
        pytest.param(GRACE_S, True, id="in the last moment"),
        pytest.param(GRACE_S + 0.001, False, id="too long ago"),
    ],
)
def test_who_was_seen_lately_goes_on(after_s: float, goes_on: bool) -> None:
    """Grace is counted from when the store last knew the caller, and ends for all by itself."""
    house = House({"requests_per_minute": 60})
    house.asks()
    house.now_s += after_s
    assert house.gateways[0].knows_somebody is goes_on
    if goes_on:
        assert house.alone().local
    else:
        with pytest.raises(StoreUnavailable, match="this caller cannot be judged"):
            house.alone()


def test_whom_nobody_saw_does_not_go_on() -> None:
    """Neither before anybody was seen, nor beside somebody who was; to go on is not to be seen."""
    house = House()
    with pytest.raises(StoreUnavailable):
        house.alone()
    assert not house.gateways[0].knows_somebody
    house.asks()
    house.now_s += GRACE_S - 1
    assert house.alone().local
    house.now_s += 2
    with pytest.raises(StoreUnavailable):
        house.alone()


SESSION = replace(USER, limits=None)


@pytest.mark.parametrize(
    ("seen", "shown"),
    [
        pytest.param(KEY, replace(KEY, proof="another"), id="another secret"),
        pytest.param(KEY, replace(KEY, key_id="k2", bucket="k2"), id="another key"),
        pytest.param(KEY, replace(KEY, tenant="t2"), id="another tenant"),
        pytest.param(KEY, replace(KEY, kind="vouched"), id="a key of the environment"),
        pytest.param(SESSION, replace(SESSION, proof="999"), id="another session"),
        pytest.param(SESSION, replace(SESSION, token_id="j2"), id="another token"),
        pytest.param(SESSION, replace(SESSION, user="bob"), id="another user"),
        pytest.param(ANYONE, replace(ANYONE, bucket="10.0.0.2"), id="another address"),
        pytest.param(ANYONE, replace(ANYONE, tenant_must_exist=True), id="a stricter issuer"),
    ],
)
def test_whoever_differs_is_another_caller(seen: Claim, shown: Claim) -> None:
    """Only the very claim that the store has judged is known; its proof above all."""
    house = House()
    house.asks(claim=seen)
    assert house.alone(claim=seen).state is State.KNOWN
    with pytest.raises(StoreUnavailable):
        house.alone(claim=shown)


@pytest.mark.parametrize("state", [State.REVOKED, State.UNKNOWN, State.NO_TENANT])
def test_whom_the_store_disowned_is_forgotten(state: State) -> None:
    """A token that was refused as revoked a moment ago does not come back with the store's loss."""
    house = House()
    house.asks(claim=USER)
    house.gateways[0].saw(Hold(USER, state))
    with pytest.raises(StoreUnavailable):
        house.alone(claim=USER)


def test_a_key_ends_at_its_time_without_the_store_too() -> None:
    """By the store's clock, as far as it was heard; ours may be wrong."""
    house = House()
    attributes = json.dumps({"expires_ms": START_US // 1_000 + 10_000})
    house.gateways[0].saw(Hold(KEY, State.KNOWN, attributes, "", START_US))
    house.now_s += 9.999
    assert house.alone(claim=KEY).attributes == attributes
    house.now_s += 0.001
    with pytest.raises(StoreUnavailable):
        house.alone(claim=KEY)


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS if not kind.is_money])
@pytest.mark.parametrize("where", ["own", "tenant"])
@pytest.mark.parametrize("per_model", [False, True])
def test_each_limit_is_divided(kind: str, where: str, per_model: bool) -> None:
    """Every kind, in every scope: a gateway of three has the third, rounded down, and says so."""
    told = {"models": {"m": {kind: 100}}} if per_model else {kind: 100}
    house = House(**{where: told}, count=3)
    house.asks(None)
    (said,) = house.alone(None).said
    assert (said.limit, said.burst, said.left) == (33, 33, 33)
    assert said.scope == ("key" if where == "own" else "tenant") + ("_model" if per_model else "")


def test_a_gateway_begins_with_its_share_of_what_was_left() -> None:
    """What was used before the loss is not there again; what refills comes at the share's pace."""
    house = House({"requests_per_minute": 60}, count=2)
    for _ in range(40):
        house.asks(at=0)
    house.asks(None, at=1)
    assert [house.let_in(at=0), house.let_in(at=1)] == [10, 10]
    house.now_s += 2  # one of thirty a minute
    assert [house.let_in(at=0), house.let_in(at=1)] == [1, 1]


def test_what_was_heard_last_of_a_scope_counts_whoever_heard_it() -> None:
    """A tenant's limit as its busiest key was told of it, not as the one that asks was told."""
    house = House(tenant={"requests_per_minute": 60})
    quiet = replace(ANYONE, key_id="q", bucket="q")
    house.asks(claim=quiet)
    for _ in range(59):
        house.asks(claim=ANYONE)
    assert house.let_in(claim=quiet) == 0


def test_an_answer_that_comes_late_makes_nobody_richer() -> None:
    """Of two answers the one that the store gave last counts, in whatever order they come."""
    house = House({"requests_per_minute": 60})
    first = house.asks(None)
    house.now_s += 0.001
    for _ in range(60):
        house.asks()
    house.gateways[0].saw(first)
    assert house.let_in() == 0


def test_what_was_not_used_is_there_again() -> None:
    """A request that has ended before the loss counts as what it used, and frees its place."""
    house = House({"tokens_per_day": 1_000, "concurrency": 1})
    large = replace(SMALL, cap=900)
    held = house.asks(large)
    assert house.alone(large).refusing.kind.name == "tokens_per_day"
    house = House({"tokens_per_day": 1_000, "concurrency": 1})
    held = house.asks(large)
    house.ended(held, Charge(Usage(10, 20)))
    again = house.alone(large)
    assert again.refusing is None
    assert [one.left for one in again.said] == [1_000 - 30 - 910, 0]


def test_a_hold_whose_time_was_over_gives_nothing_back_twice() -> None:
    """The store may have given it back already, and said so."""
    house = House({"tokens_per_day": 1_000})
    held = house.asks(replace(SMALL, cap=490))
    house.now_s += TTL_MS / 1_000
    assert house.asks(None).said[0].left == 1_000
    house.gateways[0].ended(held, None)
    house.asks(replace(SMALL, cap=990))
    house.gateways[0].ended(held, None)
    assert house.alone(None).said[0].left == 0


def test_concurrency_counts_what_ran_before_and_ends_with_it() -> None:
    """Three of eight run in the store: of two gateways each lends two more.

    A place that is freed here is free here.
    """
    house = House({"concurrency": 8}, count=2)
    running = [house.asks(at=0) for _ in range(3)]
    house.asks(None, at=1)
    mine = [house.alone(at=0) for _ in range(2)]
    assert [one.refusing for one in mine] == [None, None]
    assert house.alone(at=0).refusing is not None
    assert house.let_in(at=1) == 2
    house.gateways[0].ended(running[0], None)
    assert house.let_in(at=0) == 1
    house.gateways[0].settle(mine[0], Charge(Usage(1, 1)))
    house.gateways[0].settle(mine[0], Charge(Usage(1, 1)))
    house.now_s += GRACE_S - 1
    assert house.let_in(at=0) == 1, "given back once, and not by time"


def test_a_limit_of_nothing_stays_one_and_no_limit_too() -> None:
    """0 is never, also divided; who has no limits, or is exempt, is bound by none."""
    house = House({"requests_per_minute": 0}, count=3)
    house.asks(None)
    assert house.alone().refusing.limit == 0
    free = House(tenant={"requests_per_minute": 2}, count=3)
    exempt = replace(ANYONE, limits=EXEMPT)
    free.asks(claim=exempt)
    assert free.let_in(claim=exempt, most=50) == 50


def test_a_limit_too_small_to_be_divided_refuses_and_says_so() -> None:
    """Two a minute among three gateways: 503, by name. In the shadow it is passed over."""
    house = House({"requests_per_minute": 2}, count=3)
    house.asks(None)
    with pytest.raises(StoreUnavailable, match="key:requests_per_minute is too small") as told:
        house.alone()
    assert told.value.retry_after_s == 1.0
    shadow = House({"shadow": {"requests_per_minute": 2, "tokens_per_day": 300}}, count=3)
    shadow.asks(None)
    held = shadow.alone()
    assert [(one.shadow, one.limit) for one in held.said] == [(True, 100)]
    assert " sr 0 1 2" in held.leases[0], "the store counts it afterwards"


def test_shadow_limits_refuse_nobody_here_either() -> None:
    """They say what they would have done."""
    house = House({"shadow": {"requests_per_minute": 4}}, count=2)
    house.asks(None)
    told = [house.alone() for _ in range(3)]
    assert [len(one.would_refuse) for one in told] == [0, 0, 1]
    assert all(one.refusing is None for one in told)


def test_a_limit_of_which_nobody_heard_lately_refuses() -> None:
    """What a caller has left on a model that it has not asked for is known to the store alone."""
    house = House({"models": {"m": {"requests_per_day": 10}, "n": {"requests_per_day": 10}}})
    house.asks(None)
    assert house.alone().refusing is None
    with pytest.raises(StoreUnavailable, match="left of key_model:requests_per_day is not known"):
        house.alone(model="n")
    assert house.alone(model="free").refusing is None


def test_a_new_day_begins_here_too() -> None:
    """A calendar limit is whole again at midnight UTC, by the store's clock."""
    house = House({"requests_per_day": 10}, count=2)
    before_us = DAY_US - START_US % DAY_US - 5_000_000
    house.now_s = before_us / 1e6
    for _ in range(10):
        house.asks()
    assert house.let_in() == 0
    house.now_s += 6
    assert house.let_in() == 5


@st.composite
def losses(draw: st.DrawFn) -> tuple[House, list[tuple[int, float]], list[int]]:
    """Draw limits, gateways, what each heard, and what is asked of each in which moments."""
    kind = draw(st.sampled_from([kind.name for kind in KINDS if not kind.is_money]))
    limit = draw(st.integers(1, 60))
    told: Any = limit
    if kind.endswith("minute"):
        told = {"limit": limit, "burst": draw(st.integers(1, 60))}
    count = draw(st.integers(1, 4))
    where = draw(st.sampled_from(["own", "tenant"]))
    house = House(**{where: {kind: told}}, count=count)
    before = draw(st.lists(st.integers(0, count - 1), max_size=20))
    after = st.tuples(st.integers(0, count - 1), st.floats(0, 0.9))
    return house, draw(st.lists(after, max_size=30)), before


@examples(max_examples=300, deadline=None)
@given(losses())
def test_together_they_let_in_no_more_than_was_left(drawn: Any) -> None:
    """Whatever the limit, the gateways and the traffic.

    No more than what was left when the gateways last heard, and what refills.
    """
    house, after, before = drawn
    for at in before:
        house.asks(at=at)
    lefts = [house.asks(None, at=at).said[0] for at in range(house.count)]
    kind, limit, share = lefts[0].kind, lefts[0].limit, lefts[0].burst // house.count
    amount = {"requests": 1, "seats": 1, "input": 10, "output": 5, "tokens": 15}[kind.unit]
    amount = min(amount, share)  # a hold is never larger than the bucket
    passed = [0] * house.count
    began_s = house.now_s
    for at, pause_s in after:
        house.now_s += pause_s
        try:
            passed[at] += house.alone(at=at).refusing is None
        except StoreUnavailable:
            assert 0 in (limit // house.count, share)
    refilled = limit * (house.now_s - began_s) / 60 if kind.period == "minute" else 0
    assert sum(passed) * amount <= lefts[0].left + refilled
    assert all(one * amount <= share + refilled for one in passed)


def test_nothing_is_left_once_the_store_has_taken_something() -> None:
    """The next loss begins with what the store then said, not where the last one ended."""
    house = House({"requests_per_minute": 10})
    house.asks(None)
    assert house.let_in() == 10
    house.asks()
    assert house.let_in() == 9


def test_a_store_that_can_only_be_looked_at_makes_nobody_richer() -> None:
    """One that is out of memory, or whose other primary is away, does not know what runs here."""
    house = House({"requests_per_day": 10})
    house.asks(None)
    assert house.let_in() == 10
    house.asks(None)
    house.asks(claim=replace(ANYONE, tenant="t2"))
    assert house.let_in() == 0
    house.gateways[0].all_settled()
    assert house.let_in() == 0, "what runs here is not settled"


def test_what_is_settled_is_forgotten() -> None:
    """When nothing runs and nothing is owed, the store alone counts."""
    house = House({"requests_per_day": 10})
    house.asks(None)
    held = [house.alone() for _ in range(10)]
    assert house.gateways[0].running == 10
    for one in held:
        house.gateways[0].settle(one, Charge(Usage(1, 1)))
    house.gateways[0].all_settled()
    assert house.gateways[0].running == 0
    assert house.let_in() == 10


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many callers those that were seen longest ago are forgotten."""
    monkeypatch.setattr(heard, "SEEN_MAX", 3)
    monkeypatch.setattr(heard, "SCOPES_MAX", 4)
    house = House()
    told = limits(requests_per_minute=5, models={"m": {"requests_per_minute": 5}})
    callers = [replace(ANYONE, key_id=f"k{n}", bucket=f"k{n}", limits=told) for n in range(5)]
    for number in (0, 1, 2, 0, 3, 4):
        house.asks(claim=callers[number])
    known = house.gateways[0]._heard
    assert len(known._seen) == 3
    assert len(known._left) == 4
    for forgotten in (callers[1], callers[2], callers[0]):
        with pytest.raises(StoreUnavailable):
            house.alone(claim=forgotten)
    assert house.alone(claim=callers[3]).refusing is None


# With a real store, that is killed.


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of this test's own, that keeps what it has written."""
    started = Server(tmp_path, "appendonly yes", "appendfsync always")
    yield started
    started.end()


@asynccontextmanager
async def holding(server: Server, gateways: int = 1) -> AsyncIterator[Holds]:
    """Lend the holds of one of so many gateways."""
    store = Store(server.url, timeout_ms=1_000)
    local = LocalLimits(
        grace_s=GRACE_S,
        gateways=lambda: gateways,
        defaults=limits(requests_per_day=90),
        ttl_ms=TTL_MS,
    )
    try:
        yield Holds(store, defaults=limits(requests_per_day=90), local=local)
    finally:
        await store.close()


SLOWLY = {"limit": 4, "burst": 10_000}
"""Refills four units a minute: in a test's time, one at most."""

OWN = {
    "tokens_per_minute": SLOWLY,
    "shadow": {"requests_per_day": 5},
    "concurrency": 20,
    "models": {"m": {"tokens_per_day": 10_000}},
}
THEIRS = {"requests_per_minute": SLOWLY}
USE = Charge(Usage(30, 12), cost_nanos=7, class_="standard")


async def ask(holds: Holds, request: str, claim: Claim = KEY) -> Hold:
    return await holds.hold(claim, SMALL, model="m", request=request)


def written(server: Server) -> None:
    """Write a key and its tenant as the gate does."""
    with server.client() as client:
        attributes = json.dumps({"limits": OWN, "expires_ms": 0})
        client.hset(RECORD, mapping={"sha256": "s", "attributes": attributes})
        client.hset(RECORD, "limits", limits(**OWN))
        client.hset(TENANT, mapping={"attributes": json.dumps({"limits": THEIRS})})
        client.hset(TENANT, "limits", limits(**THEIRS))


@pytest.mark.parametrize("ends", ["while it is away", "when it is back", "some of each"])
async def test_what_was_let_in_is_charged_once_when_the_store_is_back(
    server: Server, ends: str
) -> None:
    """Killed with -9 and started again: ledger and buckets hold the real use of each request.

    Be it that it ended meanwhile or later; and nothing is left behind, here or there.
    """
    written(server)
    async with holding(server, gateways=2) as holds:
        await holds.settle(await ask(holds, "before"), USE)
        server.kill()
        held = [await ask(holds, f"r{number}") for number in range(8)]
        assert [(one.local, one.refusing) for one in held] == [(True, None)] * 8
        told = {one.name: one.limit for one in held[0].said if not one.shadow}
        assert told == {
            "key:tokens_per_minute": 2,
            "key:concurrency": 10,
            "key:requests_per_day": 45,
            "key_model:tokens_per_day": 5_000,
            "tenant:requests_per_minute": 2,
        }
        early = {"while it is away": 8, "when it is back": 0, "some of each": 4}[ends]
        for one in held[:early]:
            await holds.settle(one, USE)
        assert (holds.owed(), holds.running()) == (early, 8 - early)
        server.start()
        await back(holds)
        for one in held[early:]:
            await holds.settle(one, USE)
        await holds.settle(held[0], USE)
        await holds.pay()
        assert (holds.owed(), holds.running()) == (0, 0)
        agree(server, held[0], requests=9)
        assert not holds._local._scopes


async def back(holds: Holds) -> None:
    """Pay what is owed as soon as the store takes it, and again: that changes nothing."""
    owed = list(holds._owed._steps.values())
    async with asyncio.timeout(10):
        while True:
            with suppress(StoreUnavailable):
                await holds._store.ping()
                await holds.pay()
                break
            await asyncio.sleep(0.02)
    for step in owed:
        holds._owed.append(step)
    await holds.pay()


def agree(server: Server, held: Hold, requests: int) -> None:
    """Check that ledger and buckets hold so many requests, each as :data:`USE`."""
    with server.client() as client:
        usage = client.hgetall(keys.usage("t", "k", held.now_us // HOUR_US))
        key, key_model, tenant, _ = keys.scopes("t", "k", "m")[::2]
        of_key, of_tenant = state(client, key), state(client, tenant)
        assert state(client, key_model) == {"T": requests * 42}
        leases = [client.zcard(name) for name in keys.scopes("t", "k", "m")[1::2]]
    figures = {name.split("\t")[2]: int(one) for name, one in usage.items() if "\t" in name}
    assert {"requests": requests, "input_tokens": requests * 30, "output_tokens": requests * 12,
            "cost_nanos": requests * 7}.items() <= figures.items()  # fmt: skip
    assert (of_key["sR"], of_key["R"]) == (requests, requests)
    assert -(-of_key["t"] // MINUTE_US) in (requests * 42, requests * 42 - 1)
    assert -(-of_tenant["r"] // MINUTE_US) in (requests, requests - 1)
    assert leases == [0, 0, 0, 0]


async def test_what_failed_before_its_first_byte_costs_nothing_here_either(server: Server) -> None:
    """Given back in memory, and nothing is owed."""
    async with holding(server) as holds:
        claim = replace(ANYONE, limits=limits(requests_per_day=1))
        await holds.hold(claim, model="m")
        server.kill()
        for number in range(3):
            held = await ask(holds, f"r{number}", claim)
            assert held.refusing is None
            assert (await ask(holds, "x", claim)).refusing.limit == 1
            await holds.settle(held)
        assert (holds.owed(), holds.running()) == (0, 0)


async def test_a_stranger_is_told_the_stores_state(server: Server) -> None:
    """The refusal says what is the matter with the store, as it does without grace."""
    async with holding(server) as holds:
        await holds.hold(ANYONE)
        server.kill()
        assert (await holds.hold(ANYONE)).local
        with pytest.raises(StoreUnavailable) as told:
            await holds.hold(replace(ANYONE, bucket="x"))
        assert told.value.details == {"state": "unreachable"}
