"""One exchange of a watched key, and the line that a file holds of it. Pure."""

import contextlib
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from serve_app.redaction import DEPTH_MAX, GONE, redacted, redacted_member, redacted_tree

QUERY_NAMES = frozenset({"key", "code", "sig", "signature", "auth", "state"})
"""Names under which a query carries a secret, beside those that :mod:`redaction` knows."""

TAIL_CHARS = 256
"""So much is left out of the end of a text that was cut, where a secret may be cut, too."""

_ESCAPED = re.compile(r"\\u00([2-7][0-9a-fA-F])")
Headers = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Captured:
    """One exchange, as it was; :func:`to_json` takes the secrets out.

    Attributes:
        key_id: the public id of its key.
        at_s: when it began, s since the epoch.
        path: without the query.
        query: as it came.
        asked: headers of the request.
        fields: what the access log says of it.
        body: of the request: the object in it, or bytes that hold none.
        body_bytes: as many as came.
        told: headers of the reply.
        pieces: of the reply's body, from its beginning.
        kept_bytes: in them.
        reply_bytes: as many as were sent.
        secrets: what the request showed, to be found wherever else it stands.
    """

    key_id: str
    at_s: float
    path: str
    query: bytes
    asked: Headers
    fields: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] | bytes = b""
    body_bytes: int = 0
    told: Headers = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    kept_bytes: int = 0
    reply_bytes: int = 0
    secrets: tuple[str, ...] = field(default=(), repr=False)


def to_json(captured: Captured, max_body_bytes: int) -> str:
    """Return the line of ``captured``: no credential in it, and bodies no longer than they may be.

    What lies under the name of a secret goes, and so does what looks like one, in a prompt, too.
    """
    at = datetime.fromtimestamp(captured.at_s, UTC)
    reply = _object(b"".join(captured.pieces), captured.told)
    shown = captured.secrets
    line = {
        "time": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        **redacted_tree(captured.fields),
        "path": redacted(captured.path),
        "query": _query(captured.query),
        "request": {
            "headers": _headers(captured.asked),
            **_body(captured.body, captured.body_bytes, max_body_bytes, shown),
        },
        "reply": {
            "headers": _headers(captured.told),
            **_body(reply, captured.reply_bytes, max_body_bytes, shown),
        },
    }
    return _without(json.dumps(line, separators=(",", ":"), default=str), shown)


def _without(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, GONE)
    return text


def _query(raw: bytes) -> list[list[Any]]:
    fields = parse_qsl(raw.decode("latin-1"), keep_blank_values=True)
    return [
        [redacted(name), GONE if name.lower() in QUERY_NAMES else redacted_member(name, value)]
        for name, value in fields
    ]


def _headers(lines: Headers) -> list[list[Any]]:
    told = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in lines)
    return [[redacted(name), redacted_member(name, value)] for name, value in told]


def _object(body: bytes, headers: Headers) -> dict[str, Any] | bytes:
    """Return the JSON object in ``body``, else itself."""
    if dict(headers).get(b"content-type", b"").startswith(b"application/json"):
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(body)
            return found if isinstance(found, dict) else body
    return body


def _body(
    body: dict[str, Any] | bytes, size: int, most: int, secrets: tuple[str, ...]
) -> dict[str, Any]:
    """Return what is told of a body of ``size`` bytes: itself, or the beginning of its text.

    An object is redacted by its members, in whichever way they are spelt; a text as it stands.
    """
    told: dict[str, Any] = {"bytes": size}
    if isinstance(body, dict):
        if size <= most:
            return {**told, "body": redacted_tree(body)}
        return {**told, "cut": True, "body": _cut(body, most, secrets)}
    if not size:
        return told
    text = redacted(_ESCAPED.sub(_plain, body[:most].decode(errors="replace")))
    if len(body[:most]) == size:
        return {**told, "body": text}
    return {**told, "cut": True, "body": _without(text, secrets)[:-TAIL_CHARS]}


def _cut(body: dict[str, Any], most: int, secrets: tuple[str, ...]) -> str:
    """Return the beginning of an object's text; what is cut off is not searched."""
    begun = _Beginning(most + TAIL_CHARS)
    text = _without(json.dumps(redacted_tree(begun.of(body))), secrets)
    return (text if begun.left_chars > 0 else text[:-TAIL_CHARS])[:most]


class _Beginning:
    """Takes the beginning of a JSON value, as far as there is room for its text."""

    def __init__(self, room_chars: int) -> None:
        self.left_chars = room_chars

    def of(self, value: Any, depth: int = DEPTH_MAX) -> Any:
        """Return as much of ``value`` as there is room for; nothing below ``depth``."""
        if isinstance(value, dict | list):
            if depth == 0:
                return GONE
            self.left_chars -= 2
            return (
                self._members(value, depth)
                if isinstance(value, dict)
                else [self.of(inner, depth - 1) for inner in value if self.left_chars > 0]
            )
        text = value if isinstance(value, str) else str(value)
        kept = value[: max(self.left_chars, 0)] if isinstance(value, str) else value
        self.left_chars -= len(text) + 2
        return kept

    def _members(self, value: dict[str, Any], depth: int) -> dict[str, Any]:
        begun = {}
        for name, inner in value.items():
            kept = self.of(name)
            if self.left_chars <= 0:  # of half a name nobody can tell whether it is a secret's
                break
            begun[kept] = self.of(inner, depth - 1)
        return begun


def _plain(escaped: re.Match[str]) -> str:
    """Return the letter that an escape stands for; what JSON must escape stays."""
    letter = chr(int(escaped[1], 16))
    return escaped[0] if letter in '"\\' else letter
