"""What a stranger may write: nearly right, wrong in one place, or nothing but bytes."""

import json
from typing import Any

import jwt
from hypothesis import strategies as st

from serve_app.auth import make

KEY = make("acme", "abcdefghijkl").text
SECRET = "a-secret-of-thirty-two-bytes-or-more"
TOKEN = jwt.encode({"iss": "https://a", "aud": "b", "exp": 2**33, "sub": "x"}, SECRET, "HS256")

NUMBERS = st.sampled_from(
    [0, 1, -1, 2**31, 2**53, 2**63, -(2**63), 10**40, 1e308, -0.0, 1.5, float("inf"), float("nan")]
) | st.integers(0, 64)
TEXTS = st.text(max_size=12) | st.sampled_from(
    ["", "m", "org/l", "user", "text", "auto", "flex", "\ud800", "\x00", "é" * 4_000, "x" * 11_000,
     "data:image/png;base64,AAAA", "https://a/b.png", KEY, TOKEN, "2026-01-31T00:00:00Z",
     "10.0.0.0/8", "interactive", "run_inference", "acme", "1e999", "\u0661", "٣"]
)  # fmt: skip
WORDS = TEXTS | st.sampled_from(
    ["0", "2.5", "30", "1e5", "-1", "nan", "inf", "+1", " 1 ", "1_0", ".", "1.", ".5", "9" * 400,
     "9" * 5_000, "batch", "Batch", "a, b", "\u00b2"]
)  # fmt: skip
LEAVES = st.none() | st.booleans() | NUMBERS | TEXTS
NAMES = st.text(max_size=6) | st.sampled_from(
    ["type", "text", "content", "role", "image_url", "url", "input_text", "tool_calls", "function",
     "name", "arguments", "id", "input", "source", "data", "parameters", "properties", "usage"]
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)

_PART = st.dictionaries(st.sampled_from(["type", "text", "image_url", "input"]), VALUES, max_size=3)
_MESSAGES = st.lists(
    st.dictionaries(
        st.sampled_from(["role", "content", "content", "tool_calls", "name"]),
        TEXTS | st.lists(_PART, max_size=2) | VALUES,
        max_size=3,
    ),
    max_size=3,
)
_PROMPTS = st.sampled_from(
    ["prompt", "messages", "input", "query", "documents", "text_1", "tokens"]
)
_ASKED_FOR = st.sampled_from(
    ["model", "messages", "prompt", "input", "system", "instructions", "stream", "stream_options",
     "max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of", "tools",
     "functions", "query", "documents", "text_1", "text_2", "tokens", "priority", "service_tier",
     "api_key", "response_format", "suffix", "thinking", "top_n"]
)  # fmt: skip
_GIVEN = st.sampled_from(
    ["name", "id", "tenant", "username", "password", "role", "permissions", "models", "endpoints",
     "class", "max_class", "weight", "limits", "expires_in_days", "allowed_addresses", "metadata",
     "overlap_s", "minutes", "disabled", "issuer", "jti", "captcha_token", "old_password",
     "new_password", "over_limit", "all_tenants"]
)  # fmt: skip
_LIMITED = st.dictionaries(
    st.sampled_from(["requests_per_minute", "models", "shadow", "exempt", "cost_per_day", "x"]),
    NUMBERS | VALUES,
    max_size=3,
)


def _with(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    return {**base, **over}


_ASKED = st.builds(
    _with,
    st.builds(
        lambda name, prompt: {"model": "m", name: prompt},
        _PROMPTS,
        _MESSAGES | TEXTS | st.lists(st.integers(0, 9) | TEXTS, max_size=3),
    ),
    st.dictionaries(_ASKED_FOR, NUMBERS | VALUES, max_size=4),
)
_CHANGED = st.dictionaries(
    _GIVEN, LEAVES | _LIMITED | st.lists(TEXTS, max_size=3) | VALUES, max_size=5
)
_INDENT = st.sampled_from([None, None, 0, 2])
_STRAY = st.sampled_from(
    [b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\\u", b"\\ud800", b"NaN", b"-Infinity",
     b"1e999", b"9" * 5_000, b"0x1", b"\x00", b"\xff", b"\xef\xbb\xbf", b"[" * 65, b'{"a":' * 65,
     b"[" * 5_000, b"//", b"\r\n\r\n", b"\n\n", b"data:", b"data: [DONE]\n\n", b'"usage":{',
     b'"api_key":"x",', b'"api\\u005fkey":1,', b"\xed\xa0\x80", b"null", b"true"]
) | st.binary(max_size=4)  # fmt: skip


def _dumped(value: Any, indent: int | None, ascii_: Any) -> bytes:
    text = json.dumps(value, indent=indent, ensure_ascii=bool(ascii_))
    return text.encode(errors="replace")


@st.composite
def _spoilt(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Return what ``whole`` draws with up to three places in it changed."""
    raw = draw(whole)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(raw)))
        gone = draw(st.sampled_from([0, 0, 1, 2, 9]))
        raw = raw[:at] + draw(_STRAY) + raw[at + gone :]
    return raw


def _bytes_of(values: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """Return what draws JSON of ``values``: as it should be, spoilt, or no JSON at all."""
    right = st.builds(_dumped, values, _INDENT, st.booleans())
    return right | right | _spoilt(right) | st.binary(max_size=64)


BODIES = _bytes_of(_ASKED | st.dictionaries(NAMES, VALUES, max_size=4) | VALUES)
CALLS = _bytes_of(_ASKED)
CHANGES = _bytes_of(_CHANGED)

_COUNTS = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": NUMBERS | VALUES,
        "completion_tokens": NUMBERS | VALUES,
        "input_tokens": NUMBERS,
        "output_tokens": NUMBERS,
        "prompt_tokens_details": VALUES | st.just({"cached_tokens": 3}),
        "cache_read_input_tokens": NUMBERS,
        "cache_creation_input_tokens": NUMBERS,
    },
)
_EVENT = st.fixed_dictionaries(
    {}, optional={"choices": VALUES, "usage": _COUNTS | VALUES, "delta": VALUES}
)


@st.composite
def _cut(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> list[bytes]:
    """Return what ``whole`` draws in up to five pieces."""
    raw = draw(whole)
    places = sorted(draw(st.lists(st.integers(0, len(raw)), max_size=4)))
    ends = zip([0, *places], [*places, len(raw)], strict=True)
    return [raw[begin:end] for begin, end in ends]


def _framed(events: list[bytes]) -> bytes:
    return b"".join(b"data: " + event + b"\n\n" for event in events)


_FRAMES = st.builds(_framed, st.lists(_bytes_of(_EVENT) | st.just(b"[DONE]"), max_size=4))
STREAMS = _cut(_FRAMES | _spoilt(_FRAMES))
REPLIES = _cut(_bytes_of(_EVENT))

_NAMES = st.sampled_from(
    [b"authorization", b"x-api-key", b"apikey", b"cf-access-client-id", b"cf-access-client-secret",
     b"cf-access-jwt-assertion", b"content-type", b"content-length", b"transfer-encoding",
     b"x-request-id", b"traceparent", b"cookie"]
)  # fmt: skip
_SHOWN = st.sampled_from(
    [KEY, f"Bearer {KEY}", f"bearer  {TOKEN}", TOKEN, TOKEN[:-3], TOKEN + ".x", "Bearer", "Basic x",
     "Bearer " + KEY[:-1], "abcdefghijkl.access", "acme-abcdefghijkl.access", "eyJ.eyJ.",
     "eyJhbGciOiJub25lIn0.e30.", "sg-acme-abcdefghijkl-x", "application/json",
     "application/json; charset=utf-16", "100", "99999999999", "9" * 5_000, "-1", "\u00b2",
     "chunked"]
)  # fmt: skip
_VALUES = (_SHOWN.map(lambda text: text.encode("latin-1", "replace"))) | st.binary(max_size=24)
HEADERS = st.lists(st.tuples(_NAMES | st.binary(max_size=8), _VALUES), max_size=5)
QUERIES = st.binary(max_size=32) | st.builds(
    lambda fields: "&".join(f"{name}={value}" for name, value in fields).encode(errors="replace"),
    st.lists(
        st.tuples(
            st.sampled_from(
                ["limit", "after", "start", "end", "group_by", "format", "tenant", "api_key", "x"]
            ),
            WORDS,
        ),
        max_size=4,
    ),
)
HOPS = TEXTS | st.sampled_from(
    ["192.0.2.7", "10.0.0.1", "::1", "[::1]:80", "192.0.2.7:99999", "::ffff:10.0.0.1", "fe80::1%lo",
     "1.2.3", "0x7f.1", "127.1", "[::1", "1.2.3.4, 10.0.0.2", " 192.0.2.9 ", "unknown", "_x"]
)  # fmt: skip
