"""Where a store is: what a URL says, for one server, a Redis Cluster, or Sentinel.

    redis://[user:password@]host:port/db      one server; rediss:// for TLS
    unix://[user:password@]/path?db=0         one server on this machine
    redis+cluster://[user:password@]host:port,host:port/
    redis+sentinel://[user:password@]host:port,host:port/service[/db][?sentinel_password=…]

``rediss+…`` speaks TLS to every node and every sentinel. User and password are the nodes'. Other
options of the query are the client library's.
"""

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

Kind = Literal["server", "cluster", "sentinel"]
SCHEME = r"(rediss?(\+cluster|\+sentinel)?|unix)://"
_PORTS = {"cluster": 6379, "sentinel": 26379}
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\[\]:,/\s]+)(?::([0-9]{1,5}))?")
_SERVICE = re.compile(r"/([^/]+)(?:/([0-9]{1,5}))?")
MAX_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store is.

    Attributes:
        kind: one server, a cluster, or sentinels that name the server.
        url: for one server of it: its user, password, database and options.
        hosts: nodes or sentinels to ask first; empty for one server.
        service: the name under which sentinels know the primary.
        sentinel: user name and password of the sentinels, as far as they want any.
    """

    kind: Kind
    url: str = field(repr=False)
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel: dict[str, str] = field(default_factory=dict, repr=False)


def place_of(url: str) -> Place:
    """Return what ``url`` says.

    Raises:
        ValueError: it is no such URL; the message shows nothing of it.
    """
    if not re.match(SCHEME, url):
        raise ValueError("begins with none of redis, rediss, unix, redis+cluster, redis+sentinel")
    try:
        parts = urlsplit(url)
        kind = parts.scheme.partition("+")[2]
        _ = None if kind else parts.port  # reading it is what checks it
    except ValueError:
        raise ValueError("its host or port cannot be read") from None
    if not kind:
        return Place("server", url)
    scheme = parts.scheme.partition("+")[0]
    user, at, listed = parts.netloc.rpartition("@")
    hosts = tuple(_host(one, _PORTS[kind]) for one in listed.split(","))
    query = dict(parse_qsl(parts.query))
    base = f"{scheme}://{user}{at}{_written(hosts[0])}/"
    if kind == "cluster":
        if parts.path not in ("", "/", "/0"):
            raise ValueError("a cluster has no databases; write nothing after the hosts")
        return Place("cluster", _with(base, query), hosts)
    found = _SERVICE.fullmatch(parts.path)
    if found is None:
        raise ValueError("after the sentinels comes /<service> or /<service>/<database>")
    own = {name: query.pop(f"sentinel_{name}", "") for name in ("username", "password")}
    sentinel = {name: value for name, value in own.items() if value}
    base += found[2] or "0"
    return Place("sentinel", _with(base, query), hosts, unquote(found[1]), sentinel)


def _host(text: str, port: int) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    if found is None or int(found[2] or port) > MAX_PORT:
        raise ValueError("the hosts are host:port, one or several, with commas between them")
    return found[1].strip("[]"), int(found[2] or port)


def _written(host: tuple[str, int]) -> str:
    return f"[{host[0]}]:{host[1]}" if ":" in host[0] else f"{host[0]}:{host[1]}"


def _with(base: str, query: dict[str, str]) -> str:
    return f"{base}?{urlencode(query)}" if query else base
