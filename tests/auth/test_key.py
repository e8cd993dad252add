"""The key format."""

import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.auth import Key, MadeKey, make, parse
from serve_app.errors import InvalidKey

FIRST = string.ascii_lowercase + string.digits
TENANTS = st.builds(
    str.__add__, st.sampled_from(FIRST), st.text(FIRST + "_-", max_size=62)
) | st.sampled_from(["a", "a-b", "a--", "0_", "sg-sg", "x" * 63])
MADE = make("acme-1").text


@given(tenant=TENANTS)
def test_what_is_made_parses(tenant: str) -> None:
    """A key says which tenant and id it was made for, whatever the tenant is called."""
    made = make(tenant)
    assert parse(made.text) == made.key
    assert made.key.tenant == tenant
    assert made.text.startswith(f"sg-{tenant}-{made.key.key_id}-")


def test_no_two_keys_are_alike() -> None:
    """Id and secret are drawn anew for every key."""
    made = [make("default").key for _ in range(50)]
    assert len({key.key_id for key in made}) == len({key.sha256 for key in made}) == 50


@pytest.mark.parametrize("at", range(len(MADE)), ids=lambda at: f"{at}")
def test_one_wrong_character_is_noticed(at: int) -> None:
    """Every change of one character is refused by the shape or the checksum, without a store."""
    for other in string.ascii_letters + string.digits + "-_ ü\n":
        if other != MADE[at]:
            with pytest.raises(InvalidKey):
                parse(MADE[:at] + other + MADE[at + 1 :])


@given(at=st.integers(0, len(MADE) - 1), by=st.text(max_size=3), less=st.integers(0, 3))
def test_a_badly_copied_key_is_noticed(at: int, by: str, less: int) -> None:
    """Characters lost or added anywhere are refused; only the key itself passes."""
    text = MADE[:at] + by + MADE[at + less :]
    if text == MADE:
        assert parse(text)
    else:
        with pytest.raises(InvalidKey):
            parse(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("sg-", id="prefix alone"),
        pytest.param("sk-" + MADE[3:], id="another maker's prefix"),
        pytest.param(MADE.upper(), id="shouted"),
        pytest.param(MADE + "\n", id="with its line end"),
        pytest.param(" " + MADE, id="with a space"),
        pytest.param("sg-Acme" + MADE[7:], id="tenant in capitals"),
        pytest.param("sg--a" + MADE[5:], id="tenant begins with a dash"),
        pytest.param("sg-" + "x" * 64 + MADE[9:], id="tenant too long"),
        pytest.param(MADE.replace("acme", "\N{CYRILLIC SMALL LETTER A}cme"), id="Cyrillic a"),
        pytest.param(MADE[:-1] + "²", id="a digit that is none"),
        pytest.param("\ud800" * 80, id="lone surrogates"),
    ],
)
def test_what_is_no_key(text: str) -> None:
    """All that is not a key is refused in the same words."""
    with pytest.raises(InvalidKey, match="it begins with 'sg-'"):
        parse(text)


def test_a_huge_text_is_refused_at_once() -> None:
    """100 000 characters cost a millisecond at most: nothing in the shape goes back and forth."""
    texts = ["sg-" + "a" * 100_000, "sg-" + "-a" * 50_000, "x" * 100_000]
    began_s = time.perf_counter()
    for text in texts * 10:
        with pytest.raises(InvalidKey):
            parse(text)
    assert time.perf_counter() - began_s < 0.030 * 5  # five times: the machine may be busy


def test_a_key_is_not_shown_by_accident() -> None:
    """Neither text nor hash is in what a log or a traceback would show."""
    made = make("default")
    for shown in (repr(made), str(made), repr(made.key), repr([made])):
        assert made.text not in shown
        assert made.text[-49:-6] not in shown
        assert made.key.sha256 not in shown
    assert repr(MadeKey(Key("t", "k", "s"), "x")) == "MadeKey(key=Key(tenant='t', key_id='k'))"
