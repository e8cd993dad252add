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
    """One method of one path."""

    method: str
    path: str
    permission: str
    handler: OpenHandler | CallerHandler
    engine_path: str = ""
