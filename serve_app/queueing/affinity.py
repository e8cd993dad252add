"""Which replica a conversation comes back to, the same at every gateway. Pure.

A conversation's next request begins with all of its last one, which the engine that read it may
still have in its cache. Replicas stand on a ring at many places each, and a prefix belongs to the
next one behind it: when a replica comes or goes, only its neighbours' prefixes move (Karger et al.,
STOC 1997). No gateway remembers where a conversation was, and the store keeps nothing of it.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Collection

PLACES = 32
"""Of each replica on the ring: so that their parts differ little."""


class Ring:
    """The replicas of one model by their places.

    Args:
        replicas: their ids.
    """

    def __init__(self, replicas: Collection[str] = ()) -> None:
        self.replicas = frozenset(replicas)
        ring = sorted((_place(f"{one}/{at}"), one) for one in replicas for at in range(PLACES))
        self._places = [place for place, _ in ring]
        self._owners = [owner for _, owner in ring]

    def near(self, prefix: str) -> str:
        """Return the replica that ``prefix`` belongs to; empty without a prefix or a choice."""
        if not prefix or len(self.replicas) <= 1:
            return ""
        return self._owners[bisect_right(self._places, _place(prefix)) % len(self._owners)]


def _place(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
