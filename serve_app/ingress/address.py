"""Where a request comes from, told so that a client cannot choose the answer. Pure.

The server under us rewrites ``scope["client"]`` from any ``X-Forwarded-For`` whose sender is on
loopback, and then its port is 0. So:

    behind our HAProxy shim (it shows the secret): the last hop it appended, from the right,
        skipping trusted proxies
    direct, no X-Forwarded-For, or a rewritten one ruled out by the port: the TCP peer
    otherwise: unknown; nothing that a stranger wrote is believed
"""

import hmac
import ipaddress
from collections.abc import Iterable, Sequence

UNKNOWN = "unknown"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def client_address(
    peer: tuple[str, int] | None,
    forwarded: Sequence[str],
    *,
    shown_key: str | None,
    proxy_key: str | None,
    trusted: Iterable[Network] = (),
) -> str:
    """Return the client's address, or ``unknown``.

    Args:
        peer: ``scope["client"]``.
        forwarded: the ``X-Forwarded-For`` lines, in order.
        shown_key: the secret that the request shows.
        proxy_key: the secret of our own proxy; None if there is none.
        trusted: networks of proxies in front of ours.
    """
    hops = [hop.strip() for line in forwarded for hop in line.split(",")]
    through_ours = bool(proxy_key and shown_key) and hmac.compare_digest(
        (shown_key or "").encode(errors="replace"), (proxy_key or "").encode()
    )
    if not through_ours:
        if peer is None or (hops and peer[1] == 0):
            return UNKNOWN
        hops = [*hops, peer[0]] if _is_trusted(peer[0], trusted := list(trusted)) else [peer[0]]
    return _first_untrusted(hops, list(trusted))


def _first_untrusted(hops: list[str], trusted: list[Network]) -> str:
    """Return the last hop that is no trusted proxy; unknown if it is not an address."""
    for hop in reversed(hops):
        try:
            ipaddress.ip_address(hop)
        except ValueError:
            return UNKNOWN
        if not _is_trusted(hop, trusted):
            return hop
    return hops[0] if hops else UNKNOWN


def _is_trusted(address: str, trusted: Iterable[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in trusted)
