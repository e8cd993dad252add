"""The adapters that were loaded while the gate runs: what every replica of a model is to have."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.store import keys
from serve_app.store.connection import Store

MOST = 256
"""Adapters that a model may have beside those of the settings."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """One adapter.

    Attributes:
        name: the name that callers ask for.
        source: where an engine finds it.
        offered: whether callers may ask for it: each replica there was has loaded it.
    """

    name: str
    source: str
    offered: bool = False


async def listed(store: Store, models: Sequence[str]) -> dict[str, list[Loaded]]:
    """Return the adapters of each model, by name.

    Raises:
        StoreUnavailable: nobody can tell.
    """
    found = await store.hashes([keys.adapters(model) for model in models])
    return {
        model: [Loaded(name, *json.loads(text)) for name, text in sorted(fields.items())]
        for model, fields in zip(models, found, strict=True)
    }


async def change(store: Store, model: str, before: Loaded | None, after: Loaded | None) -> int:
    """Put, change or take out an adapter of ``model``; return 1 if done, 0 if it has changed.

    There being :data:`MOST` already, -1.

    Raises:
        StoreUnavailable: it may or may not have happened; it may be sent again.
    """
    one = after or before
    assert one is not None, "something is to change"
    args: list[str | int | float] = [one.name, _text(before), _text(after), MOST]
    return int(await store.run("adapter_change", [keys.adapters(model)], args))


def _text(one: Loaded | None) -> str:
    return json.dumps([one.source, one.offered]) if one else ""
