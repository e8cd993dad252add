"""The JSON object in a body (CONTRACT §3), and a credential taken out of it (§1)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import InvalidRequest
from serve_app.ingress.body import json_object, without

LEAVES = st.none() | st.booleans() | st.integers() | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(st.dictionaries(st.text(), VALUES))
def test_without_takes_one_member_out(fields: dict[str, object]) -> None:
    """All others stay as they were, in their order; the text is gone from the bytes."""
    whole = {**fields, "api_key": "s3cret-sg", "last": 1}
    raw, left = without(json.dumps(whole).encode(), "api_key")
    expected = {name: value for name, value in whole.items() if name != "api_key"}
    assert left == expected
    assert json.loads(raw) == expected
    assert list(json.loads(raw)) == list(expected)


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
    raw, left = without(b'{"api_key": "k", "x": {"api_key": "mine"}}', "api_key")
    assert left == {"x": {"api_key": "mine"}}
    assert json_object(raw) == left
