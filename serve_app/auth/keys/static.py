"""The keys that the environment holds, for the smallest set-up."""

import hashlib
import hmac
from collections.abc import Iterable

from serve_app.auth.caller import CALLER_PERMISSIONS, DEFAULT_TENANT, PERMISSIONS, Caller


class StaticKeys:
    """Knows them by their hashes.

    Args:
        admin_keys: keys with every permission, from ``SLUICEGATE_ADMIN_KEY``.
        api_keys: keys that may read models and run inference, from ``SLUICEGATE_API_KEY``.
    """

    def __init__(self, admin_keys: Iterable[str], api_keys: Iterable[str]) -> None:
        self._callers: dict[bytes, Caller] = {}
        for kind, texts, permissions in (
            ("api", api_keys, CALLER_PERMISSIONS),
            ("admin", admin_keys, PERMISSIONS),
        ):
            for place, text in enumerate(texts, 1):
                digest = hashlib.sha256(text.encode()).digest()
                key_id = f"static-{kind}-{place}"  # nothing of the key, which may be a weak one
                operator = kind == "admin"
                self._callers[digest] = Caller(
                    DEFAULT_TENANT, key_id, permissions, operator=operator
                )

    def __len__(self) -> int:
        return len(self._callers)

    def caller(self, text: str) -> Caller | None:
        """Return whose static key ``text`` is; compares hashes, in the same time for each."""
        shown = hashlib.sha256(text.encode(errors="replace")).digest()
        found = None
        for digest, caller in self._callers.items():
            if hmac.compare_digest(digest, shown):
                found = caller
        return found
