"""What one admitted request owes, and how it is settled."""

import time
from collections.abc import Collection
from dataclasses import dataclass, field

from serve_app import auth
from serve_app.auth import Caller
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.reading.call import Call
from serve_app.limits import Charge, Hold, Usage, cost_nanos
from serve_app.queueing import Asks
from serve_app.settings import QueueClass

RETRIES = "x-stainless-retry-count"
"""The header in which the clients of OpenAI and Anthropic count their tries, from 0."""


@dataclass(slots=True)
class Bill:
    """What one admitted request owes; settled when it leaves the page.

    Attributes:
        caller: who sent it.
        queue_class: the class it waits in.
        held: what the store said.
        waited_ms: it waited for its limits and in line.
        used: whether an engine's first byte was there: then it counts.
        ended_well: whether the reply came to its end and told what it used: so that it teaches.
        usage: tokens, as far as they are known.
    """

    caller: Caller
    queue_class: QueueClass
    held: Hold
    waited_ms: float = 0.0
    used: bool = False
    ended_well: bool = False
    usage: Usage = field(default_factory=Usage)

    @property
    def used_tokens(self) -> tuple[int, int]:
        """Input and output tokens that an engine worked for."""
        return self.usage.input_tokens, self.usage.output_tokens

    def asks(self, call: Call, exchange: Exchange) -> Asks:
        """Return what the request brings to the line."""
        tenant = auth.tenant_of(self.held.tenant_attributes, self.caller.tenant)
        return Asks(
            queue_class=self.queue_class,
            tenant=self.caller.tenant,
            caller=self.held.claim.bucket,
            tenant_weight=tenant.weight or 1.0,
            caller_weight=self.caller.weight or 1.0,
            input_tokens=self.held.input_tokens,
            output_tokens=self.held.output_tokens,
            body_bytes=len(call.body),
            waited_ms=self.waited_ms,
            is_first_try=exchange.header(RETRIES) == "0",
            prefix=call.prefix,
            prefer=call.place.replica if call.place else "",
        )

    def ended_early(self) -> None:
        """Note that client or engine left while an engine worked for it: that counts."""
        self.used = True
        self.usage.input_tokens = self.usage.input_tokens or self.held.input_tokens

    def charge_untold(self, told: Collection[str]) -> None:
        """Charge what was held, at least, of whatever a whole reply has not ``told``."""
        used, held = self.usage, self.held
        if "input" not in told:
            used.input_tokens = max(used.input_tokens, held.input_tokens)
        if "output" not in told:
            used.output_tokens = max(used.output_tokens, held.output_tokens)

    def capped(self, call: Call, exchange: Exchange) -> Call:
        """Return ``call`` with the cap on its output that its limits ask for, and say so."""
        if self.held.cap in (None, call.demand.default_cap):
            return call
        capped = call.capped(self.held.cap)
        if capped is not call:
            exchange.headers_out["x-output-cap"] = str(self.held.cap)
        return capped

    def charge(self, call: Call, exchange: Exchange) -> Charge | None:
        """Return what the request is charged; None if all of its hold is given back."""
        if not self.used:
            return None
        usage, seated_s = self.usage, exchange.seated_s or time.perf_counter()
        return Charge(
            usage=usage,
            cost_nanos=cost_nanos(
                usage.input_tokens, usage.cached_tokens, usage.output_tokens, call.model.prices
            ),
            class_=exchange.notes.get("class", self.queue_class.name),
            queue_ms=round(exchange.notes.get("queue_ms", 0.0)),
            engine_ms=round((time.perf_counter() - seated_s) * 1_000),
            sample=self._sample(call),
        )

    def _sample(self, call: Call) -> tuple[int, int, int] | None:
        """Return what the reply teaches, if it came to its end and said what it used."""
        usage, demand = self.usage, call.demand
        if not self.ended_well or not usage.input_tokens:
            return None
        text_tokens = max(usage.input_tokens - demand.fixed_tokens, 0)
        outputs = usage.output_tokens // demand.choices if demand.choices else -1
        return demand.text_bytes, text_tokens, outputs
