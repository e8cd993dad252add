"""Visitors against captcha services that behave and misbehave: real sockets (CONTRACT §1.4)."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from urllib.parse import parse_qs

import pytest

from serve_app.allowance import Limits
from serve_app.auth import Caller
from serve_app.auth.caller import CALLER_PERMISSIONS
from serve_app.auth.users.visitors import AT_ONCE, MAX_ANSWER_BYTES, VisitorRequest, Visitors
from serve_app.auth_settings import Visitor
from serve_app.errors import GateError, InvalidLogin, NoSuchRoute, RateLimited, UpstreamFailed
from serve_app.ports import free_port
from tests.accounts import Tokens
from tests.captcha import Says, answers, service

SECRET = "the-captcha-secret"
ASKED = VisitorRequest(captcha_token="solved")


async def nothing(_writer: asyncio.StreamWriter) -> None:
    """Say nothing."""


async def hangs_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def drips(writer: asyncio.StreamWriter) -> None:
    """A byte at a time, for ever."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)  # slower than the limit, faster than silence


async def never_ends(writer: asyncio.StreamWriter) -> None:
    """As much as the other side takes."""
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1000\r\n" + b" " * 4_096 + b"\r\n")
        await writer.drain()


@contextlib.asynccontextmanager
async def visitors_at(url: str | None, tokens: Tokens | None = None) -> AsyncIterator[Visitors]:
    settings = Visitor(siteverify_url=url, token_ttl_s=60, limits=Limits(requests_per_minute=3))
    made = Visitors(settings, secret=SECRET, sessions=tokens or Tokens(), answer_s=0.4)
    try:
        yield made
    finally:
        await made.close()


async def admitted(says: Says, address: str | None = "192.0.2.1") -> tuple[Caller, str]:
    """Return the form that the service was sent and the visitor that it let in."""
    async with service(says) as (url, heard), visitors_at(url) as made:
        caller, _ = await made.admit(ASKED, address=address, now_s=1_000.0)
        return caller, heard[0].partition(b"\r\n\r\n")[2].decode()


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", None])
async def test_a_visitor_is_let_in(address: str | None) -> None:
    """The service is asked for the captcha, in the form that all of them take."""
    caller, form = await admitted(answers({"success": True, "hostname": "x"}), address)
    expected = {"secret": [SECRET], "response": ["solved"], "remoteip": [address]}
    assert parse_qs(form) == {name: told for name, told in expected.items() if told != [None]}
    assert caller.key_id.startswith("visitor-")


async def test_what_a_visitor_is() -> None:
    """A caller of its own, in the visitors' class and no higher, with their limit, for a while."""
    tokens = Tokens()
    says = answers({"success": True}, "200 OK", "connection: close")
    async with service(says) as (url, _), visitors_at(url, tokens) as made:
        admitted = [await made.admit(ASKED, address=None, now_s=1_000.5) for _ in range(2)]
    (one, session), (two, _) = admitted
    assert one.key_id != two.key_id
    assert one == Caller(
        "default", one.key_id, CALLER_PERMISSIONS, class_="interactive", max_class="interactive"
    )
    issued = tokens.issued[session.token]
    assert (issued.caller, issued.user, issued.limits) == (one, None, "r 3 3 0")
    assert (issued.ttl_s, issued.issued_ms, session.ends_s) == (60, 1_000_500, 1_060.5)


@pytest.mark.parametrize(
    ("says", "error"),
    [
        pytest.param(answers({"success": False}), InvalidLogin, id="not solved"),
        pytest.param(
            answers({"success": False, "error-codes": ["timeout-or-duplicate"]}),
            InvalidLogin,
            id="too late",
        ),
        pytest.param(
            answers({"success": False, "error-codes": ["invalid-input-secret"]}),
            UpstreamFailed,
            id="our secret is wrong",
        ),
        pytest.param(
            answers({"success": False, "error-codes": {"a": 1}}), InvalidLogin, id="odd codes"
        ),
        pytest.param(answers({"success": "true"}), UpstreamFailed, id="not a bool"),
        pytest.param(answers({"success": 1}), UpstreamFailed, id="a number"),
        pytest.param(answers({}), UpstreamFailed, id="does not say"),
        pytest.param(answers([True]), UpstreamFailed, id="a list"),
        pytest.param(answers(True), UpstreamFailed, id="no object"),
        pytest.param(answers(b""), UpstreamFailed, id="empty"),
        pytest.param(answers(b"<html>"), UpstreamFailed, id="not JSON"),
        pytest.param(answers(b"\x1f\x8b\x08"), UpstreamFailed, id="compressed"),
        pytest.param(answers(b"[" * 16_000), UpstreamFailed, id="nested without end"),
        pytest.param(answers({"success": True}, "500 Oops"), UpstreamFailed, id="500"),
        pytest.param(answers({"success": True}, "201 Made"), UpstreamFailed, id="201"),
        pytest.param(
            answers({"success": True, "x": "x" * MAX_ANSWER_BYTES}), UpstreamFailed, id="large"
        ),
        pytest.param(never_ends, UpstreamFailed, id="endless"),
        pytest.param(nothing, UpstreamFailed, id="silent"),
        pytest.param(drips, UpstreamFailed, id="slow"),
        pytest.param(hangs_up, UpstreamFailed, id="hangs up"),
    ],
)
async def test_whom_the_service_does_not_vouch_for(says: Says, error: type[GateError]) -> None:
    """Only a plain ``success`` lets in; a service that fails is no visitor's fault."""
    with pytest.raises(GateError) as refused:
        await admitted(says)
    assert refused.type is error
    assert (refused.value.retry_after_s is not None) == (error is UpstreamFailed)


async def test_a_service_that_is_down() -> None:
    """Nobody listens: the visitor hears when to come again."""
    async with visitors_at(f"http://127.0.0.1:{free_port()}/") as made:
        with pytest.raises(UpstreamFailed, match="captcha service"):
            await made.admit(ASKED, address=None, now_s=0.0)


async def test_no_redirect_is_followed() -> None:
    """The secret goes to the service that is named, and nowhere else."""
    async with service(answers({"success": True})) as (elsewhere, heard):
        with pytest.raises(UpstreamFailed):
            await admitted(answers({"success": True}, "307 There", f"location: {elsewhere}"))
    assert heard == []


async def test_many_visitors_at_once() -> None:
    """Only so many captchas are checked at once; who is refused is not asked about."""
    says = answers({"success": True}, "200 OK", "connection: close")
    async with service(says) as (url, heard), visitors_at(url) as made:
        tried = await asyncio.gather(
            *(made.admit(ASKED, address=None, now_s=0.0) for _ in range(AT_ONCE + 10)),
            return_exceptions=True,
        )
        assert sum(isinstance(one, RateLimited) for one in tried) == 10
        assert len(heard) == AT_ONCE
        await made.admit(ASKED, address=None, now_s=0.0)


async def test_there_are_none_unless_asked_for() -> None:
    """Without a service there is no such route; a service without a secret does not start."""
    async with visitors_at(None) as made:
        with pytest.raises(NoSuchRoute):
            await made.admit(ASKED, address=None, now_s=0.0)
    with pytest.raises(ValueError, match="SLUICEGATE_CAPTCHA_SECRET is not set"):
        Visitors(Visitor(siteverify_url="http://127.0.0.1/"), secret=None, sessions=Tokens())


async def test_secret_and_captcha_stay_secret(caplog: pytest.LogCaptureFixture) -> None:
    """Neither stands in what is logged or told when the service fails."""
    caplog.set_level(logging.DEBUG)
    told = []
    for says in (answers(b"no JSON: solved"), answers({"success": 0}), hangs_up):
        with pytest.raises(UpstreamFailed) as refused:
            await admitted(says)
        told.append(str(refused.value))
    said = caplog.text + "".join(told) + repr(ASKED)
    assert "captcha service" in said
    assert SECRET not in said
    assert "solved" not in said.replace("whether it was solved", "")
