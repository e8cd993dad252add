"""What the handlers of one gateway share: the rooms, joined by ``app``."""

import asyncio
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serve_app import auth
from serve_app.errors import NoCapacity
from serve_app.haproxy import PROXY_KEY_HEADER
from serve_app.ingress.address import client_address
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.patience import Patience
from serve_app.ingress.reading.catalogue import Catalogue
from serve_app.ingress.upstream import Relay
from serve_app.limits import Holds, Ledger
from serve_app.model_settings import Model
from serve_app.queueing import Adapters, Kept, Line
from serve_app.settings import QueueClass, Settings
from serve_app.telemetry import AccessLog, Audit, Captures, Entry, Metrics

FAILED_S = 10.0
"""When to ask again for a model that could not be started; Serve tries three times."""


@dataclass(slots=True)
class Identity:
    """The part of ``auth`` that the handlers use."""

    authenticator: auth.Authenticator
    attempts: auth.Attempts
    sessions: auth.SharedSessions
    keys: auth.Keys
    tenants: auth.Tenants
    users: auth.Users
    passwords: auth.Passwords
    revocations: auth.Revocations
    visitors: auth.Visitors
    issuers: auth.Issuers

    async def tend(self) -> None:
        """Learn what other gateways know; about once a second.

        Raises:
            StoreUnavailable: later, then.
        """
        await self.sessions.open()
        await self.attempts.tend()

    async def close(self) -> None:
        """Give everything back; what was counted and not told is told, if the store answers."""
        await self.attempts.close()
        await self.visitors.close()
        await self.issuers.close()
        self.passwords.close()


class Gate:
    """The rooms as the handlers need them."""

    def __init__(  # noqa: PLR0913 - one argument per room
        self,
        settings: Settings,
        *,
        identity: Identity,
        holds: Holds,
        ledger: Ledger,
        line: Line,
        adapters: Adapters,
        kept: Kept,
        relay: Relay,
        audit: Audit,
        metrics: Metrics,
        captures: Captures,
        proxy_key: str | None = None,
    ) -> None:
        self.settings = settings
        self.models: Mapping[str, Model] = {model.name: model for model in settings.models}
        self.catalogue = Catalogue(settings.models)
        self.classes: Mapping[str, QueueClass] = {one.name: one for one in settings.queue.classes}
        self.identity = identity
        self.holds, self.line, self.relay, self.audit = holds, line, relay, audit
        self.ledger, self.kept, self.adapters = ledger, kept, adapters
        self.patience = Patience()
        self.settling: set[asyncio.Task[None]] = set()
        self.metrics, self.captures = metrics, captures
        self.access_log = AccessLog()
        self._proxy_key = proxy_key
        self._trusted = [ipaddress.ip_network(cidr) for cidr in settings.auth.trusted_proxies]

    async def learn_adapters(self) -> None:
        """Take in which adapters callers may ask for.

        Raises:
            StoreUnavailable: it stays as it was.
        """
        self.catalogue.learn(await self.adapters.offered())

    def must_start(self, model: Model) -> None:
        """Return unless nobody can be seated soon: ``model`` has no replica and its start failed.

        One that sleeps is tried all the same: whoever waits wakes it.

        Raises:
            NoCapacity: the start that failed is named.
        """
        why = self.line.loads[model.name].failing
        if why and model.autoscaling.min_replicas:
            told = f"The model '{model.name}' has no replica; its last start failed: {why}."
            raise NoCapacity(told, retry_after_s=FAILED_S)

    def rank(self, class_: str) -> int:
        """Return the place of a class among all; 0 is the highest."""
        return list(self.classes).index(class_)

    def address(self, exchange: Exchange) -> str:
        """Return where ``exchange`` comes from."""
        if exchange.address is None:
            exchange.address = client_address(
                exchange.scope.get("client"),
                exchange.header_lines("x-forwarded-for"),
                shown_key=exchange.header(PROXY_KEY_HEADER),
                proxy_key=self._proxy_key,
                trusted=self._trusted,
            )
        return exchange.address

    async def noted(
        self, exchange: Exchange, caller: auth.Caller | None, *, action: str, **more: Any
    ) -> None:
        """Write into the audit who did what; never raises for the store's sake.

        Args:
            exchange: where it came from.
            caller: who did it; None for a stranger.
            action: what was done, ``<thing>.<verb>``.
            **more: ``target``, ``tenant``, ``result``, ``before``, ``after`` of the entry.
        """
        own = {
            "tenant": caller.tenant if caller else "",
            "actor": caller.key_id if caller else "",
            "address": self.address(exchange),
            "request_id": exchange.request_id,
        }
        await self.audit.write(Entry(action=action, **{**own, **more}))
