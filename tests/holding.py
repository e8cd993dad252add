"""Callers, limits and scopes for tests of the hold, its settling and its renewal."""

from dataclasses import dataclass
from typing import Any

import msgspec
import redis
from redis.client import NEVER_DECODE

from serve_app.allowance import Limits
from serve_app.store import keys

RECORD, TENANT = keys.key_record("t", "k"), keys.tenant_record("t")


@dataclass(frozen=True)
class Claim:
    """Who somebody says to be."""

    tenant: str = "t"
    key_id: str = "k"
    bucket: str = "k"
    kind: str = "vouched"
    proof: str = ""
    user: str | None = None
    token_id: str = ""
    limits: str | None = None
    tenant_must_exist: bool = False


ANYONE = Claim()
KEY = Claim(kind="key", proof="s")
USER = Claim(kind="user", proof="1000", user="ada", token_id="j1")


def limits(**told: Any) -> str:
    """Return limits as the store keeps them."""
    return Limits.model_validate(told).text()


def scopes_of(*whose: str) -> list[tuple[str, str]]:
    """Return the names of what the four scopes of a request used and what they hold."""
    names = keys.scopes(*(whose or ("t", "k", "m")))
    return list(zip(names[::2], names[1::2], strict=True))


def state(client: "redis.Redis[Any]", name: str) -> dict[str, int]:
    """Return what a scope's state says of each field: what a rate owes, what a window used."""
    text = client.execute_command("GET", name, **{NEVER_DECODE: True})
    _, _, _, *figures = msgspec.msgpack.decode(text) if text else [0] * 3
    return {
        name: int(one + (two if limit else 0))
        for name, one, two, _, _, limit in zip(*[iter(figures)] * 6, strict=True)
    }


def everything(client: "redis.Redis[Any]") -> dict[str, Any]:
    """Return all that the store holds, key by key; what is gone before it is read is None."""
    read = {
        "hash": client.hgetall,
        "zset": lambda name: client.zrange(name, 0, -1, withscores=True),
        "set": client.smembers,
        "list": lambda name: client.lrange(name, 0, -1),
        "string": client.dump,
        "none": lambda _: None,
    }
    return {name: read[client.type(name)](name) for name in client.keys("*")}
