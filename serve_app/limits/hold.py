"""What a hold says, and what a request turned out to use.

    hold    ── allowed ──→ the request runs ──→ settle(charge)     what it used is charged
       └──── refused: nothing was taken              └─→ settle()   the hold is given back

There is no third way out of a hold but time: a gateway that dies renews it no more, and it is given
back.
"""

from dataclasses import dataclass
from typing import Self

from serve_app.allowance import BY_LETTER, Kind
from serve_app.limits.bound import SCOPES
from serve_app.limits.claim import Claim, State

NO_LEASES = ("",) * len(SCOPES)


@dataclass(frozen=True, slots=True)
class Said:
    """What one limit says.

    Attributes:
        scope: whom it binds: ``key``, ``key_model``, ``tenant`` or ``tenant_model``.
        kind: what it counts, and when that comes back.
        shadow: whether it only says what it would have done.
        limit: units a period; 0 is never.
        burst: units at once.
        left: units left, net of what runs.
        wait_us: time until the same request is let in; 0 if it is now, -1 if it never is.
        reset_us: time until all of it is there again.
    """

    scope: str
    kind: Kind
    shadow: bool
    limit: int
    burst: int
    left: int
    wait_us: int
    reset_us: int

    @classmethod
    def from_line(cls, line: str) -> Self:
        """Return what the step *hold* wrote of one limit."""
        scope, letter, shadow, *figures = line.split()
        limit, burst, left, wait_us, reset_us = map(int, figures)
        return cls(
            SCOPES[int(scope) - 1],
            BY_LETTER[letter],
            shadow == "1",
            limit,
            burst,
            left,
            wait_us,
            reset_us,
        )

    @property
    def name(self) -> str:
        """What the limit is called, with its scope; for ``x-refused-by``."""
        return f"{self.scope}:{self.kind.name}"


@dataclass(frozen=True, slots=True)
class Hold:
    """What the store said of one caller and one request.

    Attributes:
        claim: who it was about.
        state: whether the caller is who it says to be; all else counts only if it is known.
        attributes: the record's attributes as JSON; empty for a caller that is vouched for.
        tenant_attributes: its tenant's; empty for one without a record.
        now_us: the store's time.
        said: what each limit says.
        refusing: the limit that refuses, the one that refuses longest; None if none does.
        input_tokens, output_tokens: what the request is expected to use.
        cap: output tokens of each reply, to be set by the gate; None if it need not.
        leases: what was taken from each scope, as the store keeps it.
        request, model: which request it is, of which model.
        local: whether the store was away, and the gateway itself has judged.
    """

    claim: Claim
    state: State
    attributes: str = ""
    tenant_attributes: str = ""
    now_us: int = 0
    said: tuple[Said, ...] = ()
    refusing: Said | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cap: int | None = None
    leases: tuple[str, ...] = NO_LEASES
    request: str = ""
    model: str = ""
    local: bool = False

    @property
    def would_refuse(self) -> list[Said]:
        """The shadow limits that would have refused the request."""
        return [one for one in self.said if one.shadow and one.wait_us != 0]


@dataclass(slots=True)
class Usage:
    """Tokens of one request, filled in as the reply goes by.

    Attributes:
        input_tokens: all of the prompt's.
        output_tokens: of all replies together.
        cached_tokens: those of the prompt that the engine had cached.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Charge:
    """What a request is charged.

    Attributes:
        usage: its tokens.
        cost_nanos: its price.
        class_: the class it was served in.
        queue_ms: it waited.
        engine_ms: an engine worked for it.
        sample: bytes of its text, tokens of that text and output tokens of each reply, for the
            store to learn from; None if it did not end well.
    """

    usage: Usage
    cost_nanos: int = 0
    class_: str = ""
    queue_ms: int = 0
    engine_ms: int = 0
    sample: tuple[int, int, int] | None = None

    def units(self) -> dict[str, int]:
        """Return what it counts as, by unit."""
        tokens_in, tokens_out = self.usage.input_tokens, self.usage.output_tokens
        return {
            "requests": 1,
            "input": tokens_in,
            "output": tokens_out,
            "tokens": tokens_in + tokens_out,
            "cost": self.cost_nanos,
        }
