"""``sluicegate keys import|export``: many keys between a file and the store, hashes only.

The store is the one that the gate of ``config`` uses: SLUICEGATE_STORE_URL, ``store.url``, or the
embedded one, which runs while the gate does.
"""

from collections.abc import Callable, Iterable

from serve_app.auth import export_keys, import_keys
from serve_app.environment import Secrets, data_dir
from serve_app.errors import GateError
from serve_app.plan import CannotStartError
from serve_app.settings import Settings
from serve_app.store import Store, running_url
from serve_app.telemetry import Audit, Entry

TIMEOUT_MS = 10_000


async def import_file(settings: Settings, lines: Iterable[str]) -> str:
    """Write the keys of ``lines``; return a sentence that counts them.

    Raises:
        CannotStartError: there is no store, it does not answer, or a line is no key. The lines
            before it may have been written; an import may be repeated.
    """
    store = _opened(settings)
    audit = Audit(store, keep_days=settings.audit.keep_days)
    try:
        classes = [one.name for one in settings.queue.classes]
        told = await import_keys(store, lines, classes)
        await audit.write(Entry("key.import", actor="command line", after=dict(told)))
    except GateError as err:
        raise CannotStartError(str(err)) from None
    finally:
        await store.close()
    return (
        f"{told['written']} keys written, {told['taken']} were there already, "
        f"{told['no tenant']} of tenants that do not exist"
    )


async def export_file(settings: Settings, write: Callable[[str], object]) -> int:
    """Hand every key to ``write`` as a line; return how many there are.

    Raises:
        CannotStartError: there is no store, or it does not answer; the rest was not read.
    """
    store, count = _opened(settings), 0
    try:
        async for line in export_keys(store):
            write(line + "\n")
            count += 1
    except GateError as err:
        raise CannotStartError(str(err)) from None
    finally:
        await store.close()
    return count


def _opened(settings: Settings) -> Store:
    url = Secrets.from_environ().store_url or settings.store.url
    url = url or running_url(data_dir(settings.store))
    if url is None:
        raise CannotStartError(
            "no store: start the gate, whose embedded store this is, or set SLUICEGATE_STORE_URL"
        )
    return Store(url, timeout_ms=TIMEOUT_MS)
