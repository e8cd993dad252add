"""Responses that an engine keeps: named by the gate, found again at the replica that holds them.

Only who made a response is let near it, by a name that nobody can guess or choose. An engine keeps
them if its ``env`` has ``VLLM_ENABLE_RESPONSES_API_STORE``; if not, there is none to be found.
"""

import re
import secrets
from collections.abc import AsyncIterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    suppress,
)
from dataclasses import replace
from http import HTTPStatus

from serve_app.auth import Caller
from serve_app.errors import InvalidRequest, NoSuchResponse, StoreUnavailable, UpstreamFailed
from serve_app.ingress.admission import admitted
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.gate import Gate
from serve_app.ingress.reading.call import Call
from serve_app.ingress.reading.catalogue import may_ask
from serve_app.ingress.upstream import Upstream, unreached
from serve_app.queueing import Place, Seat

PATH = "/v1/responses"
_NAME = re.compile(r"resp_[0-9a-f]{32}")
_NO = ("", "false", "0")


async def retrieve(gate: Gate, exchange: Exchange) -> None:
    """Return a response that its engine keeps; with ``stream=true`` its events once more.

    Raises:
        NoSuchResponse: it is gone, or is not the caller's.
    """
    await _asked_of_its_keeper(gate, exchange, "GET", "")


async def cancel(gate: Gate, exchange: Exchange) -> None:
    """Stop a response that its engine still makes.

    Raises:
        NoSuchResponse: it is gone, or is not the caller's.
    """
    await _asked_of_its_keeper(gate, exchange, "POST", "/cancel")


async def placed(gate: Gate, call: Call, caller: Caller) -> Call:
    """Return ``call``; if it goes on from a kept response, with the place where that is.

    Raises:
        NoCapacity: its model cannot be started.
        NoSuchResponse: it is gone, or is not the caller's, or of another name.
    """
    gate.must_start(call.model)
    if not call.follows or not call.model.keeps_responses:
        return call
    place = await _found(gate, caller, call.follows, "previous_response_id")
    if gate.models[place.model].counted(place.asked) != call.counts_as:
        raise _gone(call.follows, "previous_response_id")
    return replace(call, place=place)


@asynccontextmanager
async def sent(
    gate: Gate, exchange: Exchange, call: Call, seat: Seat, caller: Caller
) -> AsyncIterator[Upstream]:
    """Send ``call`` to the engine of ``seat``, or where what it goes on from is kept.

    What an engine may keep is named by the gate, and noted before its first byte goes on.

    Raises:
        NoSuchResponse: what it goes on from went while it waited, or cannot be reached.
        UpstreamFailed, UpstreamTimeout: as :meth:`Relay.send` says.
    """
    headers = exchange.passed_on(call.model)
    if not call.dialect.keeps:
        async with gate.relay.send(call, seat, headers) as reply:
            yield reply
        return
    if call.place is not None:
        place = await _found(gate, caller, call.follows, "previous_response_id")
        seat = replace(seat, address=place.address, replica=place.replica)
    name = f"resp_{secrets.token_hex(16)}"
    async with _reached(gate.relay.send(call.named(name), seat, headers), call) as reply:
        if call.kept and call.model.keeps_responses and reply.status < HTTPStatus.BAD_REQUEST:
            who, asked = (caller.tenant, caller.key_id), call.asked or call.model.name
            with suppress(StoreUnavailable):
                await gate.kept.note(
                    *who, name, model=call.model.name, asked=asked, replica=seat.replica
                )
        yield reply


@asynccontextmanager
async def _reached(
    sending: AbstractAsyncContextManager[Upstream], call: Call
) -> AsyncIterator[Upstream]:
    """Lend what ``sending`` lends; no other replica has what a kept response's lost keeper had."""
    async with AsyncExitStack() as stack:
        try:
            reply = await stack.enter_async_context(sending)
        except UpstreamFailed as err:
            if call.place is not None and unreached(err):
                raise _gone(call.follows, "previous_response_id") from err
            raise
        yield reply


async def _asked_of_its_keeper(gate: Gate, exchange: Exchange, method: str, verb: str) -> None:
    """Ask the replica that holds the response of the path; pass on what it says."""
    async with admitted(gate, exchange) as bill:
        caller, query = bill.caller, exchange.query
        caller.must("run_inference")
        caller.must_reach(PATH)
        name = str(exchange.scope["path_params"]["response_id"])
        place = await _found(gate, caller, name, "response_id")
        if not may_ask(caller, place.asked, gate.models[place.model]):
            caller.must_use(place.asked)
        if query.get("stream", "").lower() not in _NO:
            told = "Only what is made in the background can be streamed again; leave it out."
            raise InvalidRequest(told, param="stream")
        headers = exchange.passed_on(gate.models[place.model])
        async with gate.relay.ask(method, f"{PATH}/{name}{verb}", place, headers) as reply:
            if reply.status == HTTPStatus.NOT_FOUND:
                raise _gone(name, "response_id")
            await exchange.start(reply.status, reply.headers)
            async for chunk in reply.chunks():
                await exchange.write(chunk)
            await exchange.write(b"", more=False)


async def _found(gate: Gate, caller: Caller, name: str, param: str) -> Place:
    """Return where the caller's response ``name`` is kept."""
    place = None
    if _NAME.fullmatch(name):
        place = await gate.kept.find(caller.tenant, caller.key_id, name)
    if place is None or place.model not in gate.models:
        raise _gone(name, param)
    return place


def _gone(name: str, param: str) -> NoSuchResponse:
    told = f"There is no response '{name[:64]}', or not any more; it is kept by one replica alone."
    return NoSuchResponse(told, param=param)
