"""The deterministic text: the same request and seed give the same reply, one word per token."""

import hashlib
import random
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

BYTES_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 4
"""What a chat template adds to each message: role and separators."""

NATURAL_TOKENS = range(8, 129)
"""Lengths of a chat reply that nobody capped."""

# fmt: off
WORDS = (
    "amber", "basin", "canal", "delta", "eddy", "float", "gauge", "harbor",
    "inlet", "jetty", "keel", "lock", "marsh", "notch", "oxbow", "pier",
    "quay", "rapid", "sluice", "tide", "upland", "valve", "weir", "yard",
    "zephyr", "bank", "crest", "dike", "ebb", "ford", "gate", "head",
    "isle",
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Reply:
    """What will be said.

    Attributes:
        pieces: the text of each token; a stop string leaves the last one short.
        finish_reason: vLLM's word, ``length`` or ``stop``.
        stop_reason: the stop string that ended it.
    """

    pieces: tuple[str, ...]
    finish_reason: str
    stop_reason: str | None = None


def count_tokens(text: str) -> int:
    """Return the tokens of a text: one for every four bytes begun, at least one."""
    return max(1, -(-len(text.encode()) // BYTES_PER_TOKEN))


@lru_cache(maxsize=1_024)
def compose(prompt: bytes, seed: int | None, cap: int | None, room: int) -> Reply:
    """Return the reply to ``prompt``, before any stop string.

    Args:
        prompt: whatever identifies the prompt.
        seed: the request's seed; another one gives another text of the same length.
        cap: exact number of tokens; None lets the reply end by itself.
        room: tokens that the context leaves; only an uncapped reply yields to it.
    """
    natural = random.Random(hashlib.sha256(prompt).digest()).choice(NATURAL_TOKENS)
    tokens = min(natural, room) if cap is None else cap
    by_itself = cap is None and tokens == natural
    dice = random.Random(hashlib.sha256(prompt + str(seed).encode()).digest())
    words = dice.choices(WORDS, k=tokens)
    return Reply((words[0], *(f" {word}" for word in words[1:])), "stop" if by_itself else "length")


def cut(reply: Reply, stops: list[str]) -> Reply:
    """Return the reply ended by the first of ``stops`` in it, which is left out of the text.

    The token that completes the stop string is generated and counted, as in vLLM.
    """
    text = "".join(reply.pieces)
    found = [(at + len(stop), stop) for stop in stops if stop and (at := text.find(stop)) >= 0]
    if not found:
        return reply
    end, stop = min(found)
    keep = end - len(stop)
    starts = accumulate(map(len, reply.pieces), initial=0)
    spoken = zip(starts, reply.pieces, strict=False)
    pieces = tuple(piece[: max(0, keep - at)] for at, piece in spoken if at < end)
    return Reply(pieces, "stop", stop)
