"""What a row of the table of routes says."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from serve_app.auth import Caller
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.gate import Gate

OPEN, PAGE, ANY = "", "run_inference", "caller"

OpenHandler = Callable[[Gate, Exchange], Awaitable[None]]
CallerHandler = Callable[[Gate, Exchange, Caller], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One method of one path.

    Attributes:
        engine_path: where an engine infers for it; empty if none does.
        of_kept: whether an engine answers with what it keeps.
    """

    method: str
    path: str
    permission: str
    handler: OpenHandler | CallerHandler
    engine_path: str = ""
    of_kept: bool = False

    @property
    def by_engine(self) -> bool:
        """Whether an engine answers: the reply tells of limits, and may be captured."""
        return self.of_kept or bool(self.engine_path)
