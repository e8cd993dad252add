"""What the store keeps of a key, a tenant or a user: a data class, written as JSON."""

import json
from dataclasses import asdict, fields
from typing import Any, Self

from serve_app.auth.grant import rfc3339


class Record:
    """Base of such data classes; a time ends in ``_ms`` and is ms since the epoch."""

    __slots__ = ()

    @classmethod
    def from_json(cls, attributes: str) -> Self:
        """Return the record that :meth:`to_json` wrote; a newer gateway may have written more."""
        known = {one.name for one in fields(cls)}  # type: ignore[arg-type]
        told = json.loads(attributes)
        return cls(**{name: value for name, value in told.items() if name in known})

    def to_json(self) -> str:
        """Return the record as the store keeps it."""
        return json.dumps(asdict(self), separators=(",", ":"))  # type: ignore[call-overload]

    def public(self) -> dict[str, Any]:
        """Return the record as the admin API shows it: times in RFC 3339, names as in requests."""
        shown: dict[str, Any] = {}
        for name, value in asdict(self).items():  # type: ignore[call-overload]
            if name.endswith("_ms"):
                shown[name.removesuffix("ms") + "at"] = rfc3339(value)
            else:
                shown[name.rstrip("_")] = value
        return shown
