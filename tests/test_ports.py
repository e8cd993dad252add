import socket
from pathlib import Path

from serve_app.ports import RANGE, free_port


def test_a_free_port_is_free_and_outside_the_kernels_own_range() -> None:
    """Nobody listens there, and no outgoing connection is given it."""
    told = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    low = int(told.split()[0])
    for _ in range(20):
        port = free_port()
        assert port in RANGE
        assert port < low
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
