"""When a server of the store is left in peace, and when it is asked again. Pure.

whole ──lost──→ cut        calls are refused at once; probes go out
whole ──refused─→ limping  calls go through; probes go out, so that its state is known
either ──well──→ whole     a probe was answered
"""

from typing import Literal

from serve_app.store.states import AWAY, OK, REFUSING

Position = Literal["whole", "limping", "cut"]
Event = Literal["lost", "refused", "well"]

MOVES: dict[tuple[Position, Event], Position] = {
    ("whole", "well"): "whole",
    ("whole", "lost"): "cut",
    ("whole", "refused"): "limping",
    ("limping", "well"): "whole",
    ("limping", "lost"): "cut",
    ("limping", "refused"): "limping",
    ("cut", "well"): "whole",
    ("cut", "lost"): "cut",
    ("cut", "refused"): "limping",
}
PROBE_S = 0.2
"""Seconds from the beginning of a probe to the beginning of the next one."""


class Breaker:
    """What is known of one server.

    Attributes:
        position: one of :data:`MOVES`.
        state: ``ok``, or what is the matter.
    """

    def __init__(self) -> None:
        self.position: Position = "whole"
        self.state = OK
        self._well_s = self._answered_s = self._probed_s = float("-inf")

    @property
    def is_cut(self) -> bool:
        """Whether calls are refused at once."""
        return self.position == "cut"

    def failed(self, state: str, began_s: float) -> None:
        """Take note that a call or a probe, begun at ``began_s``, failed.

        A server that has answered anybody since then is not away, and one that was seen well since
        then refuses no longer. A command refused for its own sake tells nothing of the server.
        """
        if state in AWAY and began_s >= max(self._well_s, self._answered_s):
            self.position, self.state = MOVES[self.position, "lost"], state
        elif state in REFUSING and began_s >= self._well_s:
            self.position, self.state = MOVES[self.position, "refused"], state

    def answered(self, now_s: float) -> None:
        """Take note that a call was answered: it is not away, and may refuse what others ask."""
        self._answered_s = now_s

    def well(self, now_s: float) -> None:
        """Take note that a probe was answered."""
        self.position, self.state, self._well_s = MOVES[self.position, "well"], OK, now_s

    def wait_s(self, now_s: float) -> float:
        """Return how long the next probe has to wait; the first does not."""
        return max(0.0, self._probed_s + PROBE_S - now_s)

    def probing(self, now_s: float) -> None:
        """Take note that a probe goes out."""
        self._probed_s = now_s
