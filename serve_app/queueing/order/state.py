"""What the store keeps of one model's line: tickets, classes, replicas. Plain state, no rules."""

from dataclasses import dataclass, field

from serve_app.queueing.order.drain import Window
from serve_app.queueing.order.flows import Flow, flow_name
from serve_app.queueing.order.ordered import Counted, Ordered

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for one class.

    Attributes:
        ceiling: a replica seats it while fewer than this share of its seats is lent, millionths.
        promote_us: how long a flow goes unserved before it counts one class higher.
        max_tickets, max_bytes: that may wait at once.
    """

    ceiling: int = MILLION
    promote_us: int = 15_000_000
    max_tickets: int = 2_000
    max_bytes: int = 2**28


@dataclass(slots=True)
class Ticket:
    """One request that waits or runs.

    Attributes:
        class_: its class, 0 for the highest.
        tenant, caller: whose it is.
        cost: tokens it is expected to cost.
        body_bytes: that it keeps in its gateway's memory.
        arrived_us: when it first came.
        due_us: the earlier, the earlier its turn among its caller's.
        deadline_us: until when it waits.
        weights: its tenant's and its caller's.
        is_first_try: whether its client says that it was not told to come; never kept.
        avoid: a replica that just failed it; empty for none.
        prefer: a replica that may have its prompt's beginning in its cache; empty for none.
        replica: where it is seated; empty while it waits.
        rank: the class it was seated as.
        seated_us: since when.
        charged: units its tenant and its caller were charged.
        flow, caller_flow: names of its tenant's flow and of its caller's.
    """

    class_: int
    tenant: str
    caller: str
    cost: int
    body_bytes: int
    arrived_us: int
    due_us: int
    deadline_us: int
    weights: tuple[float, float] = (1.0, 1.0)
    is_first_try: bool = False
    avoid: str = ""
    prefer: str = ""
    replica: str = ""
    rank: int = 0
    seated_us: int = 0
    charged: tuple[int, int] = (0, 0)
    flow: str = field(init=False)
    caller_flow: str = field(init=False)

    def __post_init__(self) -> None:
        self.flow = flow_name(self.class_, self.tenant)
        self.caller_flow = flow_name(self.class_, self.tenant, self.caller)


@dataclass(slots=True)
class Tally:
    """What is counted of one class.

    Attributes:
        virtual: its virtual time, units.
        waiting, body_bytes: tickets that wait, and their bodies.
        running: tickets of it that are seated.
        flows: of it that wait.
        taken: its seats taken lately.
        ages: its waiting tickets by arrival, us.
        promised: places kept for who was told to come again; by when it was told to, ms.
    """

    virtual: int = 0
    waiting: int = 0
    body_bytes: int = 0
    running: int = 0
    flows: int = 0
    taken: Window = field(default_factory=Window)
    ages: Ordered[str] = field(default_factory=Ordered)
    promised: Counted[str] = field(default_factory=Counted)


@dataclass(slots=True)
class Replica:
    """Seats that a replica offers, and those it lends; ``gone`` if it only waits to be emptied."""

    seats: int = 0
    lent: int = 0
    gone: bool = False

    @property
    def share(self) -> int:
        """How full it is, in millionths."""
        return self.lent * MILLION // self.seats


@dataclass(slots=True)
class LineState:
    """One model's line.

    Attributes:
        rules: of its classes, highest first.
        mode: ``open``, ``paused`` (nobody is seated) or ``draining`` (nobody new comes in).
        tallies: of each class.
        tickets: all that wait or run.
        flows: what tenants and callers were served.
        seen: when each flow was last used, ms.
        turns: the flows that wait, in the order in which they go.
        lifts: when each is next lifted, us.
        replicas: by name.
        room: those that offer seats, the emptiest first.
        beats: last sign of life of ``r:replica`` and ``g:channel``, ms; of ``e:channel``: one that
            sent a ticket and was not known.
        lent: seats lent, all together.
        ended: seats given back lately, of those that were of use.
        lent_ms: how long seats were lent lately, all of them together, those still lent too.
        counted_ms: until when that is counted; 0 if it never was.
        cancelled: tickets that operators sent away, until their gateways know.
        budget: tickets that the present step may still take from the silent.
    """

    rules: list[Rule]
    mode: str = "open"
    tallies: list[Tally] = field(default_factory=list)
    tickets: dict[str, Ticket] = field(default_factory=dict)
    flows: dict[str, Flow] = field(default_factory=dict)
    seen: Ordered[str] = field(default_factory=Ordered)
    turns: Ordered[str] = field(default_factory=Ordered)
    lifts: Ordered[str] = field(default_factory=Ordered)
    replicas: dict[str, Replica] = field(default_factory=dict)
    room: Ordered[str] = field(default_factory=Ordered)
    beats: Ordered[str] = field(default_factory=Ordered)
    lent: int = 0
    ended: Window = field(default_factory=Window)
    lent_ms: Window = field(default_factory=Window)
    counted_ms: int = 0
    cancelled: set[str] = field(default_factory=set)
    budget: int = 0

    def __post_init__(self) -> None:
        self.tallies = self.tallies or [Tally() for _ in self.rules]
