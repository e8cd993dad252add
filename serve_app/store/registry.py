"""The registry: where replicas say that they live, how to reach them and what they offer."""

import json
from dataclasses import dataclass, field
from typing import Self

from serve_app.store import keys
from serve_app.store.connection import Store

KEY_HEADER = "x-sluicegate-internal-key"
"""The header in which an engine wants the key of its :class:`Address`."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where an engine listens, and the key its guard wants."""

    host: str
    port: int
    key: str = field(repr=False)

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end."""
        return f"http://{self.host}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """The headers that open the engine's guard."""
        return {KEY_HEADER: self.key}

    def to_json(self) -> str:
        """Return the address as the registry keeps it."""
        return json.dumps([self.host, self.port, self.key])

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the address that :meth:`to_json` wrote."""
        return cls(*json.loads(text))


async def beat(store: Store, model: str, replica: str, seats: int, address: Address) -> int:
    """Register ``replica`` or renew it; return how many seats it lends now.

    Args:
        store: where the line lives.
        model: whose line.
        replica: its id.
        seats: requests it offers to run at once; 0 lends no more and keeps those lent.
        address: how to reach it.

    Raises:
        StoreUnavailable: it is forgotten after two seconds of silence.
    """
    lent, _ = await store.run("line_beat", keys.line(model), [replica, seats, address.to_json()])
    return int(lent)


async def note_failure(store: Store, model: str, release: str, why: str) -> None:
    """Note that a start of ``model`` failed, until one succeeds.

    Args:
        store: where the line lives.
        model: whose.
        release: the deployment that it belongs to; to a later one it means nothing.
        why: one line, for callers.

    Raises:
        StoreUnavailable: nobody will know but Serve.
    """
    await store.keep(keys.failed(model), f"{release} {why}")


async def clear_failure(store: Store, model: str) -> None:
    """Forget that a start of ``model`` failed: another did not.

    Raises:
        StoreUnavailable: the note stays; it counts only while there is no replica.
    """
    await store.remove(keys.failed(model))


async def failure(store: Store, model: str, release: str) -> str:
    """Return why the last start of ``model`` in ``release`` failed; empty if none did.

    Raises:
        StoreUnavailable: it cannot be told.
    """
    whose, _, why = (await store.text(keys.failed(model)) or "").partition(" ")
    return why if whose == release else ""


async def withdraw(store: Store, model: str, replica: str) -> None:
    """Take ``replica`` out at once, with the seats it lent.

    Raises:
        StoreUnavailable: it is forgotten after two seconds of silence.
    """
    await store.run("line_withdraw", keys.line(model), [replica])
