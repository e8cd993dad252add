"""What a failure's exception or words say about the store."""

import asyncio

import pytest
from redis import exceptions as redis_says
from redis.asyncio.connection import Connection
from redis.asyncio.sentinel import MasterNotFoundError

from serve_app.errors import StoreUnavailable
from serve_app.store.states import COMMAND_REFUSED, OK, STATES, explained, refusal, state_of

OLD_SCRIPT = "Error running script (call to f_6b1bf486c81ceb7edf3c093f4c48582e38c0e791): "


def replied(line: str) -> Exception:
    """Return the exception that the client library makes of a server's error line."""
    error: Exception = Connection()._parser.parse_error(line)
    return error


@pytest.mark.parametrize(
    ("line", "state"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", "out_of_memory"),
        (
            "OOM command not allowed when used memory > 'maxmemory'. script: 7f, on @x:3.",
            "out_of_memory",
        ),
        (f"ERR {OLD_SCRIPT}@user_script:1: -OOM command not allowed when used", "out_of_memory"),
        ("READONLY You can't write against a read only replica.", "read_only"),
        (f"ERR {OLD_SCRIPT}@user_script: 1: -READONLY You can't write", "read_only"),
        ("LOADING Valkey is loading the dataset in memory", "loading"),
        ("MISCONF Valkey is configured to save RDB snapshots, but", "refusing_writes"),
        ("NOREPLICAS Not enough good replicas to write.", "refusing_writes"),
        ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data", "failing_over"),
        ("CLUSTERDOWN The cluster is down", "failing_over"),
        ("CLUSTERDOWN Hash slot not served", "failing_over"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "failing_over"),
        ("ERR unknown command 'EVALSHA', with args beginning with: 'x'", "no_scripts"),
        ("ERR unknown command `EVALSHA`, with args beginning with: `x`", "no_scripts"),
        ("NOPERM User app has no permissions to run the 'evalsha' command", "no_scripts"),
        ("NOPERM this user has no permissions to run the 'evalsha' command", "no_scripts"),
        ("NOPERM User app has no permissions to run the 'hset' command", "wrong_password"),
        ("NOPERM No permissions to access a key", "wrong_password"),
        ("ERR ACL failure in script: User app has no permissions to", "wrong_password"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "wrong_password"),
        ("NOAUTH Authentication required.", "wrong_password"),
        ("ERR invalid password", "wrong_password"),
        ("ERR max number of clients reached", "unreachable"),
        ("BUSY Valkey is busy running a script. You can only call", "timeout"),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", COMMAND_REFUSED),
        ("CROSSSLOT Keys in request don't hash to the same slot", COMMAND_REFUSED),
        ("ERR unknown command 'ZMSCORE', with args beginning with: 'x'", COMMAND_REFUSED),
    ],
)
def test_the_servers_words(line: str, state: str) -> None:
    """Each error line, also one wrapped by a script of an older server, is one state."""
    assert state_of(replied(line)) == state


def caused(error: BaseException, by: BaseException) -> BaseException:
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ConnectionRefusedError(111, "refused"), "unreachable"),
        (redis_says.ConnectionError("Error -2 connecting to nowhere:6379."), "unreachable"),
        (redis_says.InvalidResponse("Protocol Error: HTTP/1.1 400"), "unreachable"),
        (TimeoutError(), "timeout"),
        (redis_says.TimeoutError("Timeout reading from socket"), "timeout"),
        (MasterNotFoundError("No master found for 'x'"), "failing_over"),
        (redis_says.ConnectionError("The previous master is now a slave"), "failing_over"),
        (redis_says.SlotNotCoveredError("Slot 1 is not covered"), "failing_over"),
        (redis_says.RedisClusterException("All slots are not covered after"), "failing_over"),
        (
            caused(
                redis_says.RedisClusterException("Redis Cluster cannot be connected"),
                by=redis_says.AuthenticationError("invalid username-password pair"),
            ),
            "wrong_password",
        ),
        (
            caused(
                TimeoutError(), by=caused(asyncio.CancelledError(), by=replied("CLUSTERDOWN x"))
            ),
            "failing_over",
        ),
        (caused(TimeoutError(), by=refusal("out_of_memory")), "timeout"),
        (caused(replied("OOM command not allowed"), by=replied("NOSCRIPT no")), "out_of_memory"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_client_librarys_exceptions(error: BaseException, state: str) -> None:
    """What an exception came from counts, up to what was refused before."""
    assert state_of(error) == state


@pytest.mark.parametrize("state", STATES)
def test_every_state_is_explained(state: str) -> None:
    """People read what the store does and what to do; programs read the state's name."""
    if state == OK:
        assert explained(state) is None
        return
    told = refusal(state)
    assert isinstance(told, StoreUnavailable)
    assert (told.details, told.retry_after_s) == ({"state": state}, 1.0)
    assert str(told).startswith((explained(state) or "").rstrip("."))
    assert ": " in str(told), "it says what to do"
