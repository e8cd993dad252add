"""``serve run CONFIG``, with Ray on loopback and without its dashboard.

    python -m serve_app.serving CONFIG

``serve run`` starts Ray only if nobody has; so we start it, with nothing listening beyond this
machine (``ray_environment`` sees to that), and leave the rest to it. SIGTERM ends it as Ctrl-C
does.
"""

import io
import signal
import sys

OBJECT_STORE_BYTES = 100 * 1024 * 1024  # no tensor passes through Ray's object store


def main() -> None:
    """Start Ray, then be ``serve run``."""
    import ray  # noqa: PLC0415 - only this process needs it
    from ray.serve.scripts import cli  # noqa: PLC0415

    _line_by_line()
    _as_ctrl_c()
    ray.init(
        "local",  # a cluster of our own, whatever else runs on this machine
        namespace="serve",
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _node_ip_address="127.0.0.1",
    )
    _as_ctrl_c()  # Ray set its own
    cli(["run", sys.argv[1]])


def _line_by_line() -> None:
    """Write what gateways print, their access log, as it comes, though it goes to a file."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)


def _as_ctrl_c() -> None:
    """Take both signals as Ctrl-C, also where a shell in the background had SIGINT ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


if __name__ == "__main__":
    main()
