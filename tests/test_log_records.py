"""No log record, warning or traceback of this process holds a secret (CONTRACT §6)."""

import copy
import io
import json
import logging
import logging.handlers
import pickle
import queue
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ray._common.formatters import JSONFormatter

from serve_app.auth import make
from serve_app.log_records import install

MADE = make("acme")
KEY = MADE.text
SECRET = KEY[-40:]
SHOWN = f"sg-acme-{MADE.key.key_id}-[redacted]"


class Stranger(logging.LogRecord):
    """A record of somebody else's, who formats with braces."""

    def getMessage(self) -> str:
        return f"stranger: {str(self.msg).format(*self.args or ())}"


@pytest.fixture(autouse=True)
def process() -> Iterator[None]:
    """Let a test install what it likes, in a process where nobody has."""
    hooks = [(sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")]
    hooks.append((warnings, "formatwarning"))
    before = [(owner, name, getattr(owner, name)) for owner, name in hooks]
    factory = logging.getLogRecordFactory()
    logging.setLogRecordFactory(logging.LogRecord)
    for owner, name, hook in before:
        setattr(owner, name, getattr(hook, "inner", hook))
    yield
    logging.setLogRecordFactory(factory)
    for owner, name, hook in before:
        setattr(owner, name, hook)


def logger_of(handler: logging.Handler, *, propagate: bool = False) -> logging.Logger:
    """Return a logger that nobody else has, on ``handler`` alone."""
    logger = logging.Logger("somebody's", logging.DEBUG)
    logger.propagate = propagate
    logger.addHandler(handler)
    return logger


FORMATS = {
    "plain": logging.Formatter("%(levelname)s %(message)s"),
    "braces": logging.Formatter("{message}", style="{"),
    "raw": logging.Formatter("%(msg)s %(args)s"),
    "all": logging.Formatter("%(message)s %(exc_text)s %(stack_info)s"),
    "ray's json": JSONFormatter(),
}


def log_args(log: logging.Logger) -> None:
    log.info("key %s of %d", KEY, 5)


def log_named_args(log: logging.Logger) -> None:
    log.info("%(password)s for %(user)s", {"password": f"K{SECRET}", "user": "x"})


def log_ready(log: logging.Logger) -> None:
    log.info(f"key {KEY}")


def log_object(log: logging.Logger) -> None:
    log.error(ValueError(f"key {KEY}"))


def log_headers(log: logging.Logger) -> None:
    log.info("got %s", [(b"authorization", f"Bearer {SECRET}".encode())])


def log_exception(log: logging.Logger) -> None:
    try:
        raise ValueError(f"key {KEY}")
    except ValueError:
        log.exception("it failed")


def log_chain(log: logging.Logger) -> None:
    try:
        try:
            raise ValueError(f"inner {KEY}")
        except ValueError as err:
            raise RuntimeError("outer") from err
    except RuntimeError as err:
        log.error("it failed", exc_info=err)


def log_context(log: logging.Logger) -> None:
    try:
        try:
            raise ValueError(f"inner {KEY}")
        finally:
            raise RuntimeError("outer")
    except RuntimeError:
        log.warning("it failed", exc_info=True)


def log_group(log: logging.Logger) -> None:
    note = KeyError("b")
    note.add_note(f"Authorization: {KEY}")
    try:
        raise ExceptionGroup("several", [ValueError(f"a {KEY}"), note])
    except* (ValueError, KeyError) as err:
        log.error("they failed", exc_info=err)


def log_extra(log: logging.Logger) -> None:
    extra = {"client": KEY, "token": f"K{SECRET}", "headers": {"cookie": SECRET}}
    log.info("hello", extra=extra)


def log_stack(log: logging.Logger) -> None:
    log.info(f"{KEY}", stack_info=True)


WAYS = [log_args, log_named_args, log_ready, log_object, log_headers, log_exception, log_chain]
WAYS += [log_context, log_group, log_extra, log_stack]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", FORMATS)
def test_no_way_to_log_shows_a_secret(way: Callable[[logging.Logger], None], how: str) -> None:
    """Whatever was logged, and whichever formatter prints it, on a logger that propagates or not.

    The handler was made before; it is not asked.
    """
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(FORMATS[how])
    log = logger_of(handler)
    way(log)
    before = out.getvalue()
    install()
    way(log)
    told = out.getvalue().removeprefix(before)
    assert told
    assert SECRET not in told
    assert ("[redacted]" in told) == (SECRET in before)


@pytest.mark.parametrize("way", WAYS)
def test_a_record_that_waits_is_redacted(way: Callable[[logging.Logger], None]) -> None:
    """A copy in a queue, a pickle on its way to another process: neither holds it."""
    install()
    held: queue.Queue[logging.LogRecord] = queue.Queue()
    kept = logging.handlers.BufferingHandler(10)
    log = logger_of(logging.handlers.QueueHandler(held))
    log.addHandler(kept)
    way(log)
    record = kept.buffer[0]
    for one in (held.get_nowait(), copy.copy(record), pickle.loads(pickle.dumps(record))):
        shown = {name: str(value) for name, value in vars(one).items() if name != "exc_info"}
        assert SECRET not in json.dumps(shown)
        assert SECRET not in one.getMessage()


def test_what_holds_no_secret_is_as_it_was() -> None:
    """Message, arguments, exception and extra fields of a clean record are untouched."""
    install()
    kept = logging.handlers.BufferingHandler(10)
    err, extra = ValueError("nothing special"), {"lines": 5, "pair": (1, "b"), "late": True}
    logger_of(kept).error("%s waits %.1f ms", "req-1", 0.5, exc_info=err, extra=extra)
    (record,) = kept.buffer
    assert (record.msg, record.args) == ("%s waits %.1f ms", ("req-1", 0.5))
    assert record.getMessage() == "req-1 waits 0.5 ms"
    assert record.exc_info[1] is err
    assert record.exc_text == "ValueError: nothing special"
    assert {name: vars(record)[name] for name in extra} == extra


def test_the_traceback_still_says_where() -> None:
    """File, line and type stay; of the key, its public part."""
    install()
    out = io.StringIO()
    log_chain(logger_of(logging.StreamHandler(out)))
    told = out.getvalue()
    assert f"ValueError: inner {SHOWN}" in told
    assert "in log_chain" in told
    assert "direct cause" in told
    assert "RuntimeError: outer" in told


class Broken:
    """Cannot be shown."""

    def __str__(self) -> str:
        raise LookupError("cannot be shown")


@pytest.mark.parametrize(
    ("msg", "args", "kind"),
    [
        pytest.param("wrong %d", (KEY,), "TypeError", id="wrong type"),
        pytest.param(f"key {KEY}", (KEY,), "TypeError", id="too many"),
        pytest.param("%s and %s", (KEY,), "TypeError", id="too few"),
        pytest.param("%(nobody)s", ({"password": SECRET},), "KeyError", id="no such name"),
        pytest.param("wrong %s", (Broken(),), "LookupError", id="cannot be shown"),
        pytest.param(Broken(), (), "LookupError", id="message cannot be shown"),
    ],
)
def test_a_wrong_message_fails_where_it_failed(
    msg: Any, args: tuple[Any, ...], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The handler reports it on standard error, the caller goes on; its arguments are not told."""
    log = logger_of(logging.StreamHandler(io.StringIO()))
    log.info(msg, *args)
    before = capsys.readouterr().err
    install()
    log.info(msg, *args)
    after = capsys.readouterr().err
    for told in (before, after):
        assert "--- Logging error ---" in told
        assert f"\n{kind}: " in told
    assert SECRET not in after
    assert "Arguments: (" in after or not args


def test_an_odd_exc_info_fails_where_it_failed(capsys: pytest.CaptureFixture[str]) -> None:
    """What is no exception breaks in the handler, not in the caller."""
    install()
    log = logger_of(logging.StreamHandler(io.StringIO()))
    log.error("odd", exc_info=("a", "b", "c"))
    assert "--- Logging error ---" in capsys.readouterr().err


def test_a_factory_that_was_there_is_kept() -> None:
    """Its attributes are there, and its own way to put a message together; both are redacted."""

    def make_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = Stranger(*args, **kwargs)
        record.replica = "r-1"
        return record

    logging.setLogRecordFactory(make_record)
    install()
    kept = logging.handlers.BufferingHandler(10)
    logger_of(kept).info("key {0}", KEY)
    (record,) = kept.buffer
    assert isinstance(record, Stranger)
    assert record.replica == "r-1"
    assert record.getMessage() == f"stranger: key {SHOWN}"
    assert pickle.loads(pickle.dumps(record)).replica == "r-1"


def test_a_factory_that_comes_later_may_stay() -> None:
    """Ray wraps ours when it is imported after us; a second call is harmless."""
    install()
    ours = logging.getLogRecordFactory()
    install()
    assert logging.getLogRecordFactory() is ours

    def make_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = ours(*args, **kwargs)
        record.late = KEY[:12]
        return record

    logging.setLogRecordFactory(make_record)
    install()
    kept = logging.handlers.BufferingHandler(10)
    logger_of(kept).info("key %s", KEY)
    (record,) = kept.buffer
    assert record.late == KEY[:12]
    assert record.getMessage() == f"key {SHOWN}"
    assert type(record).__mro__.count(type(record)) == 1


def test_the_hooks_are_put_in_once() -> None:
    """However often the process is told to redact, each hook is wrapped once."""
    install()
    before = sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.formatwarning
    install()
    after = sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.formatwarning
    assert after == before


def raised(err: BaseException) -> tuple[Any, Any, Any]:
    """Return ``err`` as it is caught."""
    try:
        raise err
    except BaseException:
        return sys.exc_info()


def test_last_words_are_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    """An exception that nobody catches is printed without the secret in it or in its cause."""
    install()
    err = RuntimeError("outer")
    err.__cause__ = ValueError(f"key {KEY}")
    sys.excepthook(*raised(err))
    told = capsys.readouterr().err
    assert f"ValueError: key {SHOWN}" in told
    assert "RuntimeError: outer" in told
    assert SECRET not in told


def test_clean_last_words_are_as_they_were() -> None:
    """Whoever had the hook before gets the exception itself."""
    heard: list[Any] = []
    sys.excepthook = lambda *told: heard.append(told)
    install()
    caught = raised(KeyboardInterrupt())
    sys.excepthook(*caught)
    assert heard == [caught]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_s_last_words_are_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    """The same for a thread, whose name is still told."""
    threading.excepthook = threading.__excepthook__
    install()

    def fail() -> None:
        raise ValueError(f"key {KEY}")

    thread = threading.Thread(target=fail, name="failing")
    thread.start()
    thread.join()
    told = capsys.readouterr().err
    assert "failing" in told
    assert f"ValueError: key {SHOWN}" in told
    assert SECRET not in told


class FailsLate:
    """Fails when it is thrown away."""

    def __del__(self) -> None:
        raise ValueError(f"key {KEY}")


def test_what_cannot_be_raised_is_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    """An exception in ``__del__`` is printed by the interpreter, redacted."""
    sys.unraisablehook = sys.__unraisablehook__
    install()
    FailsLate()
    told = capsys.readouterr().err
    assert f"ValueError: key {SHOWN}" in told
    assert "FailsLate.__del__" in told
    assert SECRET not in told


def test_captured_warnings_are_redacted() -> None:
    """A warning that logging captures is told without the secret."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    logging.getLogger("py.warnings").addHandler(handler)
    install()
    with warnings.catch_warnings():
        logging.captureWarnings(True)
        warnings.simplefilter("always")
        warnings.warn(f"store redis://:{SECRET}@host is slow", stacklevel=1)
        logging.captureWarnings(False)
    logging.getLogger("py.warnings").removeHandler(handler)
    assert "UserWarning: store redis://[redacted]@host is slow" in out.getvalue()
    assert SECRET not in out.getvalue()


PROGRAM = """
import asyncio, sys, threading, warnings
from serve_app.log_records import install
install()
key = sys.argv[1]
warnings.warn("a warning " + key)
def fail(what): raise ValueError(what + key)
thread = threading.Thread(target=fail, args=("in a thread ",)); thread.start(); thread.join()
async def forgets():
    task = asyncio.create_task(asyncio.to_thread(fail, "in a task "))
    await asyncio.wait([task])
asyncio.run(forgets())
fail("at the end ")
"""


def test_a_process_dies_without_telling() -> None:
    """Its warnings, threads, forgotten tasks and last words are on standard error, redacted."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, KEY], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert SECRET not in done.stderr
    for what in ("UserWarning: a warning", "in a thread", "in a task", "at the end"):
        assert f"{what} {SHOWN}" in done.stderr


LOUD = """
import logging, sys
from serve_app.log_records import speak_up
class Buffer:
    def write(self, text): pass
    def flush(self): pass
sys.stderr = Buffer()
speak_up(); speak_up()
logging.getLogger("sluicegate.line").warning("careful, %s", sys.argv[1])
"""


def test_our_own_log_is_heard_past_serves_buffer() -> None:
    """Whatever stands in for standard error, a warning comes out at once, once, without secrets."""
    told = [sys.executable, "-c", LOUD, f"redis://:{SECRET}@host"]
    done = subprocess.run(told, capture_output=True, text=True, check=True)
    assert done.stderr.count("WARNING sluicegate.line careful, redis://[redacted]@host") == 1
