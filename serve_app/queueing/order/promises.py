"""Who may not wait, and when it is to come again: places are kept for whoever was told. Pure.

A refused request is told when a place in line will be free that nobody else was told of. At that
time the place is kept for its caller, for :data:`drain.GRACE_MS`; who comes for the first time
meanwhile is told a later one. Which request of a caller is the one that was told nobody can see,
but its client may say which is not: a first try. ``lua/shared/promises.lua`` and ``refusal.lua`` do
the same in the store.
"""

from dataclasses import dataclass

from serve_app.queueing.order import drain
from serve_app.queueing.order.flows import Flow
from serve_app.queueing.order.state import LineState, Tally, Ticket

FORGOTTEN_AT_ONCE = 64
"""Promises that nobody came for, forgotten by one step at most."""

FOREVER_MS = 10**13
PROMISED_AT_ONCE = 64
"""Places that are kept for one caller at most."""


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

    Places are kept for those that were told to come again and whose time has come, half of all at
    most: whoever obeys finds one, and who comes for the first time is told a later time.
    """
    tally, rule = state.tallies[ticket.class_], state.rules[ticket.class_]
    caller = state.flows.get(ticket.caller_flow)
    mine = caller and not ticket.is_first_try and _kept_for(caller, now_ms)
    forget_stale(tally, now_ms)
    # seats may come free in one burst: for all who come within the time of one seat
    soon_ms = state.lent_ms.total // max(state.ended.total, 1)
    kept = 0 if mine else _kept_until(tally, now_ms + soon_ms, now_ms)
    kept = min(kept, rule.max_tickets // 2)
    wait, patience = wait_ms(state, ticket, kept, now_ms), ticket.deadline_us / 1_000 - now_ms
    full = tally.waiting + kept >= rule.max_tickets
    if not full and tally.body_bytes + ticket.body_bytes <= rule.max_bytes and wait <= patience:
        if caller:
            fulfil(state, ticket, caller, now_ms)
        return None
    rate = _left(state, ticket.class_, now_ms)
    after = max(drain.wait_ms(_kept_until(tally, FOREVER_MS, now_ms), rate), wait - patience)
    if 0 < after <= drain.RETRY_MAX_S * 1_000:
        _promise(state, name, ticket, now_ms, int(after))
    return Told("late" if wait > patience else "full", wait, after)


def _promise(state: LineState, name: str, ticket: Ticket, now_ms: int, after_ms: int) -> None:
    """Keep a place for the caller of a refused ticket."""
    for flow in (ticket.flow, ticket.caller_flow):
        state.flows.setdefault(flow, Flow())
        state.seen.put(flow, now_ms)
    caller = state.flows[ticket.caller_flow]
    if len(caller.promised) < PROMISED_AT_ONCE:
        caller.promised.append(now_ms + after_ms)
        state.tallies[ticket.class_].promised.put(name, now_ms + after_ms)


def _kept_for(caller: Flow, now_ms: int) -> list[int]:
    """Return the promises to a caller whose time it is."""
    return [due for due in caller.promised if due <= now_ms <= due + drain.GRACE_MS]


def fulfil(state: LineState, ticket: Ticket, caller: Flow, now_ms: int) -> None:
    """Take note that a caller came, perhaps as it was told."""
    if not caller.promised:
        return
    mine = [] if ticket.is_first_try else _kept_for(caller, now_ms)
    caller.promised = [due for due in caller.promised if now_ms <= due + drain.GRACE_MS]
    if mine:
        caller.promised.remove(mine[0])
        promised = state.tallies[ticket.class_].promised
        if first := promised.first():
            promised.drop(first[1])


def forget_stale(tally: Tally, now_ms: int) -> None:
    """Forget places that were kept too long."""
    for _ in range(FORGOTTEN_AT_ONCE):
        first = tally.promised.first()
        if first is None or first[0] > now_ms - drain.GRACE_MS:
            break
        tally.promised.drop(first[1])


def _kept_until(tally: Tally, until_ms: int, now_ms: int) -> int:
    """Return how many places are kept for whoever comes until then."""
    return tally.promised.up_to(until_ms) - tally.promised.up_to(now_ms - drain.GRACE_MS)


def _left(state: LineState, class_: int, now_ms: int) -> float:
    """Return how many seats come free in a ms for a class."""
    freed = drain.freed_per_ms(state.lent, state.ended.total, state.lent_ms.total)
    taken = sum(one.taken.total for one in state.tallies[:class_])
    return drain.left_per_ms(freed, drain.per_ms(taken, now_ms))
