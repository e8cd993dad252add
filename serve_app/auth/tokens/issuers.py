"""Whose tokens are believed, and whether one is good.

A token's ``iss`` decides who judges it, and nobody else does: that issuer's algorithms, its keys,
its audience. What a token says of itself beyond that is believed once its signature was good.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from serve_app.auth.caller import PERMISSIONS, ROLES
from serve_app.auth.tokens.claims import Verified, describe
from serve_app.auth.tokens.jwks import FIRST_RETRY_S, FetchedKeys
from serve_app.auth.tokens.sessions import ISSUER, Sessions
from serve_app.auth.tokens.signature import Key, Keys, OneKey, is_signed, pem_key, secret_key
from serve_app.auth.tokens.token import (
    MAX_CHARS,
    Token,
    Window,
    malformed,
    must_name,
    parse,
    window,
)
from serve_app.auth_settings import Issuer
from serve_app.errors import InvalidToken, IssuerUnavailable, StoreUnavailable
from serve_app.settings import SettingsError

MAX_REMEMBERED = 10_000
MAX_PEM_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class _Judge:
    """How the tokens of one issuer are judged."""

    algorithms: frozenset[str]
    audiences: frozenset[str]
    keys: Keys
    read: Callable[[Token, Window], Verified]


@dataclass(frozen=True, slots=True)
class _Remembered:
    """A token that was found good under one generation of its issuer's keys."""

    verified: Verified
    window: Window
    keys: Keys
    generation: int


class Issuers:
    """Everybody whose JWTs are believed.

    Args:
        issuers: the settings.
        environ: where the secrets are.
        sessions: the gate's own tokens; :meth:`admit` can add them later.

    Raises:
        SettingsError: a secret or a key is missing or unfit; names where, never what it holds.
    """

    def __init__(
        self,
        issuers: Sequence[Issuer],
        environ: Mapping[str, str],
        sessions: Sessions | None = None,
    ) -> None:
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._judges = {
            issuer.issuer: _judge(issuer, f"args.auth.issuers.{at}", environ)
            for at, issuer in enumerate(issuers)
        }
        if sessions is not None:
            self.admit(sessions)

    def admit(self, sessions: Sessions) -> None:
        """Believe the gate's own tokens from now on, and none under an earlier secret."""
        self._remembered.clear()
        mine = frozenset({ISSUER})
        key = OneKey(sessions.key)
        self._judges[ISSUER] = _Judge(frozenset({"HS256"}), mine, key, sessions.read)

    def knows(self, issuer: str) -> bool:
        """Return whether tokens of ``issuer`` are believed."""
        return issuer in self._judges or issuer == ISSUER

    async def verify(self, text: str, *, now_s: float) -> Verified:
        """Return whose token ``text`` is.

        A token that was good before costs no signature, until it ends or its issuer's keys change.

        Args:
            text: the token.
            now_s: now, seconds since the epoch.

        Raises:
            TokenExpired: it was good once.
            InvalidToken: it is not good.
            IssuerUnavailable: its issuer's keys could never be fetched.
            StoreUnavailable: it is one of ours, and the store has not told our secret yet.
        """
        if not text.isascii() or len(text) > MAX_CHARS:
            raise malformed()
        shown = text.encode()
        digest = hashlib.sha256(shown).digest()
        known = self._remembered.get(digest)
        if known is not None and self._still_good(known, now_s):
            self._remembered.move_to_end(digest)
            return known.verified
        found = await self._judged(parse(shown), now_s)
        self._remembered[digest] = found
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return found.verified

    def _still_good(self, known: _Remembered, now_s: float) -> bool:
        known.keys.used(now_s)
        return known.generation == known.keys.generation and known.window.includes(now_s)

    async def _judged(self, token: Token, now_s: float) -> _Remembered:
        judge = self._judges.get(token.issuer)
        if judge is None and token.issuer == ISSUER:
            raise StoreUnavailable(
                "The state store has not answered yet; try again shortly.", retry_after_s=1.0
            )
        if judge is None:
            raise InvalidToken("This token's issuer is not one that this service believes.")
        if token.algorithm not in judge.algorithms:
            raise InvalidToken("This token's algorithm is not one that its issuer uses here.")
        await _must_be_signed(token, judge.keys, now_s)
        generation = judge.keys.generation
        must_name(judge.audiences, token.claims)
        lasts = window(token.claims)
        lasts.must_include(now_s)
        return _Remembered(judge.read(token, lasts), lasts, judge.keys, generation)

    async def close(self) -> None:
        """Stop fetching key sets."""
        for judge in self._judges.values():
            await judge.keys.close()


async def _must_be_signed(token: Token, keys: Keys, now_s: float) -> None:
    """Return if one of ``keys`` signed the token; looks for newer keys if none did.

    Raises:
        InvalidToken: none did.
        IssuerUnavailable: there are no keys to tell by.
    """
    keys.used(now_s)
    while not is_signed(token, keys.fitting(token.algorithm, token.kid)):
        if not await keys.renewed(now_s):
            break
    else:
        return
    if not keys.known:
        raise IssuerUnavailable(
            "The keys of this token's issuer cannot be fetched now; try again.",
            retry_after_s=FIRST_RETRY_S,
        )
    raise InvalidToken("This token's signature is not good.")


def _judge(issuer: Issuer, where: str, environ: Mapping[str, str]) -> _Judge:
    """Return how the tokens of ``issuer`` are judged.

    Raises:
        SettingsError: its secret, its key or a name of its is unfit.
    """
    if issuer.issuer == ISSUER:
        raise SettingsError(f"{where}.issuer: '{ISSUER}' is the gate itself; name it otherwise")
    unknown = sorted(set(issuer.permissions) - PERMISSIONS - set(ROLES))
    if unknown:
        raise SettingsError(f"{where}.permissions: unknown: {', '.join(unknown)}")
    audiences = [issuer.audience] if isinstance(issuer.audience, str) else issuer.audience
    return _Judge(
        frozenset(issuer.algorithms),
        frozenset(audiences),
        _keys(issuer, where, environ),
        lambda token, lasts: describe(issuer, token, lasts),
    )


def _keys(issuer: Issuer, where: str, environ: Mapping[str, str]) -> Keys:
    if issuer.jwks_url is not None:
        return FetchedKeys(issuer.jwks_url, issuer.algorithms, issuer=issuer.issuer)
    if issuer.secret_env is not None:
        return OneKey(_secret(issuer.secret_env, f"{where}.secret_env", environ))
    return OneKey(_pem(issuer, f"{where}.public_key_file"))


def _secret(name: str, where: str, environ: Mapping[str, str]) -> bytes:
    if not environ.get(name):
        raise SettingsError(f"{where}: the environment variable {name} is not set")
    try:
        return secret_key(environ[name])
    except ValueError as err:
        raise SettingsError(f"{where}: the environment variable {name} {err}") from None


def _pem(issuer: Issuer, where: str) -> Key:
    path = Path(issuer.public_key_file or "").expanduser()
    try:
        with path.open("rb") as file:
            return pem_key(file.read(MAX_PEM_BYTES), issuer.algorithms)
    except OSError as err:
        raise SettingsError(f"{where}: {path} cannot be read: {err.strerror}") from None
    except ValueError as err:
        raise SettingsError(f"{where}: {path} {err}") from None
