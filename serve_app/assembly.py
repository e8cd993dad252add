"""The rooms of *who is calling* and *how much*, put together for one gateway."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial

from serve_app import auth
from serve_app.environment import Secrets
from serve_app.errors import StoreUnavailable
from serve_app.ingress import ENDPOINTS, Identity
from serve_app.limits import Holds, Ledger, LocalLimits
from serve_app.queueing import ClassLoad, Line
from serve_app.settings import Settings, SettingsError
from serve_app.store import Store
from serve_app.telemetry import Audit, Entry, Metrics

LAST_S = 5.0
"""Seconds that a gateway that ends gives each of what it still has to write."""


def check_identity(settings: Settings, environ: Mapping[str, str]) -> None:
    """Return if everything that *who is calling* needs of files and environment is there.

    Raises:
        SettingsError: an issuer's key or the captcha's secret is missing or unfit.
    """
    auth.Issuers(settings.auth.issuers, environ)
    visitor = settings.auth.visitor
    if visitor.siteverify_url is not None and not environ.get(visitor.secret_env):
        raise SettingsError(f"args.auth.visitor: the variable {visitor.secret_env} is not set")


def identity_of(
    settings: Settings, store: Store, secrets: Secrets, audit: Audit, environ: Mapping[str, str]
) -> Identity:
    """Return the part of ``auth`` that a gateway's handlers use; make it in the event loop.

    Raises:
        SettingsError: an issuer's key or the captcha's secret is missing or unfit.
    """
    rules = settings.auth
    classes = [one.name for one in settings.queue.classes]
    known = auth.Known(classes, ENDPOINTS)
    issuers = auth.Issuers(rules.issuers, environ)
    sessions = auth.SharedSessions(store, issuers)
    static = auth.StaticKeys(secrets.admin_keys, secrets.api_keys)
    disabled = rules.disabled or secrets.disable_auth
    passwords = auth.Passwords(threads=rules.login.threads, max_waiting=rules.login.max_waiting)
    secret = environ.get(rules.visitor.secret_env)
    return Identity(
        authenticator=auth.Authenticator(rules, static, issuers, disabled=disabled),
        attempts=auth.Attempts(store, rules.brute_force, on_block=_Blocks(audit).note),
        sessions=sessions,
        keys=auth.Keys(store, known),
        tenants=auth.Tenants(store, known),
        users=auth.Users(
            store,
            passwords=passwords,
            sessions=sessions,
            session_ttl_s=rules.login.session_ttl_s,
            classes=classes,
        ),
        revocations=auth.Revocations(store),
        visitors=auth.Visitors(rules.visitor, secret=secret, sessions=sessions),
        passwords=passwords,
        issuers=issuers,
    )


def line_of(settings: Settings, store: Store, release: str = "") -> Line:
    """Return the line of one gateway."""
    names = [model.name for model in settings.models]
    return Line(
        store,
        names,
        settings.queue.classes,
        output_weight=settings.queue.output_weight,
        on_loss=settings.store.on_loss,
        release=release,
    )


def holds_of(settings: Settings, store: Store, line: Line) -> Holds:
    """Return the holds of one gateway, which judges alone without its store if it is to."""
    defaults, ttl_s = settings.limits.default.text(), settings.limits.hold_ttl_s
    local = LocalLimits(
        grace_s=settings.store.grace_s,
        gateways=lambda: max(load.gateways for load in line.loads.values()),
        defaults=defaults,
        ttl_ms=ttl_s * 1_000,
    )
    alone = local if settings.store.on_loss == "local" else None
    return Holds(store, defaults=defaults, ttl_s=ttl_s, local=alone)


def _tell_of_line(line: Line, metrics: Metrics) -> None:
    """Have ``metrics`` tell of ``line``: what the store counted at the last look, all gateways'."""
    each = {
        "sluicegate_queue_waiting": ("Requests in line.", lambda one: one.waiting),
        "sluicegate_queue_waiting_bytes": ("Bodies in line, bytes.", lambda one: one.waiting_bytes),
        "sluicegate_queue_oldest_seconds": (
            "How long the oldest has waited.",
            lambda one: one.oldest_ms / 1_000,
        ),
        "sluicegate_running": ("Requests that have a seat.", lambda one: one.running),
    }
    for name, (sentence, figure) in each.items():
        metrics.tell_each(name, sentence, ("model", "class"), partial(_by_class, line, figure))
    metrics.tell_each(
        "sluicegate_seats",
        "Seats that the replicas offer.",
        ("model",),
        lambda: {(model,): load.seats for model, load in line.loads.items()},
    )


def _by_class(line: Line, figure: Callable[[ClassLoad], float]) -> Mapping[tuple[str, ...], float]:
    return {
        (model, one.name): figure(one) for model, load in line.loads.items() for one in load.classes
    }


def tell_of(holds: Holds, line: Line, metrics: Metrics) -> None:
    """Have ``metrics`` tell of ``holds`` and of ``line``."""
    _tell_of_line(line, metrics)
    metrics.tell("sluicegate_holds", "Requests that hold something.", holds.running)
    metrics.tell("sluicegate_settlements_owed", "Requests still to be settled.", holds.owed)
    metrics.tell("sluicegate_settlements_lost", "Requests that were never settled.", holds.lost)


async def write_the_last(
    settling: Collection[asyncio.Task[None]], holds: Holds, ledger: Ledger
) -> None:
    """Write what is being settled, owed or counted, as far as the store takes it in time.

    Args:
        settling: tasks that are still to settle something.
        holds: wait for theirs, too.
        ledger: has counted refusals.
    """
    for write in (holds.all_settled, ledger.pay):
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(LAST_S):
                if settling:
                    await asyncio.wait(settling)
                await write()


class _Blocks:
    """Writes into the audit that an address was blocked."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._writing: set[asyncio.Task[None]] = set()

    def note(self, address: str, block_s: float) -> None:
        """Write it soon; the request that led to the block does not wait."""
        entry = Entry("address.block", address=address, target=address, after={"block_s": block_s})
        task = asyncio.get_running_loop().create_task(self._audit.write(entry))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
