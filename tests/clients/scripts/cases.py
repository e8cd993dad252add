"""What the clients' scripts share: each runs the cases it is told and prints what they saw."""

import asyncio
import inspect
import json
import sys
import time
from collections.abc import Callable
from typing import Any

MODEL = "smollm2-135m"
CASES: dict[str, Callable[[], Any]] = {}


def chat(text: str = "Hello", **more: Any) -> dict[str, Any]:
    """Return what every SDK takes as the arguments of a chat."""
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 8,
        **more,
    }


def case(function: Callable[[], Any]) -> Callable[[], Any]:
    """Let the command line name this function; what it returns is what it saw."""
    CASES[function.__name__] = function
    return function


def run() -> None:
    """Run the cases that the command line names, and print all that they saw as one JSON object."""
    print(json.dumps({name: _seen(CASES[name]) for name in sys.argv[1:]}, default=str))


def _seen(one: Callable[[], Any]) -> dict[str, Any]:
    began_s = time.monotonic()
    try:
        told = one()
        told = {"saw": asyncio.run(told) if inspect.iscoroutine(told) else told}
    except Exception as err:
        told = {"raised": _told(err)}
    return {**told, "took_s": time.monotonic() - began_s}


def _told(err: Exception) -> dict[str, Any]:
    """Return what a program can learn from an exception: its classes, its fields, its words."""
    headers = getattr(getattr(err, "response", None), "headers", None) or {}
    return {
        "classes": [kind.__name__ for kind in type(err).__mro__],
        "status": getattr(err, "status_code", None),
        "code": str(getattr(err, "code", None)),
        "param": getattr(err, "param", None),
        "type": getattr(err, "type", None),
        "request_id": getattr(err, "request_id", None),
        "headers": {name.lower(): text for name, text in headers.items()},
        "said": str(err),
    }
