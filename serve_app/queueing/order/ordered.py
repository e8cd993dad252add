"""Names in the order of their keys: put, drop, and which is first. Pure.

It is the twin of a sorted set in the store. A heap of which entries may be stale: what was dropped
or has another key now is skipped when it comes up, so that each move costs a logarithm.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Any, Generic, TypeVar

Name = TypeVar("Name")
SLACK = 16
"""Stale entries that are not worth tidying up."""


class Ordered(Generic[Name]):
    """Names, each with one key; equal keys go by name."""

    __slots__ = ("_heap", "_keys")

    def __init__(self) -> None:
        self._keys: dict[Name, Any] = {}
        self._heap: list[tuple[Any, Name]] = []

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Name]:
        """Yield the names in their order; for tests and for what nobody waits for."""
        return iter(sorted(self._keys, key=lambda name: (self._keys[name], name)))

    def __contains__(self, name: Name) -> bool:
        return name in self._keys

    def put(self, name: Name, key: Any) -> None:
        """Give ``name`` its place, another one if it had one."""
        if self._keys.get(name) == key:
            return
        self._keys[name] = key
        heappush(self._heap, (key, name))
        if len(self._heap) > 2 * len(self._keys) + SLACK:
            self._heap = [(key, name) for name, key in self._keys.items()]
            heapify(self._heap)

    def drop(self, name: Name) -> None:
        """Take ``name`` out, if it is there."""
        self._keys.pop(name, None)

    def first(self) -> tuple[Any, Name] | None:
        """Return the first key and its name; None if there is none."""
        heap, keys = self._heap, self._keys
        while heap:
            key, name = heap[0]
            if name in keys and keys[name] == key:
                return heap[0]
            heappop(heap)
        return None

    def key(self, name: Name) -> Any:
        """Return the key of ``name``; None if it is not there."""
        return self._keys.get(name)


class Counted(Ordered[Name]):
    """Names of which it is often asked how many have a low key: the keys also stand in a row."""

    __slots__ = ("_row",)

    def __init__(self) -> None:
        super().__init__()
        self._row: list[Any] = []

    def put(self, name: Name, key: Any) -> None:
        """Give ``name`` its place, another one if it had one."""
        self.drop(name)
        super().put(name, key)
        insort(self._row, key)

    def drop(self, name: Name) -> None:
        """Take ``name`` out, if it is there."""
        if name in self:
            del self._row[bisect_left(self._row, self.key(name))]
        super().drop(name)

    def up_to(self, key: Any) -> int:
        """Return how many keys are at most ``key``."""
        return bisect_right(self._row, key)
