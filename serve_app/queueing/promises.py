"""Who may not wait, and when it is to come again: places are kept for whoever was told. Pure.

A refused request is told when a place in line will be free that nobody else was told of. At that
time the place is kept for its caller, for :data:`drain.GRACE_MS`; who comes for the first time
meanwhile is told a later one. ``lua/shared/promises.lua`` does the same in the store.
"""

from dataclasses import dataclass

from serve_app.queueing import drain
from serve_app.queueing.flows import Flow
from serve_app.queueing.state import LineState, Tally, Ticket

FORGOTTEN_AT_ONCE = 64
"""Promises that nobody came for, forgotten by one step at most."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a newcomer is told.

    Attributes:
        said: ``seated``, ``waiting``, ``full`` (as many wait as may), ``late`` (it would wait too
            long) or ``draining``.
        wait_ms: what it would wait; 0 if nobody can tell.
        after_ms: when to come again, if it may not stay; 0 if nobody can tell.
    """

    said: str
    wait_ms: float = 0.0
    after_ms: float = 0.0


def wait_ms(state: LineState, ticket: Ticket, kept: int, now_ms: int) -> float:
    """Return what one more like ``ticket`` would wait, behind ``kept`` places; 0 if unknown.

    Ahead of it are all that wait in higher classes, and of its own as many as have a turn before.
    """
    above, own = state.tallies[: ticket.class_], state.tallies[ticket.class_]
    flow = state.flows.get(ticket.flow)
    turns = ((flow.waiting if flow else 0) + 1) * own.flows
    ahead = sum(one.waiting for one in above) + min(own.waiting, turns) + kept
    return drain.wait_ms(ahead, _left(state, ticket.class_, now_ms))


def refusal(state: LineState, name: str, ticket: Ticket, now_ms: int) -> Told | None:
    """Return what a newcomer is told that may not wait; None if it may.

    Places are kept for those that were told to come again and whose time has come: whoever obeys
    finds one, and who comes for the first time meanwhile is told a later time.
    """
    tally, rule = state.tallies[ticket.class_], state.rules[ticket.class_]
    caller = state.flows.get(ticket.caller_flow)
    kept = 0 if caller and _is_promised(caller, now_ms) else _due(tally, now_ms)
    wait, patience = wait_ms(state, ticket, kept, now_ms), ticket.deadline_us / 1_000 - now_ms
    full = tally.waiting + kept >= rule.max_tickets
    if not full and tally.body_bytes + ticket.body_bytes <= rule.max_bytes and wait <= patience:
        if caller:
            fulfil(state, ticket, caller, now_ms)
        return None
    rate = _left(state, ticket.class_, now_ms)
    after = max(drain.wait_ms(len(tally.promised), rate), wait - patience)
    if 0 < after <= drain.RETRY_MAX_S * 1_000:
        _promise(state, name, ticket, now_ms, int(after))
    return Told("late" if wait > patience else "full", wait, after)


def _promise(state: LineState, name: str, ticket: Ticket, now_ms: int, after_ms: int) -> None:
    """Keep a place for the caller of a refused ticket."""
    due_ms = now_ms + after_ms
    state.tallies[ticket.class_].promised.put(name, due_ms)
    caller = state.flows.setdefault(ticket.caller_flow, Flow())
    state.seen.put(ticket.caller_flow, now_ms)
    begins_ms, ends_ms = caller.promised_ms
    if now_ms > ends_ms:
        caller.promised, begins_ms = 0, due_ms
    caller.promised += 1
    caller.promised_ms = begins_ms, max(ends_ms, due_ms + drain.GRACE_MS)


def _is_promised(caller: Flow, now_ms: int) -> bool:
    begins_ms, ends_ms = caller.promised_ms
    return caller.promised > 0 and begins_ms <= now_ms <= ends_ms


def fulfil(state: LineState, ticket: Ticket, caller: Flow, now_ms: int) -> None:
    """Take note that a caller came again as it was told."""
    promised = state.tallies[ticket.class_].promised
    if _is_promised(caller, now_ms):
        caller.promised -= 1
        if first := promised.first():
            promised.drop(first[1])


def _due(tally: Tally, now_ms: int) -> int:
    """Return how many places are kept now; what was kept too long is forgotten."""
    for _ in range(FORGOTTEN_AT_ONCE):
        first = tally.promised.first()
        if first is None or first[0] > now_ms - drain.GRACE_MS:
            break
        tally.promised.drop(first[1])
    return tally.promised.up_to(now_ms)


def _left(state: LineState, class_: int, now_ms: int) -> float:
    """Return how many seats come free in a ms for a class."""
    freed = drain.freed_per_ms(state.lent, state.ended.total, state.lent_ms.total)
    taken = sum(one.taken.total for one in state.tallies[:class_])
    return drain.left_per_ms(freed, drain.per_ms(taken, now_ms))
