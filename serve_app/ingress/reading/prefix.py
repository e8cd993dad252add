"""Which conversation a request goes on with: known by how it begins. Pure.

Each request of a conversation repeats all that was said before, so its instructions and all up to
the user's first words stay the same; of a bare prompt, its head does.
"""

import hashlib
from typing import Any

from serve_app.ingress.reading.dialects import DIALECTS

BEGINNING_CHARS = 1_024
"""Read of each field; an engine's cache is worth little for a shorter one."""

MESSAGES = 8
"""Looked through for the user's first."""


def prefix_of(path: str, fields: dict[str, Any]) -> str:
    """Return what is the same for all requests of one conversation; empty if there is nothing.

    Args:
        path: the engine's path.
        fields: the object in the body.
    """
    dialect = DIALECTS.get(path)
    if dialect is None or not dialect.generates:
        return ""
    parts = [fields.get(name) for name in (*dialect.texts, *dialect.prompts)]
    parts += [_opening(fields.get(name)) for name in dialect.talks]
    told = "\0".join(_beginning(part) for part in parts)
    if not told.strip("\0"):
        return ""
    return hashlib.blake2b(told.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _opening(messages: Any) -> Any:
    """Return the messages up to the user's first."""
    if not isinstance(messages, list):
        return messages
    first = messages[:MESSAGES]
    for at, one in enumerate(first):
        if isinstance(one, dict) and one.get("role") == "user":
            return first[: at + 1]
    return first


def _beginning(value: Any) -> str:
    """Return the first characters of all strings under ``value``, token ids among them."""
    waiting, told = [value], ""
    for _ in range(BEGINNING_CHARS):
        if not waiting or len(told) >= BEGINNING_CHARS:
            break
        one = waiting.pop()
        if isinstance(one, str):
            told += one[:BEGINNING_CHARS]
        elif isinstance(one, int):
            told += f"{one} "
        elif isinstance(one, dict):
            waiting += [*one.values()][BEGINNING_CHARS - 1 :: -1]
        elif isinstance(one, list):
            waiting += one[BEGINNING_CHARS - 1 :: -1]
    return told[:BEGINNING_CHARS]
