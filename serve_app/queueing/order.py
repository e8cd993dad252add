"""Who goes next, and where. Plain arithmetic on a plain state: no clock, no store, no await.

``store/lua/shared/line.lua`` and the ``line_*`` steps do the same; a test holds them equal, step by
step. The laws, each a property in the tests:

    Nobody is seated while an earlier ticket waits.
    No ticket waits while any replica has room.
    A replica never lends more seats than it offered when it lent them.
    A seat is given back once; a second leave changes nothing.
    Whoever is silent too long is forgotten, with everything it held, and nobody else is touched.
"""

from dataclasses import dataclass, field
from math import ceil, exp

REPLICA_SILENT_MS = 3_000
GATEWAY_SILENT_MS = 5_000
DRAIN_TAU_MS = 10_000
RETRY_MIN_S, RETRY_MAX_S = 1.0, 60.0


@dataclass(slots=True)
class LineState:
    """One model's line, as the store keeps it.

    Attributes:
        capacity: seats each replica offers.
        room: seats free on each replica; negative while it offers fewer than it lends.
        replica_beats_ms, gateway_beats_ms: last signs of life.
        line: waiting tickets and when they arrived, us.
        seats: seated tickets and their replica.
    """

    capacity: dict[str, int] = field(default_factory=dict)
    room: dict[str, int] = field(default_factory=dict)
    replica_beats_ms: dict[str, int] = field(default_factory=dict)
    gateway_beats_ms: dict[str, int] = field(default_factory=dict)
    line: dict[str, int] = field(default_factory=dict)
    seats: dict[str, str] = field(default_factory=dict)


def channel_of(ticket: str) -> str:
    """Return the wake channel of the gateway that holds ``ticket``."""
    return ticket.rpartition("/")[0]


def enter(
    state: LineState,
    ticket: str,
    *,
    now_us: int,
    max_tickets: int,
    avoid: str = "",
    arrived_us: int = 0,
) -> str:
    """Seat ``ticket``, let it wait, or turn it away; return ``seated``, ``waiting`` or ``full``.

    ``arrived_us`` above 0: it comes again, to its old place, and no bound turns it away.
    """
    state.gateway_beats_ms[channel_of(ticket)] = now_us // 1_000
    reap(state, now_us // 1_000)
    if ticket in state.seats:
        return "seated"
    if not state.line and (replica := roomiest(state, avoid)):
        _sit(state, ticket, replica)
        return "seated"
    if len(state.line) >= max_tickets and ticket not in state.line and not arrived_us:
        return "full"
    state.line.setdefault(ticket, arrived_us or now_us)
    seat_next(state)
    return "seated" if ticket in state.seats else "waiting"


def leave(state: LineState, ticket: str, *, now_ms: int) -> str:
    """Give a seat back or leave the line; return ``seat``, ``line`` or ``gone``."""
    said = "gone"
    if ticket in state.seats:
        _stand_up(state, ticket)
        said = "seat"
    elif state.line.pop(ticket, None) is not None:
        said = "line"
    reap(state, now_ms)
    seat_next(state)
    return said


def beat(state: LineState, replica: str, seats: int, *, now_ms: int) -> int:
    """Register or renew a replica that offers ``seats``; return how many it lends now."""
    state.replica_beats_ms[replica] = now_ms
    reap(state, now_ms)
    more = seats - state.capacity.get(replica, 0)
    state.capacity[replica] = seats
    state.room[replica] = state.room.get(replica, 0) + more
    seat_next(state)
    return seats - state.room[replica]


def tend(state: LineState, channel: str, *, now_ms: int) -> None:
    """Renew a gateway, forget the silent and seat whom there is room for."""
    state.gateway_beats_ms[channel] = now_ms
    reap(state, now_ms)
    seat_next(state)


def withdraw(state: LineState, replica: str) -> None:
    """Take a replica out, with the seats it lent."""
    for table in (state.capacity, state.room, state.replica_beats_ms):
        table.pop(replica, None)
    state.seats = {ticket: at for ticket, at in state.seats.items() if at != replica}


def forget_gateway(state: LineState, channel: str) -> None:
    """Take a gateway out, with its tickets and seats."""
    state.gateway_beats_ms.pop(channel, None)
    for ticket in [ticket for ticket in state.seats if channel_of(ticket) == channel]:
        _stand_up(state, ticket)
    state.line = {t: at for t, at in state.line.items() if channel_of(t) != channel}


def reap(state: LineState, now_ms: int) -> None:
    """Forget every replica and gateway that was silent too long."""
    for replica, beat_ms in list(state.replica_beats_ms.items()):
        if beat_ms <= now_ms - REPLICA_SILENT_MS:
            withdraw(state, replica)
    for channel, beat_ms in list(state.gateway_beats_ms.items()):
        if beat_ms <= now_ms - GATEWAY_SILENT_MS:
            forget_gateway(state, channel)


def seat_next(state: LineState) -> list[str]:
    """Seat the first in line while there is room; return who was seated."""
    seated = []
    while state.line and (replica := roomiest(state)):
        ticket = min(state.line, key=lambda waiting: (state.line[waiting], waiting))
        del state.line[ticket]
        _sit(state, ticket, replica)
        seated.append(ticket)
    return seated


def roomiest(state: LineState, avoid: str = "") -> str | None:
    """Return the replica with the most room, another than ``avoid`` if there is one with any."""
    free = sorted(((n, name) for name, n in state.room.items() if n > 0), reverse=True)
    if len(free) > 1 and free[0][1] == avoid:
        return free[1][1]
    return free[0][1] if free else None


def _sit(state: LineState, ticket: str, replica: str) -> None:
    state.seats[ticket] = replica
    state.room[replica] -= 1


def _stand_up(state: LineState, ticket: str) -> None:
    replica = state.seats.pop(ticket)
    if replica in state.room:
        state.room[replica] += 1


def drain_rate(rate: float, age_ms: int, left: int) -> float:
    """Return seats freed a second: the last ``rate``, faded over ``age_ms``, and ``left`` more."""
    return rate * exp(-age_ms / DRAIN_TAU_MS) + left * 1_000 / DRAIN_TAU_MS


def retry_after_s(waiting: int, rate: float, jitter: float) -> float:
    """Return when to come again: once those waiting are likely seated.

    Args:
        waiting: tickets in line.
        rate: seats freed a second, as measured.
        jitter: 0 to 1, drawn by the caller; spreads the answers over a quarter.
    """
    wait_s = (waiting + 1) / rate if rate > 0 else RETRY_MAX_S
    return ceil(min(max(wait_s, RETRY_MIN_S), RETRY_MAX_S) * (1 + jitter / 4))
