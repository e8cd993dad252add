"""A seat, what is asked for one, and what is counted of a model's seats and line."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from serve_app.settings import QueueClass
from serve_app.store import Address


@dataclass(frozen=True, slots=True)
class Asks:
    """What a request brings to the line.

    Attributes:
        queue_class: the class it waits in, and for how long.
        tenant, caller: whose it is.
        tenant_weight, caller_weight: the tenant's share among tenants, the caller's inside it.
        input_tokens, output_tokens: what it is expected to use.
        body_bytes: that it keeps in this gateway's memory.
        waited_ms: of its patience it has used up before.
        is_first_try: whether its client says that it was not told to come again.
        prefix: the same for all requests of one conversation; empty for none.
        prefer: the replica that it must run on in the end; it goes before that of the prefix.
    """

    queue_class: QueueClass
    tenant: str = ""
    caller: str = ""
    tenant_weight: float = 1.0
    caller_weight: float = 1.0
    input_tokens: int = 0
    output_tokens: int = 0
    body_bytes: int = 0
    waited_ms: float = 0.0
    is_first_try: bool = False
    prefix: str = ""
    prefer: str = ""


class Telling(NamedTuple):
    """How a client hears that it still waits.

    Attributes:
        every_s: how often.
        tell: is told how many are ahead at most, and how long it has waited, s.
    """

    every_s: float
    tell: Callable[[int, float], Awaitable[None]]


@dataclass(slots=True)
class Seat:
    """Permission to run one request on one replica.

    Attributes:
        replica: its id.
        address: how to reach it.
        arrived_us: when the request first came; hand it in when entering again.
        waited_ms: time in line.
        served_class: the class it was seated as; waiting may have lifted it.
        used: input and output tokens that it used in the end; None for as many as expected.
    """

    replica: str
    address: Address
    arrived_us: int
    waited_ms: float
    served_class: str
    used: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class ClassLoad:
    """What the store counted of one class of one model.

    Attributes:
        name: of the class.
        waiting, waiting_bytes: requests in line, and their bodies.
        running: requests of it that have a seat.
        oldest_ms: how long the oldest has waited.
        predicted_wait_ms: what one more would wait; None if nobody can tell.
    """

    name: str
    waiting: int = 0
    waiting_bytes: int = 0
    running: int = 0
    oldest_ms: int = 0
    predicted_wait_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """What the store counted of one model at the last look.

    Attributes:
        running, waiting: requests with a seat, requests in line.
        replicas, seats: replicas registered, and the seats they offer.
        oldest_ms: how long the oldest has waited.
        drain_per_s: seats that come free a second; 0 if nobody can tell.
        failing: why the last start of a replica failed, if there is none; else empty.
        gateways: that tend the line.
        mode: ``open``, ``paused`` (nobody is seated) or ``draining`` (nobody new comes in).
        classes: the same of each, highest first.
    """

    running: int = 0
    waiting: int = 0
    replicas: int = 0
    seats: int = 0
    oldest_ms: int = 0
    drain_per_s: float = 0.0
    failing: str = ""
    gateways: int = 1
    mode: str = "open"
    classes: tuple[ClassLoad, ...] = ()


@dataclass(frozen=True, slots=True)
class Waiting:
    """One request that waits, as operators see it.

    Attributes:
        ticket: its public id.
        model: whose line it stands in.
        class_: its class.
        tenant, caller: whose it is.
        arrived_us, deadline_us: when it first came, and until when it waits.
        cost_tokens: what it is expected to cost, output tokens weighted.
        body_bytes: of its body.
    """

    ticket: str
    model: str
    class_: str
    tenant: str
    caller: str
    arrived_us: int
    deadline_us: int
    cost_tokens: int
    body_bytes: int
