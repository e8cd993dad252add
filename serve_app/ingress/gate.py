"""What the handlers of one gateway share, and the block that admits a caller."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from serve_app import auth
from serve_app.errors import GateError, RateLimited
from serve_app.haproxy import PROXY_KEY_HEADER
from serve_app.ingress.address import client_address
from serve_app.ingress.call import Call, read
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.relay import Relay
from serve_app.limits import Hold, Holds, Outcome, Usage
from serve_app.queueing import Line
from serve_app.settings import Model, QueueClass, Settings
from serve_app.telemetry import AccessLog

SMALL_BODY_BYTES = 65_536
SECOND_US = 1_000_000


@dataclass(slots=True)
class Bill:
    """What one admitted request owes; settled when it leaves the page.

    Attributes:
        outcome: returned, until an engine's first byte makes it used.
        usage: tokens, as far as they are known.
    """

    caller: auth.Caller
    outcome: Outcome = Outcome.RETURNED
    usage: Usage = field(default_factory=Usage)

    def left(self, input_estimate: int) -> None:
        """Note that the client left while an engine worked for it: that counts."""
        self.outcome = Outcome.USED
        self.usage.input_tokens = self.usage.input_tokens or input_estimate


class Gate:
    """The rooms as the handlers need them, joined by ``app``."""

    def __init__(  # noqa: PLR0913 - one argument per room
        self,
        settings: Settings,
        *,
        static: auth.StaticKeys,
        keys: auth.Keys,
        holds: Holds,
        line: Line,
        relay: Relay,
        proxy_key: str | None = None,
    ) -> None:
        self.settings = settings
        self.models: Mapping[str, Model] = {model.name: model for model in settings.models}
        self.queue_class: QueueClass = settings.queue.classes[0]
        self.keys, self.line, self.relay = keys, line, relay
        self.access_log = AccessLog()
        self._static, self._holds = static, holds
        self._proxy_key = proxy_key
        self._trusted = [ipaddress.ip_network(cidr) for cidr in settings.auth.trusted_proxies]

    def address(self, exchange: Exchange) -> str:
        """Return where ``exchange`` comes from."""
        return client_address(
            exchange.scope.get("client"),
            exchange.header_lines("x-forwarded-for"),
            shown_key=exchange.header(PROXY_KEY_HEADER),
            proxy_key=self._proxy_key,
            trusted=self._trusted,
        )

    async def asked(self, exchange: Exchange) -> tuple[Call | None, GateError | None]:
        """Return what is asked, or what is wrong with it.

        Raises:
            Unauthenticated: nobody we know; a large body was not read for a stranger.
        """
        await self._known(exchange)
        try:
            path = exchange.scope["engine_path"]
            raw, fields = await exchange.json_body(self.settings.limits.max_body_bytes)
            return read(path, raw, fields, self.models), None
        except GateError as mistake:
            return None, mistake

    async def _known(self, exchange: Exchange) -> None:
        """Return if the caller shows a credential worth reading a body for.

        A well-formed key is enough for a small body: the hold will tell. A large one is read only
        for a key that the store knows.

        Raises:
            Unauthenticated: there is none, or it is malformed or unknown.
            StoreUnavailable: a large body's caller cannot be told.
        """
        if exchange.declared_bytes() > SMALL_BODY_BYTES:
            async with self.admitted(exchange):
                return
        self._credential(exchange)

    def _credential(self, exchange: Exchange) -> auth.Credential:
        """Return the credential of ``exchange``, found once."""
        if exchange.credential is None:
            headers = exchange.scope["headers"]
            exchange.credential = auth.find(headers, exchange.query, self._static)
        return exchange.credential

    @asynccontextmanager
    async def admitted(self, exchange: Exchange, call: Call | None = None) -> AsyncIterator[Bill]:
        """Let a caller in; for a call, with one request of its limits, settled on the way out.

        Raises:
            Unauthenticated: nobody we know; nothing was taken.
            RateLimited: nothing was taken.
            StoreUnavailable: nobody can be let in.
        """
        credential = self._credential(exchange)
        held = await self._holds.hold(
            tenant=credential.tenant,
            key_id=credential.key_id,
            sha256=credential.sha256,
            cost=0 if call is None else 1,
        )
        if not held.known:
            raise auth.unknown_key()
        caller = credential.vouched or auth.identify(held.attributes)
        exchange.notes |= {"tenant": caller.tenant, "key_id": caller.key_id}
        if call is not None:
            exchange.headers_out |= limit_headers(held)
        if not held.allowed:
            raise over_limit(held)
        bill = Bill(caller)
        try:
            yield bill
        finally:
            if held.taken and call is not None:
                settling = self._settle(exchange, held, call.model.name, bill)
                await asyncio.shield(asyncio.create_task(settling))

    async def _settle(self, exchange: Exchange, held: Hold, model: str, bill: Bill) -> None:
        exchange.notes |= {
            "input_tokens": bill.usage.input_tokens,
            "output_tokens": bill.usage.output_tokens,
        }
        await self._holds.settle(
            held,
            request_id=exchange.settle_id,
            model=model,
            outcome=bill.outcome,
            usage=bill.usage,
        )


def over_limit(held: Hold) -> RateLimited:
    """Return the refusal of a hold that was not allowed."""
    if held.limit_rpm == 0:
        return RateLimited("This key may send no requests.", refused_by="key:requests_per_minute")
    return RateLimited(
        f"This key may send {held.limit_rpm} requests a minute; the next one passes in "
        f"{held.retry_after_us / 1e6:.3g} s.",
        retry_after_s=held.retry_after_us / 1e6,
        refused_by="key:requests_per_minute",
    )


def limit_headers(held: Hold) -> dict[str, str]:
    """Return what is left of the limit, in OpenAI's headers."""
    return {
        "x-ratelimit-limit-requests": str(held.limit_rpm),
        "x-ratelimit-remaining-requests": str(held.remaining),
        "x-ratelimit-reset-requests": span(held.reset_after_us),
    }


def span(us: int) -> str:
    """Return a time as OpenAI's headers write it, rounded up: ``850ms``, ``12s``, ``6m0s``."""
    if us < SECOND_US:
        return f"{-(-us // 1_000)}ms"
    minutes, seconds = divmod(-(-us // SECOND_US), 60)
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
