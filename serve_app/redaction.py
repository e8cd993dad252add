"""Secrets are taken out of text. Pure: what a secret is shows in its shape, its place or its name.

    shape    sg-<tenant>-<id>-…   eyJ….….…   sk-…   AKIA…   hf_…   a private key in PEM
    place    scheme://user:password@host   somebody@example.org
    name     Authorization: …   'x-api-key': …   (b'cookie', b'…')   "password": "…"   ?token=…

What says where to look stays: a key's public id, request ids, names, times, ``max_tokens: 8``.

Each pattern begins with letters that it cannot do without, so that text without them is passed over
at the speed of ``in``; all that it repeats is possessive or bounded, so that the time grows with
the length of a text and with nothing that somebody wrote into it. A long text is searched in
pieces, for no other thread runs while a pattern searches.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

GONE = "[redacted]"
DEPTH_MAX = 32
PIECE_CHARS = 65_536
"""Characters searched at a time, a few milliseconds."""

NEAR_CHARS = 8_192
"""Characters on either side of a cut that show whether it divides a secret; none is longer."""

CUTS, CUT_STEP = 4, 97

_EDGE = r"(?:(?<![\w-])|(?<=\\[nrt])|(?<=\\x\w\w)|(?<=\\u\w{4})|(?<=%\w\w))"
"""Where a word begins, also behind an escape that ends in a letter or digit."""


def _edged(*heads: str) -> str:
    """Return what holds behind one of ``heads`` that begins at an edge."""
    return "(?:" + "|".join(f"(?<={head})(?<={_EDGE}{head})" for head in heads) + ")"


_KEY = re.compile(r"sg-[a-z0-9][a-z0-9_-]{0,62}-[0-9A-Za-z]{12}-(?P<secret>[0-9A-Za-z][\w-]*+)")
_JWT = re.compile(r"(?P<secret>eyJ[\w-]{5,}+(?:\.[\w-]*+)*+)")
_PEM = re.compile(
    r"(?P<secret>-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY-----(?:[\w+/=\s\\:,.]|-(?!----))*+"
    r"(?:-----END [A-Z0-9 ]{0,32}-----[\w-]*+)?)"
)
_DASHED = re.compile(
    "-"
    + _edged("sk-", "nvapi-", "glpat-", "xai-", "xox[abeoprs]-", "xapp-")
    + r"(?P<secret>[\w-]{16,}+)"
)
_UNDERSCORED = re.compile(
    "_"
    + _edged("gh[opsur]_", "github_pat_", "hf_", "npm_", "gsk_", "[sr]k_live_", "[sr]k_test_")
    + r"(?P<secret>[A-Za-z0-9]{16,}+[\w-]*+)"
)
_CLOUD = re.compile(
    "A" + _edged("A") + r"(?P<secret>(?:[KS]IA[A-Z0-9]{12,}+|Iza[\w-]{20,}+)[\w-]*+)"
)
_USER_INFO = re.compile(
    r"""://(?P<secret>[^\s/?#"'<>]*(?=@)"""
    r"""|[^\s/?#@:"'<>]*+:(?!\d{1,5}[/?#])[^\s@/?#"'<>]*+[/?#][^\s@"'<>]{0,128}+"""
    r"""(?:@[^\s/?#"'<>]*)?(?=@))"""  # a slash ends the authority; in a password it means itself
)
_MAIL = re.compile(
    r"(?<![\w.+-])(?:(?<=\\)[nrtNRT])?+"  # the letter of an escape
    r"(?P<secret>[\w.+-]++(?:@|%40)[\w-]++(?:\.[\w-]++)++(?<=[^\W\d_]{2}))"
)

_GAP = r"[ \t]{0,8}"
_MARK = r"""(?:\\{0,8}["']|%22)"""
_OPENED = ("[\"']", "b[\"']", r"\\[\"']")
_QUOTED = r"""[bru]{0,2}(?P<mark>\\{0,8}["'])(?P<quoted>(?:(?!(?<!\\)(?P=mark)).)*+)"""
_NUMBER = r"""(?![=\[{(])[^\s"'&\\,})\]]++"""
_WORD = r"""(?!=)(?:[^\s"'&\\]|\\(?![rnt"']))++"""
_LINE = r"""(?![=\s])(?:="[^"\r\n]*+"?|[^\r\n"'\\]|\\(?![rn"']))++"""
_SCHEME = r"""(?:bearer|basic|token|api-?key|key|negotiate|ntlm)[ \t]{1,8}["']?"""
_LISTED = (
    "authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key",
    "apikey", "api_key", "cf-access-client-secret", "cf-access-jwt-assertion", "password",
    "x-sluicegate-internal-key", "x-sluicegate-proxy-key", "token", "access_token", "secret",
)  # fmt: skip


def _named(word: str, *before: str, bare: str = _WORD, scheme: str = "(?!)") -> re.Pattern[str]:
    """Return the pattern of a value whose name ends in ``word``, for text in lower case.

    Args:
        word: the end of the name.
        before: what must stand before it, as patterns of fixed width; nothing: all may.
        bare: the value without quotes.
        scheme: a word that stays before the value.
    """
    behind = "|".join(f"(?<={one}{word})" for one in before)
    names = [name for name in _LISTED if name.endswith(word)]
    first = _either(rf"(?<=[(\[]{mark}{name})" for name in names for mark in _OPENED)
    flag = _either(f"(?<=--{name})" for name in names)
    return re.compile(
        rf"""
        {word}(?:{behind})
        (?: (?P<close> {_MARK} ) {_GAP} (?: :|=>?+|%3a )                  # "name": x
          | {_MARK} {_GAP}, {_GAP}{_MARK}value{_MARK} {_GAP}:             # "name", "value": x
          | (?P<colon> {_GAP}: )                                          # name: x
          | {_GAP} (?: =>?+|%3d )                                         # name=x
          | {flag} (?: {_MARK} {_GAP}, | [ \t] )                          # --name x
          | (?P<pair> {first}{_MARK} {_GAP}, )                            # ("name", x)
        )
        {_GAP}
        (?: (?:\[{_GAP})? {_QUOTED} (?(pair) (?= {_MARK}\s{{0,8}}[)\]] | $))
          | (?(pair) (?!)
              | (?: {scheme}(?P<shown>{_WORD}) | (?P<bare> (?(close){_NUMBER}|{bare})))
            )
        )
        """,
        re.MULTILINE | re.VERBOSE,
    )


def _either(patterns: Iterable[str]) -> str:
    """Return what matches where one of ``patterns`` does; without any, what never does."""
    return "(?:" + ("|".join(patterns) or "(?!)") + ")"


_KEYS = ("api", "admin", "internal", "proxy", "access", "secret", "private", "signing", "master",
         "subscription")  # fmt: skip
_TOKENS = ("access", "refresh", "captcha", "id", "auth", "session", "csrf", "xsrf", "api", "hf",
           "bearer", "github", "gitlab", "visitor")  # fmt: skip


def _after(heads: tuple[str, ...]) -> list[str]:
    """Return each of ``heads`` with a dash, with an underscore, and joined."""
    return [head + joint for head in heads for joint in ("[-_]", "")]


_NAMED = {
    "authorization": _named("authorization", bare=_LINE, scheme=_SCHEME),
    "cookie": _named("cookie", bare=_LINE),
    "assertion": _named("assertion", *_after(("jwt", "client"))),
    "key": _named("key", *_after(_KEYS)),
    "password": _named("password"),
    "passwd": _named("passwd"),
    "passphrase": _named("passphrase"),
    "secret": _named("secret"),
    "token": _named("token", _EDGE, "--", *_after(_TOKENS)),
    "bearer ": re.compile(rf"""bearer[ \t]{{1,8}}["']?(?P<colon>)(?P<bare>{_WORD})"""),
}
_TALKATIVE = ("secret", "token", "bearer ")
"""Names that stand in prose, too: ``invalid token: expired``."""

_PROSE = re.compile(r"[^\W\d_-]{1,24}(?:-[^\W\d_]{1,24}){0,3}|[\d.,]{1,16}[a-zµ%]{0,4}|[\w.-]{1,5}")
_STAYS = re.compile(
    r"none|null|true|false|undefined|\*+|<[\w .-]{1,40}>"
    r"|(?:bearer )?sg-[a-z0-9_-]{1,63}-[0-9a-z]{12}-\[redacted\]"
)

_SHAPES = (_PEM, _KEY, _JWT, _DASHED, _UNDERSCORED, _CLOUD)


def redacted(text: str) -> str:
    """Return ``text`` without the secrets in it; what was redacted before stays as it is.

    Of a long text, what lies around a cut goes if it holds too many for a cut between them.
    """
    done, at, left_out = [], 0, 0
    while len(text) - at > PIECE_CHARS + NEAR_CHARS:
        cut, harmless = _cut(text, at + PIECE_CHARS)
        piece = _redacted(text[at:cut])[left_out:]
        done += [piece] if harmless else [piece[:-NEAR_CHARS], GONE]
        at, left_out = cut, 0 if harmless else NEAR_CHARS
    return "".join([*done, _redacted(text[at:])[left_out:]])


def _cut(text: str, latest: int) -> tuple[int, bool]:
    """Return where ``text`` may be cut, and whether that divides no secret.

    A cut does no harm if the halves around it, each for itself, lose what they lose together.
    """
    for cut in range(latest, latest - CUTS * CUT_STEP, -CUT_STEP):
        before, after = text[cut - NEAR_CHARS : cut], text[cut : cut + NEAR_CHARS]
        if _redacted(before) + _redacted(after) == _redacted(before + after):
            return cut, True
    return latest, False


def _redacted(text: str) -> str:
    for shape in _SHAPES:
        text = shape.sub(_gone, text)
    low = _lower(text)
    for word, name in _NAMED.items():
        if name.search(low):
            text = _without(name, text, low, talkative=word in _TALKATIVE)
            low = _lower(text)
    if "@" in text or "%40" in text:
        text = _MAIL.sub(_gone, _USER_INFO.sub(_gone, text))
    return text


def redacted_tree(value: Any, depth: int = DEPTH_MAX) -> Any:
    """Return a JSON value without the secrets in its texts and names, and under its names.

    What lies deeper than ``depth`` is taken out whole.
    """
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict | list | tuple):
        if depth == 0:
            return GONE
        if isinstance(value, dict):
            members = ((str(name), inner) for name, inner in value.items())
            return {redacted(name): redacted_member(name, inner, depth) for name, inner in members}
        items = [redacted_tree(inner, depth - 1) for inner in value]
        return tuple(items) if isinstance(value, tuple) else items
    return value


def redacted_member(name: str, value: Any, depth: int = DEPTH_MAX) -> Any:
    """Return the value of a member; under the name of a secret, only what cannot be one."""
    nothing = value is None or isinstance(value, bool) or (isinstance(value, str) and not value)
    return redacted_tree(value, depth - 1) if nothing or not _names_secret(name) else GONE


@lru_cache(maxsize=1_024)
def _names_secret(name: str) -> bool:
    """Return whether what is called ``name`` is a secret."""
    return not redacted(f"{name}=x").endswith("=x")


def _gone(found: re.Match[str]) -> str:
    return found[0][: found.start("secret") - found.start()] + GONE


def _without(name: re.Pattern[str], text: str, low: str, *, talkative: bool) -> str:
    """Return ``text`` without the values that ``name`` finds in ``low``."""
    pieces, done, at = [], 0, 0
    while found := name.search(low, at):
        begin, end = found.span(found.lastgroup or 0)
        at = begin
        if begin < end and not _stays(found, talkative):
            pieces += [text[done:begin], GONE]
            at = done = end
    return "".join([*pieces, text[done:]])


def _stays(found: re.Match[str], talkative: bool) -> bool:
    """Return whether a named value is no secret: nothing, a placeholder, or a word of prose."""
    value = found[found.lastgroup or 0]
    if _STAYS.fullmatch(value.rstrip(",;)}")) or value == GONE:
        return True
    alone = not re.match(r"[\w-]", found.string[found.start() - 1 : found.start()])
    prose = talkative and alone and found["colon"] is not None and found.lastgroup == "bare"
    return prose and _PROSE.fullmatch(value.rstrip(".,;:!?)")) is not None


def _lower(text: str) -> str:
    """Return ``text`` in lower case and of the same length."""
    low = text.lower()
    return low if len(low) == len(text) else "".join(one.lower()[0] for one in text)
