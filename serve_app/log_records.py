"""Nothing that this process says of itself holds a secret: log records, warnings, last words.

A log record is redacted when it is made, so it does not matter which logger made it, nor which
handler and formatter print it:

    message            redacted when it is put together; ``msg`` and ``args`` also by themselves
    exception, stack   text from the beginning; an exception that holds a secret is replaced
    extra fields       redacted as they are added

A message that cannot be put together fails where it failed before, in the handler, which then
shows the types of its arguments instead of the arguments.
"""

import logging
import sys
import threading
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, cast

from serve_app.redaction import redacted, redacted_member, redacted_tree

_format_exception = logging.Formatter().formatException


class RedactedError(Exception):
    """Stands for an exception whose traceback held a secret; its text is that traceback."""


class RedactedRecord(logging.LogRecord):
    """A log record whose message holds no secret."""

    def getMessage(self) -> str:
        """Return the message, redacted.

        Raises:
            Exception: whatever putting it together raises; the arguments are their types now.
        """
        message = None
        try:
            message = super().getMessage()
        finally:
            if message is None:
                self.args = _types(self.args)
        return redacted(message)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle into whatever the reader's factory makes."""
        return logging.makeLogRecord, (dict(self.__dict__),)


def install() -> None:
    """Redact all log records, warnings and uncaught exceptions of this process from now on.

    What was installed before is kept inside; a second call changes nothing.
    """
    factory = logging.getLogRecordFactory()
    if not isinstance(factory, _Around):
        logging.setLogRecordFactory(_Around(factory, _record))
    for owner, name, around in (
        (sys, "excepthook", _uncaught),
        (sys, "unraisablehook", _unraisable),
        (threading, "excepthook", _uncaught_in_thread),
        (warnings, "formatwarning", _warning),
    ):
        inner = getattr(owner, name)
        if not isinstance(inner, _Around):
            setattr(owner, name, _Around(inner, around))


def speak_up() -> None:
    """Redact as :func:`install` does, and let our own log be heard at once.

    Serve may put a buffer of a thousand lines where standard error was; ours goes past it, to the
    process's own.
    """
    install()
    ours = logging.getLogger("sluicegate")
    if not ours.handlers:
        handler = logging.StreamHandler(sys.__stderr__)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        ours.addHandler(handler)


class _Around:
    """A function of ours around one that was there before."""

    def __init__(self, inner: Callable[..., Any], around: Callable[..., Any]) -> None:
        self.inner, self._around = inner, around

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._around(self.inner, *args, **kwargs)


def _record(make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return the record that ``make`` makes, redacted."""
    record = make(*args, **kwargs)
    if isinstance(record, logging.LogRecord) and not isinstance(record, RedactedRecord):
        record.__dict__ = _Fields(record.__dict__)
        record.__class__ = _redacted_kind(type(record))
        record.msg, record.args = _safe_message(record), _safe_args(record.args)
        _redact_exception(record)
        if isinstance(record.stack_info, str):
            record.stack_info = redacted(record.stack_info)
    return record


class _Fields(dict[str, Any]):
    """The attributes of a record; what ``extra`` adds comes by subscript, and is redacted."""

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, redacted_member(name, value))


_KINDS: dict[type, type[RedactedRecord]] = {logging.LogRecord: RedactedRecord}


def _redacted_kind(kind: type) -> type[RedactedRecord]:
    """Return ``kind``, a class of records, with a redacted message."""
    if kind not in _KINDS:
        made = type(kind.__name__, (RedactedRecord, kind), {})
        _KINDS[kind] = cast(type[RedactedRecord], made)
    return _KINDS[kind]


class _Shown:
    """Shows what a message that is no text shows, redacted, and not before it is asked."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __str__(self) -> str:
        return redacted(str(self._value))

    def __repr__(self) -> str:
        return redacted(repr(self._value))


def _safe_message(record: logging.LogRecord) -> Any:
    """Return ``msg`` without secrets; as it is, if its arguments would lose their places."""
    if isinstance(record.msg, str):
        told = redacted(record.msg)
        places = all(told.count(mark) == record.msg.count(mark) for mark in "%{")
        return told if places or not record.args else record.msg
    return redacted_tree(record.msg) if isinstance(record.msg, dict) else _Shown(record.msg)


class _Args(tuple[Any, ...]):
    """The arguments of a message; shown by themselves, they are redacted."""

    __slots__ = ()

    def __repr__(self) -> str:
        return redacted(super().__repr__())


def _safe_args(args: Any) -> Any:
    """Return the arguments of a message with every text redacted."""
    if type(args) is tuple:
        return _Args(redacted(value) if type(value) is str else value for value in args)
    if type(args) is dict:
        return {
            name: redacted_member(str(name), value) if type(value) is str else value
            for name, value in args.items()
        }
    return args


def _types(args: Any) -> Any:
    return tuple(type(value).__name__ for value in (args if isinstance(args, tuple) else (args,)))


def _redact_exception(record: logging.LogRecord) -> None:
    """Write the exception down as text; replace it if it holds a secret."""
    match record.exc_info:
        case (_, None | BaseException(), None | TracebackType()):
            raw = _format_exception(record.exc_info)
            record.exc_text = redacted(raw)
            if record.exc_text != raw:
                record.exc_info = _stand_in(record.exc_text)


def _stand_in(text: str) -> tuple[type[BaseException], BaseException, None]:
    return RedactedError, RedactedError(text), None


def _safe_exception(kind: Any, value: Any, trace: Any) -> tuple[Any, Any, Any]:
    """Return an exception as it is, or what stands for it if its traceback holds a secret."""
    raw = _format_exception((kind, value, trace))
    told = redacted(raw)
    return (kind, value, trace) if told == raw else _stand_in(told)


def _uncaught(show: Callable[..., Any], kind: Any, value: Any, trace: Any) -> Any:
    return show(*_safe_exception(kind, value, trace))


def _uncaught_in_thread(show: Callable[..., Any], args: Any) -> Any:
    told = _safe_exception(args.exc_type, args.exc_value, args.exc_traceback)
    return show(type(args)((*told, args.thread)))


def _unraisable(show: Callable[..., Any], args: Any) -> Any:
    told = _safe_exception(args.exc_type, args.exc_value, args.exc_traceback)
    return show(type(args)((*told, args.err_msg, args.object)))


def _warning(tell: Callable[..., str], *args: Any, **kwargs: Any) -> str:
    return redacted(tell(*args, **kwargs))
