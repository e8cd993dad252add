"""What a reply tells of limits, and in which headers."""

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serve_app.allowance import KINDS
from serve_app.errors import ExceedsLimit, RateLimited
from serve_app.ingress.docs.described import HEADERS
from serve_app.ingress.told import (
    ENGINE_HEADERS,
    EXPOSED,
    LIMIT_HEADERS,
    limit_headers,
    over_limit,
    shown,
    span,
)
from serve_app.limits import Hold, Said, State

KIND = {kind.name: kind for kind in KINDS}
CLAIM: Any = None
README = (Path(__file__).parents[2] / "README.md").read_text()


def said(name: str, **more: Any) -> Said:
    whole = Said("key", KIND[name], False, 60, 50, 40, 0, 10_000_000)
    return replace(whole, **more)


def held(*bound: Said) -> Hold:
    refusing = next((one for one in bound if one.wait_us and not one.shadow), None)
    return Hold(CLAIM, State.KNOWN, now_us=10**15, said=bound, refusing=refusing)


def test_every_header_of_limits_stands_in_the_one_list() -> None:
    """Whatever is told is on the list, and a page of another origin may read all of it."""
    shadow = said("requests_per_day", shadow=True, wait_us=1)
    told = limit_headers(held(said("requests_per_minute"), said("tokens_per_day"), shadow))
    assert set(told) == set(LIMIT_HEADERS)
    assert set(LIMIT_HEADERS) < set(ENGINE_HEADERS) < set(EXPOSED)


def test_every_header_is_described() -> None:
    """In the document, and in a line of the README."""
    assert set(EXPOSED) <= set(HEADERS)
    told = README.partition("Replies carry ")[2].partition("\n\n")[0]
    names = {name for each in re.findall("`([^`]+)`", told) for name in spelt(each)}
    assert names == {*ENGINE_HEADERS, "x-request-id", "request-id"}


def spelt(name: str) -> list[str]:
    """``a-{b,c}`` as ``a-b`` and ``a-c``."""
    parts = [part.split(",") for part in re.split("[{}]", name)]
    return ["".join(one) for one in itertools.product(*parts)]


def test_money_is_in_no_header_of_the_ietfs() -> None:
    """Their units are whole and the client's; a limit on money was told in nanos."""
    money = said("cost_per_day", limit=5 * 10**9, burst=5 * 10**9, left=0, wait_us=9)
    assert limit_headers(held(money)) == {}
    told = limit_headers(held(said("requests_per_minute"), money))
    assert "cost" not in str(told)
    assert told["ratelimit"] == '"key:requests_per_minute";r=40;t=10'


def test_a_limit_of_nothing_is_never_whole() -> None:
    """``whoami`` tells null, not the present."""
    never = shown(held(), said("requests_per_day", limit=0, burst=0, left=0, reset_us=0))
    assert (never["reset"], never["resets_at"]) == (None, None)
    soon = shown(held(), said("requests_per_day"))
    assert (soon["reset"], soon["resets_at"]) == ("10s", "2001-09-09T01:46:50Z")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("input_tokens_per_minute", "; the prompt has at least 120, and 50 fit; make"),
        ("tokens_per_minute", "; the prompt has at least 120, and 50 fit, those of the reply"),
        ("output_tokens_per_minute", ", which this request alone exceeds; make"),
    ],
)
def test_what_never_fits_is_told_by_how_much(name: str, says: str) -> None:
    """What the prompt has at least against what fits, where the prompt is at fault."""
    never = said(name, wait_us=-1)
    err = over_limit(held(never), never, 120)
    assert isinstance(err, ExceedsLimit)
    assert says in str(err)


@pytest.mark.parametrize(
    ("wait_us", "says"), [(1_417_000, "2s"), (850_001, "851ms"), (3_725_000_000, "1h2m5s")]
)
def test_a_wait_is_told_as_in_the_headers(wait_us: int, says: str) -> None:
    """Rounded up, and never like 3.73e+03 s."""
    later = said("requests_per_minute", wait_us=wait_us)
    err = over_limit(held(later), later, 1)
    assert isinstance(err, RateLimited)
    assert str(err).endswith(f"passes in {says}.")
    assert span(wait_us) == says
