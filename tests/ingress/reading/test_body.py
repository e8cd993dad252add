"""The JSON object in a body (CONTRACT §3), and a credential taken out of it (§1)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import InvalidRequest
from serve_app.ingress.reading.body import json_object, without

LEAVES = st.none() | st.booleans() | st.integers() | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(st.dictionaries(st.text(), VALUES))
def test_without_takes_one_member_out(fields: dict[str, object]) -> None:
    """All others stay as they were, in their order; the text is gone from the bytes."""
    whole = {**fields, "api_key": "s3cret-sg", "last": 1}
    pretty = json.dumps(whole, indent=2).encode()
    for told in (json.dumps(whole).encode(), pretty, b" " + pretty + b"\n"):
        raw = without(told, "api_key")
        assert b"s3cret-sg" not in raw
        expected = {name: value for name, value in whole.items() if name != "api_key"}
        assert list(json.loads(raw).items()) == list(expected.items())


@pytest.mark.parametrize(
    "raw",
    [
        b'{"api_key": "a", "api_key": "b"}',
        b'{"api_key": "a", "api_key": "a"}',
        b'{"api\\u005fkey": "a", "api_key": "b"}',
    ],
)
def test_a_credential_twice_is_refused(raw: bytes) -> None:
    """Which of them is meant, nobody guesses; the same one twice is a mistake, too."""
    with pytest.raises(InvalidRequest, match="twice") as told:
        without(raw, "api_key")
    assert told.value.param == "api_key"


def test_a_member_of_that_name_further_in_stays() -> None:
    """Only the outermost object's is the credential."""
    raw = without(b'{"api_key": "k", "x": {"api_key": "mine"}}', "api_key")
    assert json_object(raw) == {"x": {"api_key": "mine"}}


@pytest.mark.parametrize(
    ("raw", "left"),
    [
        (b'{"api_key": "k"}', b"{}"),
        (b'{"a": 1e400, "api_key": "k"}', b'{"a": 1e400}'),
        (b'{"api_key":"k","a":1.50}', b'{"a":1.50}'),
        (b'{ "a" : "\\ud800" , "api_key" : "k" , "b" : 1 }', b'{ "a" : "\\ud800" , "b" : 1 }'),
        ('{"ä": "ö", "api_key": "k"}'.encode(), '{"ä": "ö"}'.encode()),
        (b'{"a": 1, "a": 2, "api\\u005fkey": "k"}', b'{"a": 1, "a": 2}'),
    ],
)
def test_every_other_byte_stays(raw: bytes, left: bytes) -> None:
    """Numbers keep their spelling, and what was there twice is there twice."""
    assert without(raw, "api_key").replace(b" ", b"") == left.replace(b" ", b"")


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b'{"max_tokens": ' + b"9" * 5_000 + b"}", "more than 4300 digits"),
        (b"\x1f\x8b\x08\x00", "byte 1 is not UTF-8; a compressed body is not read"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a" 1}', "Expecting ':' delimiter"),
    ],
)
def test_a_mistake_is_told_in_our_words(raw: bytes, told: str) -> None:
    """What the parser of Python says of itself helps nobody."""
    with pytest.raises(InvalidRequest, match=told):
        json_object(raw)
