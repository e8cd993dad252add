"""What an engine answers through the gate is what it answers past it, field by field.

Ids and times are made anew for every answer and are not compared. The gate asks for the usage of
each stream; the engine then puts its fingerprint into the usage frame, and where the client did
not ask for that frame, both stay at the gate: fingerprints of streams are not compared.

vLLM puts tokens that are made while its loop is busy into one frame, so an answer has fewer frames
now and then, past the gate as well. A stream is the same when its frames joined are the same; that
they are the same one by one is seen within a few trials.
"""

from collections.abc import Iterator

import httpx
import pytest

from tests.conformance.answers import Answer, read
from tests.conformance.cases import CASES, Case
from tests.running import RunningGate

TRIALS = 6


KNOWN = [("simulated", case) for case in CASES if case.simulated]
KNOWN += [("vllm", case) for case in CASES]


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest) -> RunningGate:
    """The gate before the engine that the test names."""
    found: RunningGate = request.getfixturevalue(
        "gate" if request.param == "simulated" else "real_gate"
    )
    return found


@pytest.fixture(scope="module")
def engine(running: RunningGate) -> Iterator[httpx.Client]:
    """The engine itself, past the gate, with its key."""
    at = running.engine()
    with httpx.Client(base_url=at.url, headers=at.headers, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def through(running: RunningGate) -> Iterator[httpx.Client]:
    """The gate, as a caller without limits to speak of."""
    key = running.new_key(limits={"requests_per_minute": 100_000})
    with running.client(key) as client:
        yield client


def asked(client: httpx.Client, case: Case) -> Answer:
    return read(client.post(case.path, json=case.body))


def settled(engine: httpx.Client, case: Case) -> Answer:
    """Return what the engine answers twice alike: the first time its cache is cold.

    A prompt that is computed and one that is found in the cache are rounded differently in bf16.
    """
    before = asked(engine, case)
    for _ in range(TRIALS):
        again = asked(engine, case)
        if again.joined() == before.joined():
            return again
        before = again
    pytest.fail("the engine itself never answers twice alike")


@pytest.mark.parametrize(("running", "case"), KNOWN, indirect=["running"], ids=str)
def test_the_gate_answers_as_the_engine_does(
    engine: httpx.Client, through: httpx.Client, case: Case
) -> None:
    """Status, media type, every field; a stream frame by frame."""
    past = settled(engine, case)
    for _ in range(TRIALS):
        told = asked(through, case)
        assert (told.status, told.media) == (past.status, past.media)
        assert told.joined() == past.joined()
        if told == past:
            return
        past = asked(engine, case)
    pytest.fail("the frames never came one by one as they do past the gate")
