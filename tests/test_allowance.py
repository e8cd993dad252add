"""Limits as people write them: what is good is kept as it is, what is wrong is refused by name."""

from typing import Any

import pytest
from pydantic import ValidationError

from serve_app.allowance import KINDS, Limits, understood

RATES = [kind.name for kind in KINDS if kind.period == "minute"]
QUOTAS = [kind.name for kind in KINDS if kind.period in ("day", "month") and not kind.is_money]
MONEY = [kind.name for kind in KINDS if kind.is_money]
PLAIN = [*QUOTAS, "concurrency"]


def fault(told: dict[str, Any]) -> str:
    """Return where the first fault lies, and what is said of it."""
    with pytest.raises(ValidationError) as caught:
        Limits.model_validate(told)
    first = caught.value.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ({}, ""),
        ({"requests_per_minute": 0}, "r 0 0 0"),
        ({"requests_per_minute": 60}, "r 60 60 0"),
        ({"requests_per_minute": 1_000_000}, "r 1000000 1000000 0"),
        ({"requests_per_minute": {"limit": 60}}, "r 60 60 0"),
        ({"requests_per_minute": {"limit": 60, "burst": 5}}, "r 60 5 0"),
        ({"requests_per_minute": {"limit": 5, "burst": 60}}, "r 5 60 0"),
        ({"tokens_per_minute": {"limit": 0}}, "t 0 0 0"),
        ({"tokens_per_day": {"limit": 10**12}}, "T 1000000000000 1000000000000 0"),
        ({"cost_per_day": 0.000_000_001}, "D 1 1 0"),
        ({"cost_per_day": 0.1}, "D 100000000 100000000 0"),
        ({"cost_per_month": {"limit": 1_000_000}}, "E 1000000000000000 1000000000000000 0"),
        ({"concurrency": 3, "shadow": {"concurrency": 1}}, "c 3 3 0 c 1 1 1"),
        ({"output_cap": 7}, "n 7 0 0"),
        ({"models": {"org/m:1": {"concurrency": 2}}}, "\norg/m:1\tc 2 2 0"),
        ({"models": {"m": {}}}, ""),
        ({"shadow": {}}, ""),
        ({"exempt": False}, ""),
        ({"exempt": True}, "x 0 0 0"),
    ],
)
def test_good_limits(told: dict[str, Any], text: str) -> None:
    """What steps read of them; and what is written down is read as the same again."""
    written = Limits.model_validate(told)
    assert written.text() == text
    assert Limits.model_validate(written.as_written()) == written


NEVER = [-1, 1.5, "60", True, False, [60], {}, {"limit": -1}, {"limit": "60"}, {"limit": None}]
NEVER += [float("nan"), float("inf"), 10**13, 10**400, {"limit": 10**13}, {"limit": 5, "per": 1}]


@pytest.mark.parametrize("told", NEVER, ids=repr)
@pytest.mark.parametrize("name", [*RATES, *PLAIN])
def test_a_limit_is_a_whole_number_in_its_range(name: str, told: Any) -> None:
    """Negative, fractional, overflowing or no number at all: refused, and the field is named."""
    for where, limits in {
        f"{name}": {name: told},
        f"shadow.{name}": {"shadow": {name: told}},
        f"models.m.{name}": {"models": {"m": {name: told}}},
    }.items():
        assert fault(limits).startswith(where)


@pytest.mark.parametrize("told", [one for one in NEVER if one != 1.5], ids=repr)
@pytest.mark.parametrize("name", MONEY)
def test_money_is_a_number_in_its_range(name: str, told: Any) -> None:
    """Money may be fractional, down to a nano."""
    assert fault({name: told}).startswith(name)
    assert fault({name: 0.000_000_000_1}).startswith(name)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"requests_per_minute": 1_000_001}, "requests_per_minute: must be a whole number from 0"),
        ({"requests_per_minute": {"limit": 0, "burst": 5}}, "requests_per_minute.burst: contradic"),
        ({"requests_per_minute": {"limit": 5, "burst": 0}}, "requests_per_minute.burst: must be"),
        ({"requests_per_minute": {"limit": 5, "burst": True}}, "requests_per_minute.burst: must"),
        ({"requests_per_minute": {"burst": 5}}, "requests_per_minute.limit: Field required"),
        ({"requests_per_day": {"limit": 5, "burst": 5}}, "requests_per_day.burst: is for limits"),
        ({"concurrency": {"limit": 5, "burst": 5}}, "concurrency.burst: is for limits a minute"),
        ({"cost_per_day": {"limit": 5, "burst": 5}}, "cost_per_day.burst: is for limits a minute"),
        ({"output_cap": 0}, "output_cap: must be a whole number from 1"),
        ({"output_cap": True}, "output_cap: must be a whole number from 1"),
        ({"requests_per_hour": 5}, "requests_per_hour: Extra inputs are not permitted"),
        ({"shadow": {"output_cap": 5}}, "shadow.output_cap: Extra inputs are not permitted"),
        ({"shadow": {"shadow": {}}}, "shadow.shadow: Extra inputs are not permitted"),
        ({"models": {"m": {"models": {}}}}, "models.m.models: Extra inputs are not permitted"),
        ({"models": {"m": {"exempt": True}}}, "models.m.exempt: Extra inputs are not permitted"),
        ({"models": {"a\tb": {}}}, "models.a\tb: is no model's name"),
        ({"models": {"a\nb": {}}}, "models.a\nb: is no model's name"),
        ({"models": {"": {}}}, "models.: is no model's name"),
        ({"models": {f"m{n}": {} for n in range(65)}}, "models: Value error, holds 65 models"),
        ({"models": []}, "models: Input should be a valid dictionary"),
        ({"exempt": 1}, "exempt: Input should be a valid boolean"),
        ({"exempt": True, "concurrency": 5}, "exempt: stands alone"),
        ({"exempt": True, "models": {"m": {"concurrency": 5}}}, "exempt: stands alone"),
    ],
)
def test_bad_limits(told: dict[str, Any], said: str) -> None:
    """Contradictory, unknown or misplaced: refused, at the member at fault, in plain words."""
    assert fault(told).startswith(said)


def test_what_is_not_ours_is_passed_over_where_others_write() -> None:
    """An issuer's claim may hold members of others; one that is ours and wrong is still refused."""
    told = {"requests_per_minute": 5, "color": "red", "models": {"m": {"concurrency": 1, "x": 2}}}
    assert understood(told).text() == "r 5 5 0\nm\tc 1 1 0"
    with pytest.raises(ValidationError):
        understood({**told, "requests_per_minute": -5})
