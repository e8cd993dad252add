"""What a tenant's requests to a model teach: bytes per token, and how long replies get. Pure.

bytes per token   an EWMA of tokens per byte, each request weighing as its text does, so that what
                  is estimated sums up to what is used; no request counts for more than double or
                  less than half of what was expected
95th percentile   a histogram of the replies' tokens with two buckets an octave, halved when it is
                  full, so that it forgets; told as the upper edge of its bucket

The twin is ``store/lua/shared/learning.lua``: doubles on both sides, in the same order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

PACE = 0.1
"""How much of the way a request with ``FULL_BYTES`` of text moves the estimate."""

FULL_BYTES = 1_024
BYTES_PER_TOKEN_MIN, BYTES_PER_TOKEN_MAX = 0.25, 16.0
REPLIES_MIN = 20
"""Replies before the percentile is learned from them; fewer say too little of the longest."""

REPLIES_MAX = 200
"""Replies in a full histogram: enough for a 95th percentile, few enough to follow a change."""

EDGES: tuple[int, ...] = (
    1,
    *(edge for at in range(1, 20) for edge in (2**at, 3 * 2 ** (at - 1))),
    2**20,
)
"""Tokens at most in each bucket: 1, 2, 3, 4, 6, 8 … 2^20; the last one holds all above, too."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What is known of a tenant's requests to a model; made without arguments, the prior.

    Attributes:
        bytes_per_token: of prompt text.
        p95: output tokens that 95 of 100 replies do not exceed.
        replies: how many replies fell into each bucket, up to the highest one used.
    """

    bytes_per_token: float = 4.0
    p95: int = 256
    replies: tuple[int, ...] = ()

    def input_tokens(self, text_bytes: int, fixed_tokens: int) -> int:
        """Return the estimate of a prompt."""
        return fixed_tokens + math.ceil(text_bytes / self.bytes_per_token)

    def learn(self, text_bytes: int, text_tokens: int, output_tokens: float) -> "Learned":
        """Return what is known after one more request.

        Args:
            text_bytes: bytes of its prompt text; 0 teaches nothing.
            text_tokens: tokens that they were, the fixed ones taken off; 0 or less teaches nothing.
            output_tokens: tokens of a reply, on average; less than 0 if none was generated.
        """
        ratio = _moved(self.bytes_per_token, text_bytes, text_tokens)
        if not output_tokens >= 0:
            return Learned(ratio, self.p95, self.replies)
        replies = _counted(self.replies, output_tokens)
        return Learned(ratio, _percentile(replies, self.p95), replies)


def _moved(bytes_per_token: float, text_bytes: int, text_tokens: int) -> float:
    """Return bytes per token after one more prompt."""
    if not (text_bytes > 0 and text_tokens > 0):
        return bytes_per_token
    expected = 1 / bytes_per_token
    actual = min(max(text_tokens / text_bytes, expected / 2), expected * 2)
    moved = expected + PACE * min(1, text_bytes / FULL_BYTES) * (actual - expected)
    return min(max(1 / moved, BYTES_PER_TOKEN_MIN), BYTES_PER_TOKEN_MAX)


def _counted(replies: Sequence[int], output_tokens: float) -> tuple[int, ...]:
    """Return the histogram with one more reply; one that was full is halved before."""
    counts = [*replies]
    if sum(counts) >= REPLIES_MAX:
        counts = [count // 2 for count in counts]
    bucket = 0
    while bucket < len(EDGES) - 1 and output_tokens > EDGES[bucket]:
        bucket += 1
    counts += [0] * (bucket + 1 - len(counts))
    counts[bucket] += 1
    return tuple(counts)


def _percentile(replies: Sequence[int], prior: int) -> int:
    """Return the edge that 95 of 100 replies do not exceed; ``prior`` while they are few."""
    total, below, bucket = sum(replies), 0, -1
    if total < REPLIES_MIN:
        return prior
    while below * 20 < total * 19:
        bucket += 1
        below += replies[bucket]
    return EDGES[bucket]
