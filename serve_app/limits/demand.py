"""What a request may use, before anybody knows. Pure.

``store/lua/shared/demand.lua`` does the same inside the store; a test holds the two equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, inf

from serve_app.limits.bound import Bound, Bounds
from serve_app.limits.learning import BYTES_PER_TOKEN_MAX


@dataclass(frozen=True, slots=True)
class Demand:
    """What a request's body says that it may use.

    Attributes:
        text_bytes: of the prompt's text, whose tokens are estimated from what was learned.
        fixed_tokens: of the prompt, known or of a fixed cost: token ids, images, tools.
        choices: replies asked for; 0 where nothing is generated.
        cap: output tokens of each that the client allows; None if it names none.
    """

    text_bytes: int = 0
    fixed_tokens: int = 0
    choices: int = 0
    cap: int | None = None

    @property
    def least_tokens(self) -> int:
        """Input tokens that the prompt has at least, however well its text is packed."""
        return self.fixed_tokens + -(-self.text_bytes // int(BYTES_PER_TOKEN_MAX))


@dataclass(frozen=True, slots=True)
class Terms:
    """What a model adds to a demand.

    Attributes:
        output_cap: output tokens of a reply whose request names no cap; None to learn it.
        nanos_in, nanos_out: price of an input and of an output token, in nanos.
    """

    output_cap: int | None = None
    nanos_in: float = 0.0
    nanos_out: float = 0.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request is expected to use.

    Attributes:
        input_tokens: of its prompt.
        output_tokens: of each reply.
        cap: on each reply, which the gate must set so that it is so; None if it need not.
    """

    input_tokens: int
    output_tokens: int
    cap: int | None = None


def counted(demand: Demand, terms: Terms, input_tokens: int, output_tokens: int) -> dict[str, int]:
    """Return what a request counts as, by unit, if each of its replies has ``output_tokens``."""
    outputs = demand.choices * output_tokens
    return {
        "requests": 1,
        "seats": 1,
        "input": input_tokens,
        "output": outputs,
        "tokens": input_tokens + outputs,
        "cost": ceil(input_tokens * terms.nanos_in + outputs * terms.nanos_out),
    }


def estimated(
    demand: Demand, terms: Terms, scopes: Sequence[Bounds], input_tokens: int, learned: int
) -> Estimate:
    """Return what a request is expected to use.

    Args:
        demand: what its body says.
        terms: what its model adds.
        scopes: what binds it: its caller, that on the model, its tenant, that on the model.
        input_tokens: of its prompt, estimated.
        learned: output tokens that 95 of 100 replies do not exceed.

    The output of each reply is the client's cap; else the narrowest default that is set for the
    caller, its tenant or the model; else what was learned. Where the client names none and a limit
    could never hold that much, the gate sets a cap that fits.
    """
    if demand.choices == 0 or demand.cap is not None:
        return Estimate(input_tokens, demand.cap or 0)
    mine, mine_here, theirs, theirs_here = (scope.output_cap for scope in scopes)
    set_caps = (mine_here, mine, theirs_here, theirs, terms.output_cap)
    cap = next((one for one in set_caps if one is not None), None)
    expected = learned if cap is None else cap
    for bound in (one for scope in scopes for one in scope.bounds if not one.shadow):
        room = max(_room_for(bound, demand, terms, input_tokens), 1)
        if room < expected:
            expected = cap = int(room)
    return Estimate(input_tokens, expected, cap)


def _room_for(bound: Bound, demand: Demand, terms: Terms, input_tokens: int) -> float:
    """Return the output tokens of each reply for which a full bound has room beside the prompt."""
    unit, price = bound.kind.unit, terms.nanos_in if bound.kind.is_money else 0.0
    if input_tokens > bound.burst or input_tokens * price > bound.burst:
        input_tokens = demand.least_tokens  # it may be shorter than it looks
    if unit == "output":
        return bound.burst // demand.choices
    if unit == "tokens":
        return (bound.burst - input_tokens) // demand.choices
    if unit == "cost" and terms.nanos_out > 0:
        left = bound.burst - ceil(input_tokens * terms.nanos_in)
        return floor(left / (demand.choices * terms.nanos_out))
    return inf
