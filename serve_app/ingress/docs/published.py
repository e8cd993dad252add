"""Publish the document and its page: made at the first request, then bytes with an ETag."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from serve_app.ingress.docs.openapi import document
from serve_app.ingress.entry import Entry
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.gate import Gate

_FILES = files("serve_app.ingress.docs")
_STYLE, _SCRIPT = "<style>", '<script type="module">'
_POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
_ALONE = {
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_KEPT = {"cache-control": "no-cache"}  # kept by browsers, and asked for again by its ETag


@dataclass(frozen=True, slots=True)
class Publication:
    """A reply that is the same for everyone.

    Attributes:
        headers: of a whole reply and of one that says "you have it".
    """

    body: bytes
    media: str
    headers: Mapping[str, str]

    @property
    def etag(self) -> str:
        """The body's hash, as a header says it."""
        return self.headers["etag"]


async def reference(_gate: Gate, exchange: Exchange) -> None:
    """Describe every route of this gate: the document that you are reading."""
    await _publish(exchange, openapi_json(exchange.scope["table"]))


async def page(_gate: Gate, exchange: Exchange) -> None:
    """Show the document to people, with a way to try each route; needs no internet."""
    await _publish(exchange, docs_html())


async def _publish(exchange: Exchange, told: Publication) -> None:
    """Send the reply, or 304 to whoever has it."""
    if told.etag in (exchange.header("if-none-match") or ""):
        await exchange.reply(304, headers=told.headers)
        return
    size = {"content-type": told.media, "content-length": str(len(told.body))}
    await exchange.start(200, {**size, **told.headers})
    await exchange.write(told.body, more=False)


@cache
def openapi_json(table: tuple[Entry, ...]) -> Publication:
    """Return the document of the gate's routes."""
    told = json.dumps(document(table), ensure_ascii=False, separators=(",", ":"))
    return _published(told, "application/json")


@cache
def docs_html() -> Publication:
    """Return the page in one piece, under a policy that lets nothing run but what it holds."""
    html, style, script = (_text(f"page.{kind}") for kind in ("html", "css", "js"))
    html = html.replace(_STYLE, _STYLE + style).replace(_SCRIPT, _SCRIPT + script)
    policy = _POLICY.format(script=_hash(script), style=_hash(style))
    headers = {"content-security-policy": policy, **_ALONE}
    return _published(html, "text/html; charset=utf-8", headers)


def _published(text: str, media: str, headers: Mapping[str, str] | None = None) -> Publication:
    body = text.encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return Publication(body, media, {"etag": etag, **_KEPT, **(headers or {})})


def _hash(text: str) -> str:
    """Return how a policy names an inline script or style."""
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _text(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")
