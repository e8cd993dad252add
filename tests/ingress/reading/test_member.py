"""One member of a JSON object, read as it flows by."""

import json
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.ingress.reading.member import MAX_NAME_BYTES, MAX_VALUE_BYTES, Member

TOLD = {"prompt_tokens": 11, "completion_tokens": 7}
NAMES = st.sampled_from(["usage", 'x"usage', "\\", "usage\\", "a", "", "{", "]"])
VALUES = st.recursive(
    st.none() | st.integers() | st.just(TOLD) | st.text('"\\{}[]:,usage ', max_size=20) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=4,
)


def found(text: bytes, places: list[int]) -> Any:
    """What is read of ``text``, cut at ``places``."""
    member = Member("usage")
    for begin, end in pairwise([0, *sorted(min(at, len(text)) for at in places), len(text)]):
        member.feed(text[begin:end])
    return member.value


@settings(suppress_health_check=[HealthCheck.too_slow])  # objects in objects take their time
@given(
    fields=st.dictionaries(NAMES, VALUES, max_size=5),
    places=st.lists(st.integers(0, 300), max_size=9),
    indent=st.none() | st.integers(0, 2),
)
def test_what_a_parser_finds_is_found(
    fields: dict[str, Any], places: list[int], indent: int | None
) -> None:
    """However the text is cut: the member at the top, and no other of its name."""
    told = fields.get("usage")
    text = json.dumps(fields, indent=indent).encode()
    assert found(text, places) == (told if isinstance(told, dict) else None)


@given(
    size=st.sampled_from([0, 1, MAX_NAME_BYTES - 1, MAX_NAME_BYTES, 2 * MAX_NAME_BYTES]),
    end=st.sampled_from(["", "\\", '"', '\\"usage":{}', "{"]),
    places=st.lists(st.integers(0, 700), max_size=9),
)
def test_a_long_string_hides_nothing(size: int, end: str, places: list[int]) -> None:
    """It is not kept, and what stands behind it is found."""
    text = json.dumps({"a": ["x" * size + end], "usage": TOLD, "b": end * 200}).encode()
    assert found(text, places) == TOLD


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"results":[{"usage":{"a":1}}],"usage":{"a":2},"c":[{"usage":{"a":3}}]}', {"a": 2}),
        (b'{"usage":{"a":1},"usage":{"a":2}}', {"a": 2}),
        (b'{"usage":{"a":"' + b"x" * MAX_VALUE_BYTES + b'"}}', None),
        (b'{"usage":{"a":1', None),
        (b'["usage":{"a":1}]', {"a": 1}),
        (b'}}}{"usage":{"a":1}}', None),
    ],
)
def test_which_counts(text: bytes, value: Any) -> None:
    """The last at the top; one that has no end, or a longer value than any usage, is none."""
    assert found(text, [*range(0, len(text), 7)]) == value


@pytest.mark.parametrize(
    "piece", [b"[1,2],", b'"' + b"x" * 90 + b'",', b"xxxxxx", b"\\", b'"usage":']
)
def test_twice_as_much_takes_about_twice_as_long(piece: bytes) -> None:
    """In pieces of 16 KB, whatever they hold; it is read on the event loop."""

    def took_s(size: int) -> float:
        text = b'{"a":[' + piece * (size // len(piece))
        member, began = Member("usage"), time.process_time()
        for at in range(0, len(text), 16_384):
            member.feed(text[at : at + 16_384])
        return time.process_time() - began

    took_s(100_000)
    assert took_s(4_000_000) < 40 * took_s(400_000) + 0.05
