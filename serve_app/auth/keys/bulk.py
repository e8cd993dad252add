"""Many keys at once: written and read in batches, one round trip each. Hashes, never secrets.

One key is one line of JSON; a secret that still overlaps after a rotation is left out:

    {"sha256": "9f86d0…", "key": {"id": "…", "tenant": "acme", "name": "…", "permissions": […], …}}
"""

import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice

from pydantic import Field, ValidationError, field_validator

from serve_app.allowance import Limits
from serve_app.auth.caller import DEFAULT_TENANT, PERMISSIONS
from serve_app.auth.grant import Known, Strict, must_be_classes
from serve_app.auth.keys.key import TENANT
from serve_app.auth.keys.key_record import KeyRecord
from serve_app.auth.keys.keys import put
from serve_app.errors import InvalidRequest
from serve_app.mistakes import said
from serve_app.store import Store, keys

BATCH = 1_000
WRITTEN, TAKEN, NO_TENANT = "written", "taken", "no tenant"
_SAID = {1: WRITTEN, 0: TAKEN, -1: NO_TENANT}


class _Limited(Strict):
    """What a key's limits are checked by, so that a mistake in them names its place."""

    limits: Limits


class KeyLine(Strict):
    """One line of a key file."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    key: KeyRecord

    @field_validator("key")
    @classmethod
    def _sound(cls, key: KeyRecord) -> KeyRecord:
        if re.fullmatch(TENANT, key.tenant) is None:
            raise ValueError(f"'{key.tenant[:64]}' is no tenant id")
        if re.fullmatch(r"[0-9A-Za-z]{12}", key.id) is None:
            raise ValueError(f"'{key.id[:64]}' is no key id: it has 12 letters and digits")
        if unknown := sorted(set(key.permissions) - PERMISSIONS):
            raise ValueError(f"unknown permissions: {', '.join(unknown)}")
        _Limited.model_validate({"limits": key.limits})
        key.caller()  # its addresses are networks
        return replace(key, capture_ends_ms=0)  # it was begun elsewhere


async def import_keys(
    store: Store, lines: Iterable[str], classes: Sequence[str] = ()
) -> Counter[str]:
    """Write the keys of ``lines``; return how many were written, taken, of no tenant.

    A key that is there is left alone, so an import may be repeated; one that was revoked since the
    export comes back. ``classes`` are those of the line; empty if any will do.

    Raises:
        InvalidRequest: a line is no key; the refusal names it. The batches before it are written.
        StoreUnavailable: some may have been written; import again.
    """
    told: Counter[str] = Counter()
    for batch in _batches(_read(lines, Known(classes))):
        calls = [put(one.key, one.sha256, made_us=one.key.created_ms * 1_000) for one in batch]
        told.update(_SAID[done] for done in await store.run_many("key_put", calls))
    return told


def _read(lines: Iterable[str], known: Known) -> Iterator[KeyLine]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                read = KeyLine.model_validate_json(line)
                if known.classes:
                    must_be_classes(read.key, known, ())
                yield read
            except InvalidRequest as err:
                raise InvalidRequest(f"line {number}: key.{err.param}: {err}") from None
            except ValidationError as err:
                raise InvalidRequest(f"line {number}: {_told(err)}") from None


def _told(err: ValidationError) -> str:
    """Return the first mistake in a line: where it stands, and what it is."""
    first = err.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(step) for step in first["loc"]) or "line"
    if first["loc"][:2] == ("key", "limits"):
        return f"{where}: {said(_Limited, {**first, 'loc': first['loc'][1:]})}"
    return f"{where}: {said(KeyLine, first)}"


def _batches(found: Iterator[KeyLine]) -> Iterator[list[KeyLine]]:
    while batch := list(islice(found, BATCH)):
        yield batch


async def export_keys(store: Store) -> AsyncIterator[str]:
    """Yield every key of every tenant as a line, oldest first within a tenant.

    Raises:
        StoreUnavailable: the rest was not read.
    """
    async for tenant in _tenants(store):
        after = ""
        while True:
            page, after = await store.page(keys.key_index(tenant), after, BATCH)
            names = [keys.key_record(tenant, key_id) for key_id in page]
            for attributes, sha256 in await store.fields_of(names, "attributes", "sha256"):
                if attributes and sha256:  # else it was revoked just now
                    record = KeyRecord.from_json(attributes)
                    yield json.dumps({"sha256": sha256, "key": asdict(record)})
            if not after:
                break


async def _tenants(store: Store) -> AsyncIterator[str]:
    yield DEFAULT_TENANT
    after = ""
    while True:
        page, after = await store.page(keys.TENANTS, after, BATCH)
        for tenant in page:
            yield tenant
        if not after:
            return
