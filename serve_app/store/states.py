"""What is the matter with the store: each failure has one state, in plain words. Pure.

A state is *away* if nothing can be had from the server just now: calls are then refused at once,
until a probe is answered. In a state of *refusing* the server answers and refuses some of what it
is asked: each call tries for itself, because what reads or frees memory still works.
"""

import builtins
import re
from collections.abc import Iterator

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    ClusterError,
    ConnectionError,
    InvalidResponse,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    SlotNotCoveredError,
    TimeoutError,
    TryAgainError,
)

from serve_app.errors import GateError, StoreUnavailable

OK = "ok"
AWAY = {
    "unreachable": "cannot be reached: see that it runs, and its address, port and network",
    "timeout": "does not answer in time: see whether it is overloaded, stopped or cut off",
    "loading": "is still reading its data from disk: wait until it has, or look at its log",
    "failing_over": "has no primary just now: it fails over by itself; if it does not, see its "
    "replicas, slots and sentinels",
    "wrong_password": "refuses our user or password, or what that user may do: see the URL in "
    "SLUICEGATE_STORE_URL and the server's ACL",
}
"""States in which nothing can be had: what the store does, and what its operator should do."""

REFUSING = {
    "read_only": "is a replica and takes no writes: name its primary, or let a Sentinel or a "
    "Cluster name it",
    "out_of_memory": "is out of memory: raise its maxmemory, or remove what is not ours",
    "refusing_writes": "refuses writes: see its disk, and how many replicas it wants (MISCONF, "
    "NOREPLICAS)",
    "no_scripts": "runs no scripts for us: allow EVAL and EVALSHA (+@scripting) to our user",
}
"""States in which the server answers and refuses some of what it is asked."""

COMMAND_REFUSED = "command_refused"
_SAID = {**AWAY, **REFUSING, COMMAND_REFUSED: "refuses a command: the log says which and why"}
STATES = (OK, *_SAID)

_KINDS: tuple[tuple[type[BaseException], str | None], ...] = (
    (NoScriptError, None),
    (OutOfMemoryError, "out_of_memory"),
    (ReadOnlyError, "read_only"),
    (BusyLoadingError, "loading"),
    (MasterNotFoundError, "failing_over"),
    (ClusterDownError, "failing_over"),
    (TryAgainError, "failing_over"),
    (ClusterError, "failing_over"),
    (SlotNotCoveredError, "failing_over"),
    (AuthenticationError, "wrong_password"),
    (AuthorizationError, "wrong_password"),
    (AuthenticationWrongNumberOfArgsError, "wrong_password"),
    (NoPermissionError, "wrong_password"),
    (ResponseError, COMMAND_REFUSED),
    (TimeoutError, "timeout"),
    (OSError, "unreachable"),
    (ConnectionError, "unreachable"),
    (InvalidResponse, "unreachable"),
)
"""The state by the kind of exception; what its words say comes first."""

_WORDS = (
    (r"\bOOM command not allowed", "out_of_memory"),
    (r"\bREADONLY\b", "read_only"),
    (r"\b(?:MISCONF|NOREPLICAS)\b", "refusing_writes"),
    (r"\bLOADING\b", "loading"),
    (r"\b(?:MASTERDOWN|CLUSTERDOWN)\b|All slots are not covered", "failing_over"),
    (r"No master found.*AuthenticationError", "wrong_password"),
    (r"[Pp]revious master is now a slave", "failing_over"),
    (r"(?i)unknown command .?(?:eval|evalsha|script)\b", "no_scripts"),
    (r"(?i)permissions? to run the '(?:eval|evalsha|script)", "no_scripts"),
    (r"(?i)ACL failure in script|\bNOPERM\b", "wrong_password"),
    (r"^BUSY\b", "timeout"),
)
"""The state by the server's words: codes that the client library has no kind for, and errors that
an older server wraps into its own words when they come from inside a script."""

FAULTS = (RedisError, RedisClusterException, OSError)
"""What may come out of the client library when the store is not well."""


def state_of(err: BaseException) -> str:
    """Return the state that ``err`` tells of.

    What it came from counts too: a time-out may be the client library's patience with a cluster
    that is down.
    """
    told = [state for one in _chain(err) if (state := _own(one)) is not None]
    exact = [state for state in told if state not in ("timeout", "unreachable")]
    return (exact or told or ["unreachable"])[0]


def words_of(err: BaseException) -> str:
    """Return what ``err`` and what it came from say, for the log."""
    return "; ".join(f"{type(one).__name__}: {one}" for one in _chain(err) if str(one)) or repr(err)


def _own(err: BaseException) -> str | None:
    """Return the state that one exception tells of by itself."""
    text = str(err)
    if isinstance(err, RedisError | RedisClusterException):
        for words, state in _WORDS:
            if re.search(words, text):
                return state
    if isinstance(err, builtins.TimeoutError):
        return "timeout"
    return next((state for kind, state in _KINDS if isinstance(err, kind)), None)


def _chain(err: BaseException) -> Iterator[BaseException]:
    """Yield ``err`` and what it came from, up to what was refused before."""
    one: BaseException | None = err
    while one is not None and not isinstance(one, GateError):
        yield one
        one = one.__cause__ or one.__context__


def refusal(state: str, err: BaseException | None = None) -> StoreUnavailable:
    """Return the refusal for ``state``; the server's own words stay in ``err``, for the log."""
    kind = f" ({type(err).__name__})" if err is not None else ""
    return StoreUnavailable(
        f"The state store {_SAID[state]}{kind}; try again shortly.",
        retry_after_s=1.0,
        details={"state": state},
    )


def explained(state: str) -> str | None:
    """Return for people what ``state`` means and what to do; None if all is well."""
    return None if state == OK else f"The state store {_SAID[state]}."
