"""The moves of one ticket: into the line, out of it, onto a seat, away. Pure; no rules are here.

``lua/shared/charge.lua``, ``waiting.lua`` and ``seats.lua`` do the same in the store.
"""

from serve_app.queueing.order import drain
from serve_app.queueing.order.flows import Flow, class_of, units
from serve_app.queueing.order.state import LineState, Ticket

REAPED_AT_ONCE = 256
"""Tickets that one step takes from the silent at most; the next one goes on."""


def roll(state: LineState, now_ms: int) -> None:
    """Begin a step: count from now on in the window of ``now_ms``, and the time of lent seats."""
    state.budget = REAPED_AT_ONCE
    number = drain.window_of(now_ms)
    for window in (state.ended, state.lent_ms, *(one.taken for one in state.tallies)):
        window.roll(number)
    since_ms = min(max(now_ms - state.counted_ms, 0), drain.WINDOW_MS) if state.counted_ms else 0
    state.lent_ms.add(state.lent * since_ms)
    state.counted_ms = now_ms


def flows_of(state: LineState, ticket: Ticket, now_ms: int) -> tuple[Flow, Flow]:
    """Return the flows of a ticket that comes, its tenant's and its caller's; new ones if need be.

    Those that do not wait are lifted to the virtual time; the weights are those it brings.
    """
    flow = state.flows.setdefault(ticket.flow, Flow())
    caller = state.flows.setdefault(ticket.caller_flow, Flow())
    flow.begin(state.tallies[ticket.class_].virtual)
    caller.begin(flow.virtual)
    flow.weight, caller.weight = ticket.weights
    state.seen.put(ticket.flow, now_ms)
    state.seen.put(ticket.caller_flow, now_ms)
    return flow, caller


def push(state: LineState, name: str, ticket: Ticket, now_us: int) -> None:
    """Put a ticket into its caller's line."""
    flow, caller = flows_of(state, ticket, now_us // 1_000)
    tally = state.tallies[ticket.class_]
    state.tickets[name] = ticket
    tally.ages.put(name, ticket.arrived_us)
    caller.inside.put(name, (ticket.due_us, ticket.arrived_us))
    caller.waiting += 1
    flow.waiting += 1
    tally.waiting += 1
    tally.body_bytes += ticket.body_bytes
    flow.inside.put(ticket.caller, caller.counter)
    if flow.waiting == 1:
        flow.since_us, flow.lifted = now_us, 0
        tally.flows += 1
    turn(state, ticket.flow)


def pull(state: LineState, name: str, ticket: Ticket) -> None:
    """Take a ticket out of its caller's line."""
    flow, caller = state.flows[ticket.flow], state.flows[ticket.caller_flow]
    tally = state.tallies[ticket.class_]
    tally.ages.drop(name)
    caller.inside.drop(name)
    caller.waiting -= 1
    flow.waiting -= 1
    tally.waiting -= 1
    tally.body_bytes -= ticket.body_bytes
    if not caller.waiting:
        flow.inside.drop(ticket.caller)
    if not flow.waiting:
        tally.flows -= 1
    turn(state, ticket.flow)


def turn(state: LineState, name: str) -> None:
    """Give a flow its place among those that wait, or none; and the time when it is lifted next."""
    flow, class_ = state.flows[name], class_of(name)
    rank = class_ - flow.lifted
    if not flow.waiting:
        state.turns.drop(name)
    elif flow.lifted:
        state.turns.put(name, (rank, 0, flow.since_us))
    else:
        state.turns.put(name, (rank, 1, flow.counter))
    if flow.waiting and rank > 0:
        state.lifts.put(name, flow.since_us + (flow.lifted + 1) * state.rules[class_].promote_us)
    else:
        state.lifts.drop(name)


def sit(
    state: LineState, name: str, ticket: Ticket, replica: str, *, rank: int, now_us: int
) -> None:
    """Seat a ticket that is in no line, and charge its flows what it is expected to cost."""
    flow, caller = state.flows[ticket.flow], state.flows[ticket.caller_flow]
    tally = state.tallies[ticket.class_]
    state.tickets[name] = ticket
    ticket.replica, ticket.rank, ticket.seated_us = replica, rank, now_us
    if not flow.lifted:
        tally.virtual = max(tally.virtual, flow.counter)
    flow.virtual = max(flow.virtual, caller.counter)
    ticket.weights = flow.weight, caller.weight
    ticket.charged = units(ticket.cost, flow.weight), units(ticket.cost, caller.weight)
    flow.since_us, flow.lifted = now_us, 0
    charge(state, ticket, ticket.charged)
    tally.running += 1
    tally.taken.add(1)
    state.lent += 1
    state.replicas[replica].lent += 1
    place(state, replica)


def charge(state: LineState, ticket: Ticket, more: tuple[int, int]) -> None:
    """Add to the counters of a ticket's flows, if they are still known; each gets its new place."""
    flow, caller = state.flows.get(ticket.flow), state.flows.get(ticket.caller_flow)
    if caller is not None:
        caller.charge(more[1])
    if flow is None:
        return
    flow.charge(more[0])
    if caller is not None and caller.waiting:
        flow.inside.put(ticket.caller, caller.counter)
    turn(state, ticket.flow)


def forget(state: LineState, name: str, ticket: Ticket, *, cost: int = -1) -> None:
    """Take a ticket away, wherever it is; of a seat, correct what was charged to ``cost``."""
    if not ticket.replica:
        pull(state, name, ticket)
    else:
        stand_up(state, ticket, used=cost != 0)
        if cost >= 0:
            real = units(cost, ticket.weights[0]), units(cost, ticket.weights[1])
            charge(state, ticket, (real[0] - ticket.charged[0], real[1] - ticket.charged[1]))
    del state.tickets[name]


def stand_up(state: LineState, ticket: Ticket, *, used: bool) -> None:
    """Give a seat back; one that was of no use, to a request that was refused, tells nothing."""
    state.tallies[ticket.class_].running -= 1
    state.lent -= 1
    state.ended.add(used)
    state.replicas[ticket.replica].lent -= 1
    place(state, ticket.replica)


def place(state: LineState, replica: str) -> None:
    """Give a replica its place among those that offer seats."""
    one = state.replicas[replica]
    if one.seats:
        state.room.put(replica, one.share)
    else:
        state.room.drop(replica)
