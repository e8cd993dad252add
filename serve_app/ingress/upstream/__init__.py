"""Bytes from the client to the engine and back, over HTTP, as they come.

``relay`` a request and its reply · ``connections`` those to all engines · ``connection`` one

**Decided: no client library.** Pieces of streams pass thousands of times a second. On the parser
that the server has anyway, one takes 67 us of CPU where it took 80 with aiohttp, side by side; a
request, a free connection and a silence have one rule each, and it is written here.
"""

from serve_app.ingress.upstream.relay import Relay, Upstream, unreached

__all__ = ["Relay", "Upstream", "unreached"]
