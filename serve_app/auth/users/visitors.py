"""Visitors: whoever solved a captcha gets a short token, and no account.

The captcha is checked by a service that speaks the *siteverify* form, as Turnstile, hCaptcha and
reCAPTCHA do: a POST of ``secret``, ``response`` and ``remoteip``, answered with ``{"success": …}``.
Nothing of its answer is shown to the visitor.
"""

import json
import logging
from http import HTTPStatus
from typing import Any

import aiohttp
from pydantic import BaseModel, ConfigDict, Field

from serve_app.auth.caller import CALLER_PERMISSIONS, DEFAULT_TENANT, Caller
from serve_app.auth.users.user import drawn
from serve_app.auth.users.users import Session, TokenSource
from serve_app.auth_settings import Visitor
from serve_app.errors import InvalidLogin, NoSuchRoute, RateLimited, UpstreamFailed

ANSWER_S = 5.0
MAX_ANSWER_BYTES = 16_384
AT_ONCE = 32
"""Captchas checked at once; one more is refused."""

AGAIN_S = 5.0
_OURS = ("missing-input-secret", "invalid-input-secret")
_log = logging.getLogger("sluicegate")


class VisitorRequest(BaseModel):
    """The body of ``POST /v1/auth/visitor``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    captcha_token: str = Field(min_length=1, max_length=8_192, repr=False)


class Visitors:
    """Checks captchas; make it inside a running event loop.

    Args:
        visitor: the settings; without ``siteverify_url`` there are no visitors.
        secret: what the captcha service knows us by.
        sessions: what makes tokens.
        answer_s: how long the service may take to answer.

    Raises:
        ValueError: there is a service but no secret.
    """

    def __init__(
        self,
        visitor: Visitor,
        *,
        secret: str | None,
        sessions: TokenSource,
        answer_s: float = ANSWER_S,
    ) -> None:
        if visitor.siteverify_url and not secret:
            raise ValueError(f"auth.visitor: {visitor.secret_env} is not set")
        self._visitor, self._secret, self._sessions = visitor, secret or "", sessions
        self._asking = 0
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=AT_ONCE),
            timeout=aiohttp.ClientTimeout(total=answer_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"accept": "application/json", "accept-encoding": "identity"},
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()

    def service(self) -> str:
        """Return the URL of the captcha service.

        Raises:
            NoSuchRoute: there is none, so there are no visitors.
        """
        if self._visitor.siteverify_url is None:
            raise NoSuchRoute("This gate takes no visitors.")
        return self._visitor.siteverify_url

    async def admit(
        self, request: VisitorRequest, *, address: str | None, now_s: float
    ) -> tuple[Caller, Session]:
        """Return a new visitor and its session.

        Args:
            request: what the visitor's captcha gave it.
            address: where the visitor comes from; None if unknown.
            now_s: the time, in seconds since the epoch.

        Raises:
            NoSuchRoute: there are no visitors.
            InvalidLogin: the captcha was not solved.
            RateLimited: too many captchas are being checked.
            UpstreamFailed: the service does not answer as it should.
        """
        if not await self._solved(self.service(), request.captcha_token, address):
            raise InvalidLogin("The captcha was not solved, or too long ago; solve it again.")
        caller = _new_visitor(self._visitor)
        token, ends_s = self._sessions.issue(
            caller,
            limits=self._visitor.limits.text(),
            ttl_s=self._visitor.token_ttl_s,
            now_s=now_s,
        )
        return caller, Session(token, ends_s)

    async def _solved(self, url: str, token: str, address: str | None) -> bool:
        if self._asking >= AT_ONCE:
            raise RateLimited(
                "Too many visitors at once; try again shortly.",
                retry_after_s=1.0,
                refused_by="visitor",
            )
        form = {"secret": self._secret, "response": token}
        self._asking += 1
        try:
            told = await self._asked(url, form | ({"remoteip": address} if address else {}))
        finally:
            self._asking -= 1
        codes = told.get("error-codes")
        if isinstance(codes, list) and any(ours in codes for ours in _OURS):
            _log.error("the captcha service refuses %s", self._visitor.secret_env)
            raise _silent()
        return bool(told["success"])

    async def _asked(self, url: str, form: dict[str, str]) -> dict[str, Any]:
        """Return the service's answer, in which ``success`` is a bool."""
        try:
            async with self._http.post(url, data=form, allow_redirects=False) as reply:
                told = json.loads(await _body(reply)) if reply.status == HTTPStatus.OK else None
        except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError) as err:
            _log.warning("the captcha service does not answer: %s", type(err).__name__)
            raise _silent() from None
        if not isinstance(told, dict) or not isinstance(told.get("success"), bool):
            _log.warning(
                "the captcha service answers %d, and not whether it was solved", reply.status
            )
            raise _silent()
        return told


def _new_visitor(visitor: Visitor) -> Caller:
    class_ = visitor.class_
    key_id = f"visitor-{drawn()}"
    return Caller(DEFAULT_TENANT, key_id, CALLER_PERMISSIONS, class_=class_, max_class=class_)


async def _body(reply: aiohttp.ClientResponse) -> bytes:
    """Return the body of ``reply``.

    Raises:
        ValueError: it is too large; the rest was not read.
    """
    body = b""
    async for chunk in reply.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise ValueError("too large")
    return body


def _silent() -> UpstreamFailed:
    return UpstreamFailed(
        "The captcha service does not answer; try again shortly.", retry_after_s=AGAIN_S
    )
