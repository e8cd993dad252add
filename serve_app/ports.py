"""A free port for a server that binds it a little later.

Asking the kernel for any port gives one of those that it also gives to outgoing connections, and
until our server binds it, seconds later, somebody may have it. So we choose below that range, and
above the ports that programs are usually configured to.
"""

import random
import socket

RANGE = range(20_000, 30_000)
TRIES = 200


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that is free on ``host`` now and unlikely to be taken soon.

    Raises:
        OSError: none of :data:`TRIES` was free.
    """
    for port in random.sample(RANGE, TRIES):
        if is_free(port, host):
            return port
    raise OSError(f"no free port on {host} in {TRIES} tries from {RANGE[0]} to {RANGE[-1]}")


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether a server could listen on ``port`` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
