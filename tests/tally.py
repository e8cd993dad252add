"""What the store remembers of a caller and its tenant, read past the gate."""

import json
import secrets
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from serve_app.allowance import BY_LETTER, KINDS
from serve_app.store import keys
from tests.holding import state
from tests.running import RunningGate, chat, until

MODEL, NARROW = "smollm2-135m", "narrow"
SLOW_RATE = {"limit": 1, "burst": 1_000_000}
"""Refills one unit a minute: in a test's time, nothing."""

EVERY_KIND: dict[str, Any] = {
    "requests_per_minute": SLOW_RATE,
    "tokens_per_minute": SLOW_RATE,
    "input_tokens_per_minute": SLOW_RATE,
    "output_tokens_per_minute": SLOW_RATE,
    "requests_per_day": 1_000_000,
    "tokens_per_day": 1_000_000_000,
    "input_tokens_per_day": 1_000_000_000,
    "output_tokens_per_day": 1_000_000_000,
    "tokens_per_month": 1_000_000_000,
    "cost_per_day": 1_000,
    "cost_per_month": 1_000,
    "concurrency": 1_000,
}
EVERYWHERE = {**EVERY_KIND, "models": {MODEL: EVERY_KIND, NARROW: EVERY_KIND}}
"""Every kind, wide, of the caller or tenant and on each model: eight limits and forty more."""

PRICES = {"input_per_million": 1.0, "output_per_million": 2.0}
NANOS_IN, NANOS_OUT = 1_000, 2_000
_UNIT_US = 60_000_000


@dataclass(frozen=True)
class Used:
    """What requests used, by the engine's own count."""

    requests: int = 0
    input: int = 0
    output: int = 0

    @classmethod
    def of(cls, usage: dict[str, Any], requests: int = 1) -> "Used":
        """Return what a reply's ``usage`` says."""
        return cls(requests, usage["prompt_tokens"], usage["completion_tokens"])

    def __add__(self, other: "Used") -> "Used":
        return Used(
            self.requests + other.requests, self.input + other.input, self.output + other.output
        )

    @property
    def cost(self) -> int:
        """What that costs by :data:`PRICES`, in nanos."""
        return self.input * NANOS_IN + self.output * NANOS_OUT

    def in_units(self) -> dict[str, int]:
        """Return what every kind of limit counts of it, by the kind's letter."""
        units = {
            "requests": self.requests,
            "input": self.input,
            "output": self.output,
            "tokens": self.input + self.output,
            "cost": self.cost,
        }
        return {kind.letter: units[kind.unit] for kind in KINDS if kind.unit != "seats"}


def of_windows(units: dict[str, int]) -> dict[str, int]:
    """Return what days and months count of ``units``; nothing of it is ever refilled early."""
    return {
        letter: count for letter, count in units.items() if BY_LETTER[letter].period != "minute"
    }


@dataclass
class Tally:
    """A key in a tenant of its own, both under every kind of limit."""

    gate: RunningGate
    limits: dict[str, Any] = field(default_factory=lambda: EVERYWHERE)
    tenant_limits: dict[str, Any] = field(default_factory=lambda: EVERYWHERE)
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tenant = f"t{secrets.token_hex(4)}"
        with self.gate.client() as admin:
            asked = {"id": self.tenant, "limits": self.tenant_limits}
            made = admin.post("/v1/tenants", json=asked)
            assert made.status_code == 201, made.text
        self.key = self.another(**self.more)

    @property
    def key_id(self) -> str:
        """The key's public id."""
        return self.key.split("-")[2]

    def another(self, **more: Any) -> str:
        """Return a further key of the tenant, with the same limits unless told otherwise."""
        return self.gate.new_key(tenant=self.tenant, **{"limits": self.limits, **more})

    def spent(self, model: str = MODEL, key: str | None = None) -> dict[str, dict[str, int]]:
        """Return the units that each scope has used of each kind, holds included."""
        names = keys.scopes(self.tenant, (key or self.key).split("-")[2], model)[::2]
        scopes = ("key", "key_model", "tenant", "tenant_model")
        with self.gate.redis() as store:
            found = [state(store, name) for name in names]
        return {scope: _units(fields) for scope, fields in zip(scopes, found, strict=True)}

    def leases(self) -> list[float]:
        """Return until when requests of the tenant hold something, ms, in every scope."""
        with self.gate.redis() as store:
            names = store.keys(f"sg:{{t:{self.tenant}}}:leases*")
            held = [one for name in names for one in store.zrange(name, 0, -1, withscores=True)]
        return [until_ms for _, until_ms in held]

    def settled(self, limit_s: float = 15) -> "Tally":
        """Return when nothing is held any more."""
        until(lambda: not self.leases(), limit_s, "the settling", every_s=0.02)
        return self

    def ledger(self, key: str | None = None) -> Counter[str]:
        """Return what the ledger says of the whole tenant, or of one of its keys."""
        whose = "*" if key is None else key.split("-")[2]
        total: Counter[str] = Counter()
        with self.gate.redis() as store:
            for name in store.keys(f"sg:{{t:{self.tenant}}}:usage:{whose}:*"):
                for what, count in store.hgetall(name).items():
                    total[what.split("\t")[-1]] += int(count)
        return total

    def used(self, key: str | None = None) -> Used:
        """Return what the ledger says was used."""
        told = self.ledger(key)
        return Used(told["requests"], told["input_tokens"], told["output_tokens"])


def _units(fields: dict[str, int]) -> dict[str, int]:
    units = dict.fromkeys((kind.letter for kind in KINDS if kind.unit != "seats"), 0)
    for letter, used in fields.items():
        if letter in BY_LETTER:
            units[letter] = -(-used // _UNIT_US) if BY_LETTER[letter].period == "minute" else used
    return units


def chat_with(model: str, **more: Any) -> dict[str, Any]:
    """Return the body of a chat with ``model``."""
    return {**chat(**more), "model": model}


def frames(text: str) -> list[dict[str, Any]]:
    """Return the JSON frames of an event stream."""
    lines = [line[6:] for line in text.split("\n") if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


def spoken(text: str) -> int:
    """Return how many frames of an event stream carry text."""
    choices = [one for frame in frames(text) for one in frame.get("choices", [])]
    return sum(bool(one["delta"].get("content")) for one in choices)
