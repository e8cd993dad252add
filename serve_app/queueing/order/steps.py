"""The steps of the line, each of them atomic. Their laws are at the door. Pure."""

from serve_app.queueing.order.moves import flows_of, forget, place, pull, push, roll, sit, turn
from serve_app.queueing.order.promises import Told, forget_stale, fulfil, refusal
from serve_app.queueing.order.state import LineState, Replica, Ticket

REPLICA_SILENT_MS = 2_000
GATEWAY_SILENT_MS = 5_000
IDLE_MS = 600_000
"""After so long a flow that neither waits nor comes is forgotten, with its debt."""

SEATED_AT_ONCE = LIFTED_AT_ONCE = FORGOTTEN_AT_ONCE = 64
"""What one step does at most; the next one goes on."""


def channel_of(ticket: str) -> str:
    """Return the wake channel of the gateway that holds ``ticket``."""
    return ticket.rpartition("/")[0]


def enter(
    state: LineState,
    name: str,
    ticket: Ticket,
    *,
    now_us: int,
    again: bool = False,
) -> Told:
    """Seat ``ticket``, let it wait, or turn it away.

    Args:
        state: changed in place.
        name: of the ticket; one that is known already enters once.
        ticket: as it comes.
        now_us: the time.
        again: it was in line before: no bound turns it away.
    """
    now_ms = now_us // 1_000
    channel = channel_of(name)
    if "g:" + channel not in state.beats:
        state.beats.put("e:" + channel, now_ms)
    roll(state, now_ms)
    if name in state.tickets:
        return Told("seated" if state.tickets[name].replica else "waiting")
    if state.mode == "draining" and not again:
        return Told("draining")
    replica = seat_for(state, ticket.class_, ticket)
    first = state.turns.first()
    if replica is not None and (first is None or first[0][0] > ticket.class_):
        _, caller = flows_of(state, ticket, now_ms)
        fulfil(state, ticket, caller, now_ms)
        sit(state, name, ticket, replica, rank=ticket.class_, now_us=now_us)
        return Told("seated")
    if not again and (told := refusal(state, name, ticket, now_ms)):
        return told
    push(state, name, ticket, now_us)
    return Told("waiting")


def leave(state: LineState, name: str, cost: int, *, now_us: int) -> str:
    """Give a seat back or leave the line; return ``seat``, ``line`` or ``gone``.

    ``cost`` is what the request really cost, tokens; below 0: as expected.
    """
    roll(state, now_us // 1_000)
    ticket = state.tickets.get(name)
    if ticket is None:
        state.cancelled.discard(name)
        return "gone"
    said = "seat" if ticket.replica else "line"
    forget(state, name, ticket, cost=cost)
    seat_next(state, now_us)
    return said


def beat(state: LineState, replica: str, seats: int, *, now_us: int) -> int:
    """Register or renew a replica that offers ``seats``; return how many it lends now."""
    state.beats.put("r:" + replica, now_us // 1_000)
    tidy(state, now_us)
    known = state.replicas.setdefault(replica, Replica())
    known.seats, known.gone = seats, False
    place(state, replica)
    seat_next(state, now_us)
    return known.lent


def tend(state: LineState, channel: str, *, now_us: int) -> None:
    """Renew a gateway, forget the silent and seat whom there is room for."""
    now_ms = now_us // 1_000
    state.beats.put("g:" + channel, now_ms)
    state.beats.drop("e:" + channel)
    tidy(state, now_us)
    forget_idle(state, now_ms)
    for tally in state.tallies:
        forget_stale(tally, now_ms)
    seat_next(state, now_us)


def withdraw(state: LineState, replica: str, *, now_us: int) -> None:
    """Take a replica out, with the seats it lent; nobody is charged for those."""
    tidy(state, now_us)
    _withdrawn(state, replica)
    seat_next(state, now_us)


def _withdrawn(state: LineState, replica: str) -> None:
    if replica in state.replicas:
        state.replicas[replica].seats, state.replicas[replica].gone = 0, True
        place(state, replica)
    held = [name for name, one in state.tickets.items() if one.replica == replica]
    if _emptied(state, "r:" + replica, held, cost=0):
        state.replicas.pop(replica, None)


def retire(state: LineState, channel: str, *, now_us: int) -> None:
    """Take a gateway out, with its tickets and seats."""
    tidy(state, now_us)
    _retired(state, "g:" + channel)
    seat_next(state, now_us)


def _retired(state: LineState, owner: str) -> None:
    channel = owner[2:]
    held = [name for name in state.tickets if channel_of(name) == channel]
    held += [name for name in state.cancelled if channel_of(name) == channel]
    _emptied(state, owner, held)


def _emptied(state: LineState, owner: str, held: list[str], *, cost: int = -1) -> bool:
    """Take away what ``owner`` holds; return whether that was all, or the next step goes on."""
    budget = state.budget
    kinds = {name: _kind(state, name) for name in held}
    for name in sorted(held, key=lambda one: (kinds[one], one))[:budget]:
        if name in state.tickets:
            forget(state, name, state.tickets[name], cost=cost)
        state.cancelled.discard(name)
    state.budget -= min(len(held), budget)
    if len(held) < budget:
        state.beats.drop(owner)
    else:
        state.beats.put(owner, 0)
    return len(held) < budget


def _kind(state: LineState, name: str) -> str:
    """Return how a ticket stands: it sits, waits, or was sent away."""
    if name not in state.tickets:
        return "x"
    return "s" if state.tickets[name].replica else "w"


def cancel(state: LineState, name: str, *, now_us: int) -> bool:
    """Send a waiting ticket away; return whether it waited."""
    tidy(state, now_us)
    ticket = state.tickets.get(name)
    if ticket is None or ticket.replica:
        return False
    forget(state, name, ticket)
    state.cancelled.add(name)
    seat_next(state, now_us)
    return True


def set_mode(state: LineState, mode: str, *, now_us: int) -> None:
    """Open the line, pause it or let it run dry."""
    tidy(state, now_us)
    state.mode = mode
    seat_next(state, now_us)


def tidy(state: LineState, now_us: int) -> None:
    """Forget the silent, and lift the flows whose time has come."""
    now_ms = now_us // 1_000
    roll(state, now_ms)
    oldest = state.beats.first()
    if oldest is not None and oldest[0] <= now_ms - REPLICA_SILENT_MS:
        _reap(state, now_us)
    for _ in range(LIFTED_AT_ONCE):
        due = state.lifts.first()
        if due is None or due[0] > now_us:
            break
        state.flows[due[1]].lifted += 1
        turn(state, due[1])


def _reap(state: LineState, now_us: int) -> None:
    """Take out whoever was silent too long."""
    now_ms = now_us // 1_000
    for who in list(state.beats)[:FORGOTTEN_AT_ONCE]:
        beat_ms = state.beats.key(who)
        if who[0] == "r" and beat_ms <= now_ms - REPLICA_SILENT_MS:
            _withdrawn(state, who[2:])
        elif who[0] != "r" and beat_ms <= now_ms - GATEWAY_SILENT_MS:
            _retired(state, who)


def forget_idle(state: LineState, now_ms: int) -> None:
    """Forget flows that nobody has used for :data:`IDLE_MS`."""
    for _ in range(FORGOTTEN_AT_ONCE):
        oldest = state.seen.first()
        if oldest is None or oldest[0] > now_ms - IDLE_MS:
            return
        name = oldest[1]
        if state.flows[name].waiting:
            state.seen.put(name, now_ms)
        else:
            del state.flows[name]
            state.seen.drop(name)


def seat_next(state: LineState, now_us: int) -> list[str]:
    """Seat those whose turn it is while there is room; return who was seated."""
    seated: list[str] = []
    for _ in range(SEATED_AT_ONCE):
        first = state.turns.first()
        replica = None if first is None else roomiest(state, first[0][0])
        if first is None or replica is None:
            break
        name = _next_of(state, first[1])
        ticket = state.tickets[name]
        if ticket.deadline_us < now_us:
            forget(state, name, ticket)
            continue
        pull(state, name, ticket)
        replica = seat_for(state, first[0][0], ticket) or replica
        sit(state, name, ticket, replica, rank=first[0][0], now_us=now_us)
        seated.append(name)
    return seated


def _next_of(state: LineState, flow: str) -> str:
    """Return the ticket that goes next of a flow that waits."""
    _, caller = state.flows[flow].inside.first() or (0, "")
    _, name = state.flows[f"{flow}|{caller}"].inside.first() or (0, "")
    return name


def may_sit(state: LineState, replica: str, rank: int) -> bool:
    """Return whether a ticket of ``rank`` may sit on ``replica`` now."""
    return state.mode != "paused" and state.replicas[replica].share < state.rules[rank].ceiling


def seat_for(state: LineState, rank: int, ticket: Ticket) -> str | None:
    """Return where a ticket may sit now: where it prefers to, else where there is most room.

    What it prefers may lend a quarter more seats than the mean of all, with this one: consistent
    hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, SODA 2018).
    """
    prefer = ticket.prefer
    if prefer and prefer != ticket.avoid and prefer in state.room:
        evenly = 4 * state.replicas[prefer].lent * len(state.room) < 5 * (state.lent + 1)
        if evenly and may_sit(state, prefer, rank):
            return prefer
    return roomiest(state, rank, ticket.avoid)


def roomiest(state: LineState, rank: int, avoid: str = "") -> str | None:
    """Return the emptiest replica that seats ``rank`` now, if it can be another than ``avoid``."""
    first = state.room.first()
    if first is None:
        return None
    if first[1] == avoid and len(state.room) > 1:
        other = next(name for name in state.room if name != avoid)
        if may_sit(state, other, rank):
            return other
    return first[1] if may_sit(state, first[1], rank) else None
