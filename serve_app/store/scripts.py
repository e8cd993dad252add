"""Our Lua files, read once at import, and the one way to run them.

A file's header is its contract: the counts of KEYS and ARGV written there are checked on every
call, so that a header cannot fall out of step with its callers.
"""

import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

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


async def run(redis: Any, name: str, keys: list[str], args: list[str | int | float]) -> Any:
    """Run one step and return its reply; the script is sent whole only when the server lacks it.

    Raises:
        TypeError: the counts are not those of its header; nothing was sent.
    """
    _counted(name, keys, args)
    try:
        return await redis.evalsha(_SHAS[name], len(keys), *keys, *args)
    except NoScriptError:
        return await redis.eval(TEXTS[name], len(keys), *keys, *args)


Calls = Sequence[tuple[list[str], list[str | int | float]]]
"""Keys and arguments of several calls of one step."""


async def run_many(redis: Any, name: str, calls: Calls) -> list[Any]:
    """Run one step many times, in one round trip to each server that has the keys.

    Raises:
        TypeError: the counts are not those of its header; nothing was sent.
    """
    replies = await run_each(redis, name, calls)
    must_be_answers(replies)
    return replies


async def run_each(redis: Any, name: str, calls: Calls) -> list[Any]:
    """Run one step many times; the reply to each, an exception where the server refused it.

    The script is sent ahead of another trip to each server that lacks it, with one of the calls.

    Raises:
        TypeError: the counts are not those of its header; nothing was sent.
    """
    for keys, args in calls:
        _counted(name, keys, args)
    replies = await _piped(redis, name, calls)
    while lacking := [at for at, one in enumerate(replies) if isinstance(one, NoScriptError)]:
        first, *rest = lacking
        try:
            replies[first] = await run(redis, name, *calls[first])
        except ResponseError as err:
            replies[first] = err
        for at, reply in zip(
            rest, await _piped(redis, name, [calls[at] for at in rest]), strict=True
        ):
            replies[at] = reply
    return replies


def must_be_answers(replies: Sequence[Any]) -> None:
    """Return if each is an answer; raise the first exception otherwise."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply


async def _piped(redis: Any, name: str, calls: Calls) -> list[Any]:
    """Return the reply to each call, an exception where it failed."""
    async with redis.pipeline(transaction=False) as pipe:
        for keys, args in calls:
            pipe.execute_command("EVALSHA", _SHAS[name], len(keys), *keys, *args)
        replies: list[Any] = await pipe.execute(raise_on_error=False)
    return replies
