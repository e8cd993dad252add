"""A seat, and what is counted of a model's seats and line."""

from dataclasses import dataclass

from serve_app.store import Address


@dataclass(frozen=True, slots=True)
class Seat:
    """Permission to run one request on one replica.

    Attributes:
        replica: its id.
        address: how to reach it.
        arrived_us: when the request first came; hand it in when entering again.
        waited_ms: time in line.
        served_class: the class it was seated in.
    """

    replica: str
    address: Address
    arrived_us: int
    waited_ms: float
    served_class: str


@dataclass(frozen=True, slots=True)
class Load:
    """What the store counted of one model at the last look.

    Attributes:
        running, waiting: requests with a seat, requests in line.
        replicas, seats: replicas registered, and the seats they offer.
        oldest_ms: how long the first in line has waited.
        drain_per_s: seats that come free a second.
        failing: there is no replica, and the last start of one failed.
        gateways: that tend the line.
    """

    running: int = 0
    waiting: int = 0
    replicas: int = 0
    seats: int = 0
    oldest_ms: int = 0
    drain_per_s: float = 0.0
    failing: bool = False
    gateways: int = 1
