"""Names in the order of their keys do what a sorted dictionary does."""

from hypothesis import given
from hypothesis import strategies as st

from serve_app.queueing.order.ordered import Counted

MOVES = st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | st.integers(0, 9)), max_size=80)


@given(MOVES)
def test_a_line_of_names_is_a_sorted_dictionary(moves: list[tuple[str, int | None]]) -> None:
    """Whatever is put, moved and dropped: the same names, the same first, the same count."""
    names, plain = Counted[str](), dict[str, int]()
    for name, key in moves:
        if key is None:
            names.drop(name)
            plain.pop(name, None)
        else:
            names.put(name, key)
            plain[name] = key
        rows = sorted((key, name) for name, key in plain.items())
        assert names.first() == (rows[0] if rows else None)
        assert list(names) == [name for _, name in rows]
        assert [names.up_to(key) for key in range(10)] == [
            sum(one <= key for one in plain.values()) for key in range(10)
        ]
