"""What is made once per store: the first admin key, and the secret of sessions.

The key is made when nobody could log in otherwise. It is written to a file that only the operator's
user can read, never to a log: whoever starts the gate shows it once and removes the file.
"""

import asyncio
import os
from pathlib import Path

from serve_app.auth.caller import DEFAULT_TENANT, PERMISSIONS, Caller
from serve_app.auth.grant import Known
from serve_app.auth.keys.key_record import KeyRequest
from serve_app.auth.keys.keys import Keys
from serve_app.auth.tokens.sessions import new_secret
from serve_app.store import Store, keys

CLAIM_S = 30
BEING_MADE = "being made"
GATE = Caller(DEFAULT_TENANT, "gate", PERMISSIONS, operator=True)
"""The gate itself, as it makes the first key."""


def reveal_path(folder: Path) -> Path:
    """Return where a new admin key waits to be read once."""
    return folder / "admin-key"


async def first_admin_key(store: Store, folder: Path) -> bool | None:
    """Make the admin key unless this store has had one, or keys, tenants or users.

    Returns True if it was made now, False if there is no need, None if another gateway is just
    making it: ask again.

    However many gateways ask, one makes it; if that one dies half way, another does after
    ``CLAIM_S`` seconds. Its text is left in :func:`reveal_path`, mode 0600.

    Raises:
        StoreUnavailable: ask again; nothing is lost but the attempt.
        OSError: the file cannot be written; the key was revoked again.
    """
    for name in (keys.key_index(DEFAULT_TENANT), keys.TENANTS, keys.USERNAMES):
        if await store.exists(name) and await store.text(keys.BOOTSTRAP) != BEING_MADE:
            return False
    if not await store.claim(keys.BOOTSTRAP, BEING_MADE, ttl_s=CLAIM_S):
        return None if await store.text(keys.BOOTSTRAP) in (BEING_MADE, None) else False
    request = KeyRequest(name="first admin key", permissions=sorted(PERMISSIONS), all_tenants=True)
    own = Keys(store, Known(()))
    made, record = await own.create(request, by=GATE)
    try:
        await asyncio.to_thread(_reveal, folder, made.text)
    except OSError:
        await own.revoke(record.tenant, record.id, by=GATE)
        raise
    await store.keep(keys.BOOTSTRAP, record.id)
    return True


def _reveal(folder: Path, text: str) -> None:
    """Leave ``text`` where only the operator's user can read it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = reveal_path(folder)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text + "\n")


async def session_secret(store: Store) -> str:
    """Return the secret under which all gateways sign sessions; the first that asks makes it.

    Raises:
        StoreUnavailable: ask again.
    """
    made = new_secret()
    if await store.claim_for_good(keys.SESSION_SECRET, made):
        return made
    return await store.text(keys.SESSION_SECRET) or made
