"""Where a request comes from, told so that a client cannot choose the answer. Pure.

The server under us rewrites ``scope["client"]`` from any ``X-Forwarded-For`` whose sender is on
loopback; its port is 0 then, or what the stranger wrote. So:

    behind our HAProxy shim (it shows the secret): the last hop it appended, from the right,
        skipping trusted proxies
    direct, and no X-Forwarded-For that could have been taken for it: the TCP peer
    otherwise: unknown; nothing that a stranger wrote is believed
"""

import hmac
import ipaddress
import re
from collections.abc import Iterable, Sequence

UNKNOWN = "unknown"
_WITH_PORT = re.compile(r"(?:([0-9.]+)|\[([0-9A-Fa-f:.%]+)\])(?::[0-9]{1,5})?")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


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
        if peer is None or (hops and (peer[1] == 0 or any(peer[0] in hop for hop in hops))):
            return UNKNOWN  # rewritten, the port too if a stranger wrote one
        hops = [*hops, peer[0]] if _is_trusted(peer[0], trusted := list(trusted)) else [peer[0]]
    return _first_untrusted(hops, list(trusted))


def _first_untrusted(hops: list[str], trusted: list[Network]) -> str:
    """Return the last hop that is no trusted proxy; unknown if it is not an address."""
    last = UNKNOWN
    for hop in reversed(hops):
        address = _parsed(hop)
        if address is None:
            return UNKNOWN
        last = str(address)
        if not _is_trusted(hop, trusted):
            return last
    return last


def _parsed(text: str) -> Address | None:
    """Return the address in ``text`` in its one spelling, an IPv4 one inside IPv6 as IPv4."""
    with_port = _WITH_PORT.fullmatch(text)
    bare = (with_port[1] or with_port[2]) if with_port else text
    try:
        address = ipaddress.ip_address(bare.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_trusted(text: str, trusted: Iterable[Network]) -> bool:
    address = _parsed(text)
    return address is not None and any(address in network for network in trusted)
