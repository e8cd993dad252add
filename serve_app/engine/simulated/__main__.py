"""The command line and the process of the simulated engine."""

import argparse
import asyncio
import importlib
import inspect
import socket
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import uvicorn
import uvloop
from pydantic import ValidationError
from starlette.types import ASGIApp

from serve_app.engine.simulated.driver import Driver
from serve_app.engine.simulated.latency import Scheduler
from serve_app.engine.simulated.names import Names
from serve_app.engine.simulated.server import Engine, build_app
from serve_app.model_settings import Simulated

SHUTDOWN_S = 1
"""Seconds that running replies may take once the process was told to end."""


class _Parser(argparse.ArgumentParser):
    """A parser that tells a mistake in one line and exits with 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the engine until SIGTERM or SIGINT; exit with 2 when it cannot start as told."""
    parser = _arguments()
    args = parser.parse_args(argv)
    try:
        scheduler = Scheduler(args.settings, args.max_num_seqs, args.max_model_len)
        engine = Engine(Driver(scheduler), _names(args))
        app = build_app(engine, [_middleware(path) for path in args.middleware])
        listener = _listen(args.host, args.port)
    except (ValueError, RuntimeError) as err:
        parser.error(str(err))
    uvloop.run(_serve(engine, app, listener))


def _arguments() -> argparse.ArgumentParser:
    told = "vLLM's OpenAI server over a latency model."
    parser = _Parser(prog="simulated", description=told, allow_abbrev=False)
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=_within(0, 65_535), default=8000, help="0 takes a free one")
    add("--served-model-name", required=True, nargs="+", help="replies carry the first")
    add("--enable-lora", action="store_true", help="take LoRA adapters")
    add("--lora-modules", nargs="+", type=_adapter, default=[], metavar="NAME=PATH")
    add("--max-num-seqs", type=_within(1, 65_536), default=256, help="sequences in the batch")
    add("--max-model-len", type=_within(1, 2**31), default=4_096, help="tokens, prompt and reply")
    add("--settings", type=_settings, default=Simulated(), help="settings.Simulated as JSON")
    add("--middleware", action="append", default=[], help="ASGI class, dotted; repeatable")
    return parser


def _within(least: int, most: int) -> Any:
    def whole(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"must be {least} to {most}, got {text!r}")
        return int(text)

    return whole


def _settings(text: str) -> Simulated:
    try:
        return Simulated.model_validate_json(text)
    except ValidationError as err:
        mistake = err.errors(include_url=False)[0]
        where = ".".join(map(str, mistake["loc"]))
        raise argparse.ArgumentTypeError(f"{where}: {mistake['msg']}".lstrip(": ")) from None


def _adapter(text: str) -> tuple[str, str]:
    name, _, path = text.partition("=")
    if not (name and path):
        raise argparse.ArgumentTypeError(f"must be NAME=PATH, got {text!r}")
    return name, path


def _names(args: argparse.Namespace) -> Names:
    first, *aliases = args.served_model_name
    return Names(first, tuple(aliases), args.enable_lora, dict(args.lora_modules))


def _middleware(path: str) -> type[Any]:
    """Return the ASGI class that a dotted path names.

    Raises:
        ValueError: it names none.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as err:
        raise ValueError(f"argument --middleware: {path}: {err}") from None
    if not inspect.isclass(found):
        raise ValueError(f"argument --middleware: {path} is not a class")
    return found


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        ValueError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=4_096)
    except OSError as err:
        raise ValueError(f"cannot listen on {host} port {port}: {err.strerror or err}") from None


async def _serve(engine: Engine, app: ASGIApp, listener: socket.socket) -> None:
    """Serve until told to end; a driver that dies takes the process with it."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    host, port = listener.getsockname()[:2]
    print(
        f"simulated engine {engine.names.model} on {host} port {port}", file=sys.stderr, flush=True
    )
    async with asyncio.TaskGroup() as group:
        driving = group.create_task(engine.driver.run())
        await uvicorn.Server(config).serve(sockets=[listener])
        driving.cancel()


if __name__ == "__main__":
    main()
