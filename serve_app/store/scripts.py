"""Our Lua files, read once at import, and the one way to run them.

A file's header is its contract: the counts of KEYS and ARGV written there are checked on every
call, so that a header cannot fall out of step with its callers.
"""

import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

_REF = re.compile(r"\b(KEYS|ARGV)\[(\d+)\]")
_INCLUDE = re.compile(r"^--@include (\w+)$", re.MULTILINE)
_LUA = files("serve_app.store") / "lua"


def whole(text: str) -> str:
    """Return the text of a Lua file with the shared files it asks for put in."""
    return _INCLUDE.sub(lambda ask: (_LUA / "shared" / f"{ask[1]}.lua").read_text(), text)


TEXTS = {
    path.name.removesuffix(".lua"): whole(path.read_text())
    for path in _LUA.iterdir()
    if path.name.endswith(".lua")
}
_SHAS = {name: hashlib.sha1(text.encode()).hexdigest() for name, text in TEXTS.items()}


def header_counts(text: str) -> tuple[int, int]:
    """Return how many KEYS and ARGV the header of ``text`` names."""
    refs = _REF.findall(text.partition("]]")[0])
    keys = [int(n) for kind, n in refs if kind == "KEYS"]
    args = [int(n) for kind, n in refs if kind == "ARGV"]
    return max(keys, default=0), max(args, default=0)


_COUNTS = {name: header_counts(text) for name, text in TEXTS.items()}


def _counted(name: str, keys: list[str], args: list[str | int | float]) -> None:
    """Return if the counts are those of the step's header."""
    if (len(keys), len(args)) != _COUNTS[name]:
        raise TypeError(f"{name} takes {_COUNTS[name]} keys and args, got {len(keys), len(args)}")


async def run(redis: Redis, name: str, keys: list[str], args: list[str | int | float]) -> Any:
    """Run one step and return its reply; the script is sent whole only when the server lacks it.

    Raises:
        TypeError: the counts are not those of its header; nothing was sent.
    """
    _counted(name, keys, args)
    try:
        return await redis.evalsha(_SHAS[name], len(keys), *keys, *args)
    except NoScriptError:
        return await redis.eval(TEXTS[name], len(keys), *keys, *args)


async def run_many(
    redis: Redis, name: str, calls: Sequence[tuple[list[str], list[str | int | float]]]
) -> list[Any]:
    """Run one step many times, in one round trip; the script is sent ahead.

    Raises:
        TypeError: the counts are not those of its header; nothing was sent.
    """
    for keys, args in calls:
        _counted(name, keys, args)
    async with redis.pipeline(transaction=False) as pipe:
        pipe.script_load(TEXTS[name])
        for keys, args in calls:
            pipe.evalsha(_SHAS[name], len(keys), *keys, *args)
        _, *replies = await pipe.execute()
    return replies
