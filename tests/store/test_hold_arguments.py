"""Whatever the steps of the limits are handed: an error or a sane reply, and no error writes."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from serve_app.store import keys
from serve_app.store.scripts import TEXTS, header_counts
from tests.holding import RECORD, TENANT, everything, limits, scopes_of

NAMES = [name for pair in scopes_of() for name in pair]
MARK, LEARNED = keys.settled("t", "r"), keys.learned("t", "m")
USAGE, USED = keys.usage("t", "k", 1), keys.used("t", 1)
OWN = limits(
    requests_per_minute=5,
    tokens_per_day=900,
    concurrency=9,
    cost_per_month=1,
    models={"m": {"tokens_per_minute": 900, "shadow": {"output_tokens_per_day": 9}}},
)
LEASE = "r 1000 r 1 1 5 T 9 20000 0"
STEPS: dict[str, tuple[list[str], list[str]]] = {
    "hold": (
        [RECORD, TENANT, keys.revoked("t", "j"), LEARNED, *NAMES],
        ["key", "s", "0", "", OWN, "m", "r", "1000", "1 40 9 1 -1 -1 1.5 2.5"],
    ),
    "settle": (
        [MARK, USAGE, USED, LEARNED, *NAMES],
        ["k", "m", "c", "1 9 9 0 90 5 5", "40 9 9", "600", LEASE, "", LEASE, ""],
    ),
    "renew": (NAMES[1::2], ["1000", LEASE, "", LEASE, ""]),
}
"""Each step with keys and arguments that are right."""

WORDS = ["", " ", "0", "1", "-1", "-0", "1.5", "1e9", "1e309", "1e-320", "nan", "inf", "0x10", "x"]
WORDS += ["9" * 15, "9" * 16, "9" * 17, "9" * 400, "é\x00\xff", "%s%d", "key", "user", "vouched"]
GARBAGE = st.one_of(
    st.sampled_from(WORDS),
    st.text(max_size=20),
    st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join),
    st.lists(st.sampled_from([*"rtioRTIODMEcnxsq", *WORDS]), max_size=12).map(" ".join),
    st.builds(
        "r {} {} {} {} {}".format,
        *[st.sampled_from(["1", "0", "-1", "9" * 17, "r", "t", "sT", "c", "q", ""])] * 5,
    ),
)


@pytest.fixture(scope="module")
def client(store_url: str) -> Iterator["redis.Redis[Any]"]:
    """A client that waits five seconds for any reply."""
    with redis.Redis.from_url(store_url, decode_responses=True, socket_timeout=5) as opened:
        yield opened


PUT = """return redis.call('SET', KEYS[1], cmsgpack.pack(
    {1000, 1, 2e12, 'r', 5, 0, 1, 1, 5, 'T', 30, 20000, 0, 0, 0}))"""
"""A state of a scope, as the steps write it."""


def filled(client: "redis.Redis[Any]") -> None:
    """Fill the store with what a key and its tenant have when one lease runs and one is over."""
    client.flushall()
    client.hset(RECORD, mapping={"sha256": "s", "attributes": "{}", "limits": OWN})
    client.hset(TENANT, mapping={"attributes": "{}", "limits": OWN})
    for spent, leases in scopes_of():
        client.eval(PUT, 1, spent)
        client.zadd(leases, {LEASE: 10**14, LEASE.replace("r", "over", 1): 1})


def tried(client: "redis.Redis[Any]", step: str, names: list[str], args: list[str]) -> Any:
    """Return what a step replies, or its error; an error has written nothing."""
    before = everything(client)
    reply = replied(client, step, names, args)
    if isinstance(reply, redis.ResponseError):
        after = everything(client)
        assert after.keys() <= before.keys(), f"{reply} came too late"
        for name, was in before.items():  # some of it may have come to its end just now
            assert after.get(name) in (was, None), f"{reply} came too late"
    left = {name for name in client.keys("*") if client.ttl(name) == -1}
    assert left <= set(before), "what is new has its end"
    return reply


def replied(client: "redis.Redis[Any]", step: str, names: list[str], args: list[str]) -> Any:
    """Return what a step replies, or its error."""
    try:
        return client.eval(TEXTS[step], len(names), *names, *args)
    except redis.ResponseError as err:
        return err


@pytest.mark.parametrize("step", STEPS)
def test_the_steps_run_as_they_are_meant_to(client, step: str) -> None:
    """The arguments that are tampered with below are right, and as many as the header says."""
    names, args = STEPS[step]
    filled(client)
    assert header_counts(TEXTS[step]) == (len(names), len(args))
    reply = tried(client, step, names, args)
    assert reply[0] == {"hold": "known", "settle": 1, "renew": 2}[step]


@pytest.mark.parametrize("step", STEPS)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@example(changes={7: "9" * 400}, blank=False)
@example(changes={8: "1 1e309 0 1 -1 -1 1e309 0"}, blank=False)
@example(changes={6: " "}, blank=False)
@example(changes={5: "0"}, blank=True)
@given(changes=st.dictionaries(st.integers(0, 9), GARBAGE, max_size=4), blank=st.booleans())
def test_no_argument_breaks_a_step(client, step: str, changes, blank: bool) -> None:
    """Any garbage for any argument, in a full store or an empty one."""
    names, args = STEPS[step]
    filled(client)
    if blank:
        client.flushall()
    given_ = [changes.get(at, arg) for at, arg in enumerate(args)]
    reply = tried(client, step, names, given_)
    assert isinstance(reply, redis.ResponseError | list)
    if step == "hold" and isinstance(reply, list) and reply[0] == "known":
        assert 0 <= reply[4] <= len(reply[9].splitlines())
        assert min(reply[5], reply[6]) >= 0
        assert reply[7] >= -1


@pytest.mark.parametrize("text", ["own", "defaults", "tenant"])
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@example(garbage=f"r {'9' * 400} 1 0 t 1 {'9' * 17} 0")
@given(garbage=GARBAGE)
def test_no_text_of_limits_breaks_a_hold(client, text: str, garbage: str) -> None:
    """A record that somebody wrote by hand: an error, or limits that bind."""
    names, args = STEPS["hold"]
    filled(client)
    if text == "defaults":
        args = [*args[:4], garbage, *args[5:]]
    else:
        client.hset({"own": RECORD, "tenant": TENANT}[text], "limits", garbage)
    for number in range(2):
        tried(client, "hold", names, [*args[:6], f"r{number}", *args[7:]])


@pytest.mark.parametrize("wrong", ["string", "list", "set", "hash", "zset"])
@pytest.mark.parametrize(
    ("step", "at"), [(step, at) for step, (names, _) in STEPS.items() for at in range(len(names))]
)
def test_a_key_of_a_wrong_type_is_an_error_that_writes_nothing(client, step, at, wrong) -> None:
    """Where a step meets what is not its own, it leaves everything as it was."""
    names, args = STEPS[step]
    args = [LEASE if arg == "" and step != "hold" else arg for arg in args]
    filled(client)
    right = client.type(names[at])
    client.delete(names[at])
    {
        "string": lambda name: client.set(name, "x"),
        "list": lambda name: client.rpush(name, "x"),
        "set": lambda name: client.sadd(name, "x"),
        "hash": lambda name: client.hset(name, "x", "y"),
        "zset": lambda name: client.zadd(name, {"x": 1}),
    }[wrong](names[at])
    reply = tried(client, step, names, args)
    expects = {MARK: "string", USAGE: "hash", USED: "set", LEARNED: "hash"}.get(names[at], right)
    if wrong != expects and names[at] != keys.revoked("t", "j"):
        assert isinstance(reply, redis.ResponseError)
