"""Limits as people write them and as steps read them (CONTRACT §1.1, §4)."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from serve_app.allowance import BY_LETTER, KINDS, Limits, lines_of, text_of, understood

RATE = "must be a whole number from 0 to 1000000, or {limit, burst}; 0 means never"
TOKENS = "must be a whole number from 0 to 100000000, or {limit, burst}; 0 means never"
QUOTA = "must be a whole number from 0 to 1000000000000; 0 means never"
MONEY = "must be a number from 0 to 1000000; 0 means never, 0.000000001 is the least"
UNKNOWN = "Extra inputs are not permitted"

WRONG: list[Any] = [
    pytest.param({"requests_per_minute": -1}, "requests_per_minute", RATE, id="negative"),
    pytest.param({"requests_per_minute": 1.5}, "requests_per_minute", RATE, id="fractional"),
    pytest.param({"requests_per_minute": 1.0}, "requests_per_minute", RATE, id="a float"),
    pytest.param({"requests_per_minute": 1e99}, "requests_per_minute", RATE, id="huge float"),
    pytest.param({"requests_per_minute": 10**30}, "requests_per_minute", RATE, id="overflowing"),
    pytest.param({"requests_per_minute": 1_000_001}, "requests_per_minute", RATE, id="one more"),
    pytest.param({"requests_per_minute": "10"}, "requests_per_minute", RATE, id="a text"),
    pytest.param({"requests_per_minute": True}, "requests_per_minute", RATE, id="true"),
    pytest.param({"requests_per_minute": [1]}, "requests_per_minute", RATE, id="a list"),
    pytest.param({"tokens_per_minute": -1}, "tokens_per_minute", TOKENS, id="tokens"),
    pytest.param({"input_tokens_per_minute": 10**9}, "input_tokens_per_minute", TOKENS, id="input"),
    pytest.param({"tokens_per_day": 10**12 + 1}, "tokens_per_day", QUOTA, id="a quota"),
    pytest.param({"concurrency": 0.5}, "concurrency", QUOTA.replace("1" + "0" * 12, "1000000")),
    pytest.param({"cost_per_day": -0.01}, "cost_per_day", MONEY, id="negative money"),
    pytest.param({"cost_per_day": 1e99}, "cost_per_day", MONEY, id="overflowing money"),
    pytest.param({"cost_per_day": 1e-10}, "cost_per_day", MONEY, id="less than a nano"),
    pytest.param({"cost_per_day": "5"}, "cost_per_day", MONEY, id="money as text"),
    pytest.param({"cost_per_month": {"limit": True}}, "cost_per_month.limit", MONEY, id="truth"),
    pytest.param(
        {"requests_per_minute": {"limit": 0, "burst": 5}},
        "requests_per_minute.burst",
        "contradicts a limit of 0, which means never",
        id="a burst of never",
    ),
    pytest.param(
        {"requests_per_minute": {"burst": 5}},
        "requests_per_minute.limit",
        "Field required",
        id="a burst alone",
    ),
    pytest.param(
        {"requests_per_minute": {"limit": 5, "burst": 0}},
        "requests_per_minute.burst",
        "must be a whole number from 1 to 1000000",
        id="a burst of nothing",
    ),
    pytest.param(
        {"requests_per_minute": {"limit": 1.5}},
        "requests_per_minute.limit",
        "must be a whole number from 0 to 1000000; 0 means never",
        id="fractional, written out",
    ),
    pytest.param(
        {"requests_per_minute": {"limit": 5, "burst": 2_000_000}},
        "requests_per_minute.burst",
        "must be a whole number from 1 to 1000000",
        id="a burst without end",
    ),
    pytest.param(
        {"requests_per_day": {"limit": 5, "burst": 5}},
        "requests_per_day.burst",
        "is for limits a minute only",
        id="a burst of a day",
    ),
    pytest.param(
        {"cost_per_month": {"limit": 5, "burst": 5}},
        "cost_per_month.burst",
        "is for limits a minute only",
        id="a burst of money",
    ),
    pytest.param(
        {"concurrency": {"limit": 5, "burst": 5}},
        "concurrency.burst",
        "is for limits a minute only",
        id="a burst at once",
    ),
    pytest.param({"request_per_minute": 5}, "request_per_minute", UNKNOWN, id="unknown kind"),
    pytest.param(
        {"requests_per_day": {"limit": 5, "period": 1}},
        "requests_per_day.period",
        UNKNOWN,
        id="unknown member",
    ),
    pytest.param({"shadow": {"exempt": True}}, "shadow.exempt", UNKNOWN, id="exempt in the shadow"),
    pytest.param({"shadow": {"concurrency": -1}}, "shadow.concurrency", None, id="in the shadow"),
    pytest.param(
        {"models": {"org/m": {"tokens_per_minute": {"limit": 1, "burst": -1}}}},
        "models.org/m.tokens_per_minute.burst",
        "must be a whole number from 1 to 100000000",
        id="of a model",
    ),
    pytest.param({"models": {"m": {"models": {}}}}, "models.m.models", UNKNOWN, id="of a model's"),
    pytest.param({"models": {"a b": {}}}, "models.a b", "is no model's name", id="no model"),
    pytest.param({"models": {"m\n": {}}}, "models.m\n", "is no model's name", id="a line end"),
    pytest.param({"models": {"m\t": {}}}, "models.m\t", "is no model's name", id="a tab"),
    pytest.param(
        {"models": {f"m{n}": {} for n in range(65)}},
        "models",
        "Value error, holds 65 models; 64 may be named",
        id="65 models",
    ),
    pytest.param(
        {"exempt": True, "concurrency": 1},
        "exempt",
        "stands alone; other limits contradict it",
        id="exempt and limited",
    ),
    pytest.param(
        {"exempt": True, "models": {"m": {"concurrency": 1}}},
        "exempt",
        "stands alone; other limits contradict it",
        id="exempt and limited on a model",
    ),
    pytest.param({"exempt": 1}, "exempt", "Input should be a valid boolean", id="exempt 1"),
    pytest.param(
        {"output_cap": 0}, "output_cap", "must be a whole number from 1 to 100000000", id="no cap"
    ),
]


@pytest.mark.parametrize(("written", "where", "says"), WRONG)
def test_a_wrong_limit_is_named_once(written: Any, where: str, says: str | None) -> None:
    """One mistake, at its member, in plain words; read from JSON as from settings."""
    for read in (lambda: Limits.model_validate_json(json.dumps(written)),
                 lambda: Limits.model_validate(written)):  # fmt: skip
        with pytest.raises(ValidationError) as told:
            read()
        (mistake,) = told.value.errors()
        assert ".".join(str(step) for step in mistake["loc"]) == where
        assert says in (None, mistake["msg"])


@pytest.mark.parametrize(
    ("written", "text"),
    [
        pytest.param({}, "", id="nothing"),
        pytest.param({"exempt": False, "shadow": {}, "models": {"m": {}}}, "", id="at length"),
        pytest.param({"requests_per_minute": 0}, "r 0 0 0", id="never"),
        pytest.param({"requests_per_minute": 60}, "r 60 60 0", id="its own burst"),
        pytest.param({"requests_per_minute": {"limit": 60}}, "r 60 60 0", id="written out"),
        pytest.param({"requests_per_minute": {"limit": 60, "burst": 5}}, "r 60 5 0", id="a burst"),
        pytest.param({"tokens_per_minute": 7, "output_cap": 9}, "t 7 7 0 n 9 0 0", id="a cap"),
        pytest.param({"cost_per_day": 5, "cost_per_month": 0.000_000_001},
                     "D 5000000000 5000000000 0 E 1 1 0", id="money"),
        pytest.param({"cost_per_day": 0.1}, "D 100000000 100000000 0", id="a tenth"),
        pytest.param({"concurrency": {"limit": 4}, "shadow": {"concurrency": 2}},
                     "c 4 4 0 c 2 2 1", id="a shadow of the same kind"),
        pytest.param({"models": {"org/m:1": {"requests_per_day": 3}, "n": {}}},
                     "\norg/m:1\tR 3 3 0", id="of a model alone"),
        pytest.param({"tokens_per_month": 8, "models": {"m": {"shadow": {"tokens_per_day": 1}}}},
                     "M 8 8 0\nm\tT 1 1 1", id="of all models and of one"),
        pytest.param({"exempt": True}, "x 0 0 0", id="exempt"),
    ],
)  # fmt: skip
def test_what_steps_read(written: dict[str, Any], text: str) -> None:
    """Each limit is one term; who names nothing has no text."""
    assert text_of(written) == text


def limits(kinds: int = 4) -> st.SearchStrategy[dict[str, Any]]:
    """Well-formed limits of some kinds."""
    counts = st.integers(0, 1_000_000)
    rates = st.builds(
        lambda n, b: {"limit": n, "burst": b}, st.integers(1, 10**6), st.integers(1, 10**6)
    )
    said = {
        kind.name: st.floats(0.01, 10**6) | counts
        if kind.is_money
        else counts | (rates if kind.period == "minute" else counts.map(lambda n: {"limit": n}))
        for kind in KINDS
    }
    return st.lists(st.sampled_from(sorted(said)), max_size=kinds, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: said[name] for name in names})
    )


@given(
    own=limits(),
    shadow=limits(),
    models=st.dictionaries(st.sampled_from("abc"), limits(), max_size=3),
)
def test_what_is_kept_says_the_same(own: Any, shadow: Any, models: Any) -> None:
    """A record keeps what was written; read again, it is the same limits, and so are its lines."""
    made = Limits.model_validate_json(json.dumps({**own, "shadow": shadow, "models": models}))
    kept = json.loads(json.dumps(made.as_written()))
    assert Limits.model_validate(kept) == made
    text = text_of(kept)
    assert text == made.text()
    terms = lines_of(text, "none")[0].split()
    assert [(letter, shade) for letter, shade in zip(terms[::4], terms[3::4], strict=True)] == [
        (kind.letter, shade)
        for shade, told in (("0", own), ("1", shadow))
        for kind in KINDS
        if kind.name in told
    ]
    assert set(terms[::4]) <= set(BY_LETTER)
    assert all(int(number) >= 0 for number in (*terms[1::4], *terms[2::4]))
    for name, one in models.items():
        assert lines_of(text, name)[1] == Limits.model_validate(one).line()


WORDS = st.sampled_from([*Limits.model_fields, "limit", "burst", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(told=JSON)
def test_whatever_is_written_is_limits_or_a_mistake(told: Any) -> None:
    """Nothing that JSON can say does anything else."""
    with contextlib.suppress(ValidationError):
        assert isinstance(Limits.model_validate_json(json.dumps(told)).text(), str)


@given(told=st.dictionaries(WORDS, JSON, max_size=4))
@example(told={"models": {"m": {"requests_per_day": {"limit": 1, "x": 1}, "x": 2}}, "x": 3})
def test_what_is_understood_of_others_words(told: dict[str, Any]) -> None:
    """Unknown members are passed over, wrong ones are not; what was told is left as it was."""
    text = json.dumps(told)
    with contextlib.suppress(ValidationError):
        found = understood(told)
        assert Limits.model_validate(found.as_written()) == found
    assert json.dumps(told) == text
