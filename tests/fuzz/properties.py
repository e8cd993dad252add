"""What must hold of every parser that a stranger's bytes reach (CONTRACT §3), as properties.

Each takes drawn input and either returns or fails: nothing but a refusal of ours may be raised, and
what is returned is finite. ``tests/fuzz/test_parsers.py`` runs a few hundred examples of each,
``python -m benchmarks.fuzz`` as many as one likes.
"""

import asyncio
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import strategies as st
from pydantic import BaseModel

from serve_app import auth
from serve_app.auth_settings import Auth
from serve_app.errors import GateError
from serve_app.ingress.address import UNKNOWN, client_address
from serve_app.ingress.admin.asked import body_as, number, page_asked
from serve_app.ingress.admin.ledger import read_query
from serve_app.ingress.docs.described import DESCRIBED
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.reading.body import MAX_DEPTH, json_object, without
from serve_app.ingress.reading.call import Call, append, read
from serve_app.ingress.reading.demand import CAP_MAX, CHOICES_MAX, TEXT_MAX
from serve_app.ingress.reading.dialects import DIALECTS, Stream
from serve_app.ingress.reading.usage import JsonUsage, StreamUsage
from serve_app.ingress.wish import wished
from serve_app.limits import Usage
from serve_app.model_settings import Model
from serve_app.settings import Settings
from tests.fuzz import written

MODELS = {"m": Model(name="m"), "org/l": Model(name="org/l", engine="simulated")}
CLASSES = {one.name: one for one in Settings().queue.classes}
PATHS = [*DIALECTS, "/unknown"]
STREAMS = [one.stream for one in DIALECTS.values() if one.stream is not None]
SECRET = "a-secret-of-thirty-two-bytes-or-more"
ISSUER = {"issuer": "https://a", "audience": "b", "algorithms": ["HS256"], "secret_env": "S"}
BODIES: list[type[BaseModel]] = sorted(
    {
        row.body
        for (_, path), row in DESCRIBED.items()
        if row.body is not None and path.startswith(("/v1/auth", "/v1/tenants"))
    },
    key=lambda kind: kind.__name__,
)
LOOP = asyncio.new_event_loop()


def held(told: Callable[[], Any]) -> Any:
    """Return what ``told`` returns; None if it refuses, as the gate refuses."""
    try:
        return told()
    except GateError as refusal:
        refused_well(refusal)
        return None


def refused_well(refusal: GateError) -> None:
    """It is the client's mistake, and is told in words that do not repeat all that was sent."""
    assert 400 <= refusal.status < 500
    assert 0 < len(str(refusal).strip()) < 2_000
    assert len(refusal.param or "") < 2_000
    assert "Traceback" not in str(refusal)


def finite(value: Any) -> bool:
    """Whether a number is one that can be counted with."""
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0


def deepest(value: Any) -> int:
    """Return how deep a JSON value is nested."""
    if isinstance(value, dict | list):
        inner: Iterable[Any] = value.values() if isinstance(value, dict) else value
        return 1 + max(map(deepest, inner), default=0)
    return 0


def a_body_is_an_object_or_refused(raw: bytes) -> None:
    """One object, no deeper than it may be, without what is no JSON; it can be written again."""
    fields = held(lambda: json_object(raw))
    if fields is not None:
        assert type(fields) is dict
        assert deepest(fields) <= MAX_DEPTH
        json.dumps(fields)


def a_member_is_taken_out(raw: bytes) -> None:
    """All others stay; twice is refused."""
    fields = held(lambda: json_object(raw))
    if fields is not None and (left := held(lambda: without(raw, "api_key"))) is not None:
        fields.pop("api_key", None)
        assert json.dumps(json_object(left)) == json.dumps(fields)


def members_are_appended(raw: bytes) -> None:
    """Whatever is an object stays one, and the last mention wins."""
    fields = held(lambda: json_object(raw))
    if fields is not None:
        added = json_object(append(raw, {"priority": 0}))
        assert json.dumps(added) == json.dumps({**fields, "priority": 0})


def a_call_is_read_or_refused(path: str, raw: bytes) -> None:
    """In every dialect: what it may cost is finite, and what the engine gets is an object."""
    fields = held(lambda: json_object(raw))
    if fields is None:
        return
    call: Call | None = held(lambda: read(path, raw, fields, MODELS, max_prompt_chars=10_000))
    if call is None:
        return
    asked = call.demand
    assert 0 <= asked.text_bytes <= TEXT_MAX
    assert 0 <= asked.choices <= CHOICES_MAX
    assert finite(asked.fixed_tokens)
    assert finite(asked.least_tokens)
    assert 0 <= asked.chars <= 10_000
    caps = (asked.cap, asked.default_cap, call.output_cap)
    assert all(cap is None or 0 <= cap <= CAP_MAX for cap in caps)
    assert type(call.streaming) is bool
    for sent in (call, call.capped(7), call.ranked(2)):
        assert type(json.loads(sent.body)) is dict


def a_wish_is_read_or_refused(priorities: list[str], waits: list[str], tier: Any) -> None:
    """A class that exists or none, and a time that passes or no end."""
    wish = held(lambda: wished(priorities, waits, CLASSES))
    if wish is not None:
        wish = wish.or_tier(tier, CLASSES)
        assert wish.class_ is None or wish.class_ in CLASSES
        assert wish.max_wait_s >= 0
        assert finite(wish.shortened(CLASSES["batch"]).max_wait_s)


def _authenticator() -> auth.Authenticator:
    settings = Auth.model_validate({"issuers": [ISSUER], "body_api_key": True})
    issuers = auth.Issuers(settings.issuers, {"S": SECRET})
    static = auth.StaticKeys(["an-admin-key-for-this-test"], [])
    return auth.Authenticator(settings, static, issuers)


AUTHENTICATOR = _authenticator()


def a_credential_is_found_or_refused(
    headers: list[tuple[bytes, bytes]], query: dict[str, str], body: Any
) -> None:
    """A caller to ask the store for, or a refusal that repeats no credential."""

    def judged() -> auth.Credential:
        finding = AUTHENTICATOR.credential(headers, query, address="192.0.2.1", now_s=1e9)
        return LOOP.run_until_complete(finding)

    found = held(judged)
    if found is not None:
        assert found.tenant
        assert found.key_id
    shown = held(lambda: auth.in_body(body))
    if shown is not None:
        held(lambda: LOOP.run_until_complete(AUTHENTICATOR.read(shown, now_s=1e9)))


def an_address_is_one_or_unknown(
    peer: tuple[str, int] | None, forwarded: list[str], key: str | None
) -> None:
    """An address in its one spelling, or ``unknown``: never what a stranger wrote."""
    found = client_address(
        peer,
        forwarded,
        shown_key=key,
        proxy_key="the-proxys-own-key",
        trusted=[ip_network("10.0.0.0/8"), ip_network("::1/128")],
    )
    assert found == UNKNOWN or str(ip_address(found)) == found


def a_stream_passes_whole(pieces: list[bytes], stream: Stream, *, keep: bool) -> None:
    """However it is cut: every frame goes on but the usage, and the counts are counts.

    What follows the frame in which an engine gives up is dropped.
    """
    usage = Usage()
    reader = StreamUsage(usage, stream, keep_frame=keep)
    passed = b"".join(reader.feed(piece) for piece in pieces) + reader.end()
    assert len(passed) <= sum(map(len, pieces))
    assert not keep or reader.failed or passed == b"".join(pieces)
    counts_are_counts(usage)


def a_reply_passes_whole(pieces: list[bytes]) -> None:
    """Byte for byte, whatever it holds; the counts are counts."""
    usage = Usage()
    reader = JsonUsage(usage)
    passed = b"".join(reader.feed(piece) for piece in pieces) + reader.end()
    assert passed == b"".join(pieces)
    counts_are_counts(usage)


def counts_are_counts(usage: Usage) -> None:
    """Whole, finite, and no more cached than was read."""
    for count in (usage.input_tokens, usage.output_tokens, usage.cached_tokens):
        assert type(count) is int
    assert 0 <= usage.cached_tokens <= usage.input_tokens


@dataclass
class Wire:
    """A request whose body comes in pieces."""

    pieces: list[bytes]

    async def receive(self) -> dict[str, Any]:
        piece = self.pieces.pop(0) if self.pieces else b""
        return {"type": "http.request", "body": piece, "more_body": bool(self.pieces)}

    async def send(self, _message: Any) -> None:
        """Nobody listens."""

    def exchange(self, headers: list[tuple[bytes, bytes]], query: bytes) -> Exchange:
        scope = {"method": "POST", "path": "/", "query_string": query, "headers": headers}
        return Exchange(scope, self.receive, self.send)


def an_exchange_is_made_of_anything(
    headers: list[tuple[bytes, bytes]], query: bytes, pieces: list[bytes]
) -> None:
    """Headers, query and body of any bytes: an object or a refusal, a safe id, a size."""
    exchange = Wire(list(pieces)).exchange(headers, query)
    assert exchange.declared_bytes() >= 0
    assert exchange.request_id.isascii()
    assert 0 < len(exchange.request_id) <= 128
    fields = held(lambda: LOOP.run_until_complete(exchange.json_body(512)))
    if fields is not None:
        assert fields[0] == b"".join(pieces)
        assert len(fields[0]) <= 512
    held(lambda: page_asked(exchange))
    held(lambda: read_query(exchange.query, now_s=1_000_000_000))
    held(lambda: number(exchange.query.get("limit", ""), "limit", low=1, high=9))


def an_admins_body_is_read_or_refused(kind: type[BaseModel], raw: bytes) -> None:
    """Of every route that takes one: what was asked, or the field that is wrong."""
    exchange = Wire([raw]).exchange([(b"content-type", b"application/json")], b"")
    held(lambda: LOOP.run_until_complete(body_as(kind, exchange)))


PROPERTIES: dict[str, tuple[Callable[..., None], tuple[st.SearchStrategy[Any], ...]]] = {
    "body": (a_body_is_an_object_or_refused, (written.BODIES,)),
    "without": (a_member_is_taken_out, (written.BODIES,)),
    "append": (members_are_appended, (written.BODIES,)),
    "call": (a_call_is_read_or_refused, (st.sampled_from(PATHS), written.CALLS)),
    "wish": (
        a_wish_is_read_or_refused,
        (st.lists(written.WORDS, max_size=3), st.lists(written.WORDS, max_size=3), written.VALUES),
    ),
    "credential": (
        a_credential_is_found_or_refused,
        (written.HEADERS, st.dictionaries(written.WORDS, written.WORDS, max_size=3),
         written.VALUES),
    ),
    "address": (
        an_address_is_one_or_unknown,
        (st.none() | st.tuples(written.HOPS, st.integers(0, 65_535)),
         st.lists(written.HOPS, max_size=3), st.none() | written.WORDS),
    ),
    "stream usage": (
        lambda pieces, stream, keep: a_stream_passes_whole(pieces, stream, keep=keep),
        (written.STREAMS, st.sampled_from(STREAMS), st.booleans()),
    ),
    "reply usage": (a_reply_passes_whole, (written.REPLIES,)),
    "exchange": (
        an_exchange_is_made_of_anything,
        (written.HEADERS, written.QUERIES, st.lists(written.BODIES, max_size=2)),
    ),
    "admin": (an_admins_body_is_read_or_refused, (st.sampled_from(BODIES), written.CHANGES)),
}  # fmt: skip
"""By name: what must hold, and what is drawn for it."""
