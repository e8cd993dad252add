"""Who goes next, told in five ways; a simulation asks each the same.

    ours            ``serve_app.queueing.order``, one line for all gateways
    by process      the same, but each of four gateways has a line and a quarter of every
                    replica's seats, and a request comes to one of them at random
    first come      first come, first served, whatever the class
    strict          higher classes first, and first come, first served inside a class; no aging
    round robin     higher classes first, and the tenants of a class one request each in turn

All share the rules of the classes: how full a replica may be, and how many may wait. Only ours
turns away who would wait too long.
"""

import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from benchmarks.traces import CLASSES, Request
from serve_app.queueing import order
from serve_app.queueing.order.ordered import Ordered
from serve_app.queueing.order.state import LineState, Replica, Rule, Ticket

GATEWAYS = 4


class Policy(Protocol):
    """A line in virtual time; requests go by their numbers.

    Attributes:
        seated: who got a seat, until somebody empties the list.
        dropped: who was taken out of the line, or left a seat.
    """

    seated: list[int]
    dropped: list[int]

    def enter(self, at: int, request: Request, now_us: int, /) -> bool:
        """Seat a request or let it wait; return False if it is turned away."""

    def leave(self, at: int, cost: int, now_us: int, /) -> None:
        """Give a seat back for what it cost, or leave the line (``cost`` is then -1)."""

    def tend(self, now_us: int, /) -> None:
        """Do what is due by time alone; called each second."""


class Noted(dict[str, Ticket]):
    """The tickets of a line, and which of them moved."""

    def __init__(self) -> None:
        super().__init__()
        self.put: dict[str, Ticket] = {}
        self.gone: list[str] = []

    def __setitem__(self, name: str, ticket: Ticket) -> None:
        super().__setitem__(name, ticket)
        self.put[name] = ticket

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        self.gone.append(name)


class Ours:
    """The line of this gate: ``serve_app.queueing.order`` as it is."""

    def __init__(self, rules: list[Rule], replicas: int, seats: int) -> None:
        self.seated: list[int] = []
        self.dropped: list[int] = []
        self._moves = Noted()
        self._state = LineState(rules=rules, tickets=self._moves)
        for number in range(replicas):
            order.beat(self._state, f"r{number}", seats, now_us=0)
            self._state.beats.drop(f"r:r{number}")  # it never falls silent

    def enter(self, at: int, request: Request, now_us: int) -> bool:
        """Seat a request, let it wait or turn it away."""
        ticket = Ticket(
            class_=request.class_,
            tenant=request.tenant,
            caller=request.key,
            cost=request.guess,
            body_bytes=0,
            arrived_us=request.at_us,
            due_us=request.deadline_us,
            deadline_us=request.deadline_us,
            weights=(request.weight, 1.0),
        )
        told = order.enter(self._state, f"g/{at}", ticket, now_us=now_us)
        self._note()
        return told.said in ("seated", "waiting")

    def leave(self, at: int, cost: int, now_us: int) -> None:
        """Give a seat back, or leave the line."""
        order.leave(self._state, f"g/{at}", cost, now_us=now_us)
        self._note()

    def tend(self, now_us: int) -> None:
        """Do what is due by time alone."""
        order.tend(self._state, "g", now_us=now_us)
        self._note()

    def _note(self) -> None:
        """Tell who moved in the last step."""
        moves = self._moves
        self.dropped += [int(name[2:]) for name in moves.gone]
        self.seated += [int(name[2:]) for name, ticket in moves.put.items() if ticket.replica]
        moves.put.clear()
        moves.gone.clear()


class ByProcess:
    """A line in each of several gateways, none of which knows of the others."""

    def __init__(self, rules: list[Rule], replicas: int, seats: int, seed: int = 0) -> None:
        self.seated: list[int] = []
        self.dropped: list[int] = []
        own = [replace(rule, max_tickets=rule.max_tickets // GATEWAYS) for rule in rules]
        self._lines = [Ours(own, replicas, seats // GATEWAYS) for _ in range(GATEWAYS)]
        self._draw = random.Random(seed)
        self._of: dict[int, Ours] = {}
        for line in self._lines:
            line.seated, line.dropped = self.seated, self.dropped

    def enter(self, at: int, request: Request, now_us: int) -> bool:
        """Seat a request, let it wait or turn it away."""
        self._of[at] = self._draw.choice(self._lines)
        return self._of[at].enter(at, request, now_us)

    def leave(self, at: int, cost: int, now_us: int) -> None:
        """Give a seat back, or leave the line."""
        self._of[at].leave(at, cost, now_us)

    def tend(self, now_us: int) -> None:
        """Do what is due by time alone."""
        for line in self._lines:
            line.tend(now_us)


class Waiting(Protocol):
    """Requests that wait, in some order."""

    def push(self, at: int, request: Request) -> None:
        """Let one wait."""

    def first(self) -> int | None:
        """Return who goes next."""

    def pull(self, at: int, request: Request, served: bool, /) -> None:
        """Take one out: it is served, or has waited too long."""


class Ranked:
    """First come, first served; inside a class, if ``strict``."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._line: Ordered[int] = Ordered()

    def push(self, at: int, request: Request) -> None:
        """Let one wait."""
        self._line.put(at, request.class_ if self._strict else 0)

    def first(self) -> int | None:
        """Return who goes next."""
        first = self._line.first()
        return None if first is None else first[1]

    def pull(self, at: int, _request: Request, _served: bool) -> None:
        """Take one out."""
        self._line.drop(at)


class InTurn:
    """Higher classes first; inside a class the tenants that wait have one request each in turn."""

    def __init__(self) -> None:
        self._classes = [OrderedDict[str, OrderedDict[int, None]]() for _ in CLASSES]

    def push(self, at: int, request: Request) -> None:
        """Let one wait."""
        self._classes[request.class_].setdefault(request.tenant, OrderedDict())[at] = None

    def first(self) -> int | None:
        """Return who goes next."""
        tenants = next(filter(None, self._classes), None)
        return None if tenants is None else next(iter(next(iter(tenants.values()))))

    def pull(self, at: int, request: Request, served: bool) -> None:
        """Take one out."""
        tenants = self._classes[request.class_]
        del tenants[request.tenant][at]
        if not tenants[request.tenant]:
            del tenants[request.tenant]
        elif served:
            tenants.move_to_end(request.tenant)


class Plain:
    """Seats by the rules of the classes for whoever goes next of those that wait."""

    def __init__(self, waiting: Waiting, rules: list[Rule], replicas: int, seats: int) -> None:
        self.seated: list[int] = []
        self.dropped: list[int] = []
        self._waiting, self._rules = waiting, rules
        self._requests: dict[int, Request] = {}
        self._many = [0 for _ in rules]
        self._replicas = [Replica(seats) for _ in range(replicas)]
        self._room: Ordered[int] = Ordered()
        for number in range(replicas):
            self._room.put(number, 0)
        self._seats: dict[int, int] = {}

    def enter(self, at: int, request: Request, _now_us: int) -> bool:
        """Seat a request, let it wait or turn it away."""
        if self._many[request.class_] >= self._rules[request.class_].max_tickets:
            return False
        self._requests[at] = request
        self._many[request.class_] += 1
        self._waiting.push(at, request)
        self._seat_next()
        return True

    def leave(self, at: int, _cost: int, _now_us: int) -> None:
        """Give a seat back, or leave the line."""
        if at in self._seats:
            self._lend(self._seats.pop(at), -1)
        else:
            self._pull(at, served=False)
        self.dropped.append(at)
        self._seat_next()

    def tend(self, _now_us: int) -> None:
        """Nothing is due by time alone."""

    def _pull(self, at: int, *, served: bool) -> Request:
        request = self._requests.pop(at)
        self._many[request.class_] -= 1
        self._waiting.pull(at, request, served)
        return request

    def _seat_next(self) -> None:
        """Seat who goes next for as long as there is room for it."""
        while (at := self._waiting.first()) is not None:
            share, replica = self._room.first() or (0, 0)
            if share >= self._rules[self._requests[at].class_].ceiling:
                return
            self._pull(at, served=True)
            self._lend(replica, 1)
            self._seats[at] = replica
            self.seated.append(at)

    def _lend(self, replica: int, more: int) -> None:
        self._replicas[replica].lent += more
        self._room.put(replica, self._replicas[replica].share)


def _first_come(rules: list[Rule], replicas: int, seats: int) -> Policy:
    return Plain(Ranked(strict=False), rules, replicas, seats)


def _strict(rules: list[Rule], replicas: int, seats: int) -> Policy:
    return Plain(Ranked(strict=True), rules, replicas, seats)


def _in_turn(rules: list[Rule], replicas: int, seats: int) -> Policy:
    return Plain(InTurn(), rules, replicas, seats)


POLICIES: dict[str, Callable[[list[Rule], int, int], Policy]] = {
    "ours": Ours,
    "by process": ByProcess,
    "first come": _first_come,
    "strict": _strict,
    "round robin": _in_turn,
}
