"""Limits as they are written down are the limits that bind, in both twins."""

from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.allowance import EXEMPT, KINDS, Limits, lines_of
from serve_app.allowance import Bounds as AllBounds
from serve_app.limits.bound import Bound, Bounds, bind, bounds_of
from serve_app.store.scripts import whole
from tests.holding import limits

PROBE = whole((Path(__file__).parents[1] / "store" / "bound_probe.lua").read_text())
RATES = [kind.name for kind in KINDS if kind.period == "minute"]
NAMES = [kind.name for kind in KINDS]


def short(bounds: Bounds) -> list[str]:
    """Return each bound in short: its field, limit and burst; the cap last, if there is one."""
    cap = [f"cap {bounds.output_cap}"] if bounds.output_cap is not None else []
    return [f"{one.field} {one.limit}/{one.burst}" for one in bounds.bounds] + cap


def test_every_kind_binds_as_it_is_called() -> None:
    """What a member says is what a bound of that kind holds, money in nanos, as a shadow too."""
    for kind in KINDS:
        for shadow in (False, True):
            wanted = {kind.name: 3}
            text = limits(shadow=wanted) if shadow else limits(**wanted)
            limit = 3_000_000_000 if kind.is_money else 3
            assert bounds_of([text]).bounds == (Bound(kind, limit, limit, shadow),)
    assert {kind.name for kind in KINDS} == {*AllBounds.model_fields}
    assert len({kind.letter for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("name", RATES)
def test_a_rate_may_have_a_burst_of_its_own(name: str) -> None:
    """Without one as much as the limit may be used at once."""
    for told, limit, burst in [(7, 7, 7), ({"limit": 7}, 7, 7), ({"limit": 7, "burst": 2}, 7, 2)]:
        (bound,) = bounds_of([limits(**{name: told})]).bounds
        assert (bound.limit, bound.burst) == (limit, burst)


@pytest.mark.parametrize(
    ("own", "defaults", "tenant", "binds"),
    [
        pytest.param({}, {}, {}, [[], [], [], []], id="nothing"),
        pytest.param(
            {"requests_per_minute": 5},
            {"requests_per_minute": 9, "concurrency": 3},
            {"concurrency": 8},
            [["r 5/5", "c 3/3"], [], ["c 8/8"], []],
            id="own before defaults, kind by kind; the tenant's beside them",
        ),
        pytest.param(
            {"models": {"m": {"requests_per_minute": 2}}},
            {"requests_per_minute": 9, "models": {"m": {"requests_per_minute": 7}}},
            {},
            [["r 9/9"], ["r 2/2"], [], []],
            id="a model's limit stands beside the caller's own, not in its place",
        ),
        pytest.param(
            {"models": {"mm": {"requests_per_minute": 2}, "m2": {"concurrency": 1}}},
            {},
            {"models": {"M": {"requests_per_minute": 2}}},
            [[], [], [], []],
            id="other models bind nothing here, however alike their names",
        ),
        pytest.param(
            {"requests_per_minute": 5, "shadow": {"requests_per_minute": 2}},
            {"shadow": {"requests_per_minute": 3, "concurrency": 1}},
            {},
            [["r 5/5", "sr 2/2", "sc 1/1"], [], [], []],
            id="a shadow stands beside what binds, own before defaults too",
        ),
        pytest.param(
            {"output_cap": 4, "models": {"m": {"output_cap": 5}}},
            {"output_cap": 6},
            {"output_cap": 7, "models": {"m": {"output_cap": 8}}},
            [["cap 4"], ["cap 5"], ["cap 7"], ["cap 8"]],
            id="a cap of each scope",
        ),
        pytest.param(
            {"exempt": True},
            {"requests_per_minute": 5, "output_cap": 6},
            {"requests_per_minute": 5, "models": {"m": {"concurrency": 1}}},
            [[], [], [], []],
            id="nothing binds who is exempt",
        ),
        pytest.param(
            {"requests_per_minute": 0},
            {"requests_per_minute": 5},
            {},
            [["r 0/0"], [], [], []],
            id="never is a limit, too",
        ),
    ],
)
def test_who_is_bound_by_what(store_url: str, own, defaults, tenant, binds) -> None:
    """The four scopes of a request for the model ``m``: a caller, it on the model, its tenant's."""
    texts = (limits(**own), limits(**defaults), limits(**tenant))
    assert [short(one) for one in bind(*texts, "m")] == binds
    with redis.Redis.from_url(store_url, decode_responses=True) as client:
        assert from_store(client, *texts, "m") == list(bind(*texts, "m"))


def from_store(client: "redis.Redis[Any]", *args: str) -> list[Bounds]:
    """Return what binds as the store reads it."""
    told = client.register_script(PROBE)([], list(args))
    by_letter = {kind.letter: kind for kind in KINDS}
    scopes = []
    for cap, rows in told:
        bounds = []
        for field, letter, period, limit, burst, shadow in rows:
            bound = Bound(by_letter[letter], limit, burst, bool(shadow))
            assert (field, period) == (bound.field, bound.kind.period or "none")
            bounds.append(bound)
        scopes.append(Bounds(tuple(bounds), None if cap == -1 else cap))
    return scopes


MODELS = st.sampled_from(["m", "mm", "org/m", "m.1", "m-1", "%a+", "m:x", "M"])
BOUNDS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(NAMES, st.sampled_from([0, 1, 1_000_000])),
        **dict.fromkeys(RATES, st.sampled_from([0, 7, {"limit": 7, "burst": 10**6}])),
        "output_cap": st.sampled_from([1, 10**8]),
    },
)
SHADOWED = st.builds(
    lambda bounds, shadow: {**bounds, "shadow": {k: v for k, v in shadow.items() if k in NAMES}},
    BOUNDS,
    BOUNDS,
)
NAMED = MODELS.filter(lambda name: name[0] != "%")
LIMITS = st.one_of(
    st.just({}),
    st.just({"exempt": True}),
    st.builds(
        lambda own, models: {**own, "models": models},
        SHADOWED,
        st.dictionaries(NAMED, SHADOWED, max_size=4),
    ),
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(own=LIMITS, defaults=LIMITS, tenant=LIMITS, model=MODELS)
def test_the_store_reads_what_its_twin_reads(store_url, own, defaults, tenant, model) -> None:
    """Any limits, any model: the same bounds in the same order, and the same caps."""
    texts = (limits(**own), limits(**defaults), limits(**tenant))
    with redis.Redis.from_url(store_url, decode_responses=True) as client:
        assert from_store(client, *texts, model) == list(bind(*texts, model))


@given(told=LIMITS)
def test_nothing_is_lost_on_the_way(told) -> None:
    """Each limit that is named binds, in its line; a line that says nothing is not written."""
    written = Limits.model_validate(told)
    text = written.text()
    if written.exempt:
        assert text == EXEMPT
        return
    places = [("", written), *(written.models or {}).items()]
    for model, one in places:
        line = lines_of(text, model)[1] if model else lines_of(text, "no such model")[0]
        shadow = one.shadow.model_dump(exclude_none=True) if one.shadow else {}
        told_here = one.model_dump(exclude_none=True, include={*NAMES}) | {
            f"shadow {name}": value for name, value in shadow.items()
        }
        found = bounds_of([line])
        assert len(found.bounds) == len(told_here)
        assert found.output_cap == one.output_cap
    assert "\n\n" not in text
    assert not text.endswith("\n")
