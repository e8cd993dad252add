"""Pass an engine's reply on to the client, and note what it used."""

from http import HTTPStatus

from serve_app.errors import UpstreamFailed
from serve_app.ingress.bill import Bill
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.reading.call import Call
from serve_app.ingress.reading.usage import JsonUsage, SoundUsage, StreamUsage
from serve_app.ingress.upstream import Upstream

REFUSAL_BYTES = 65_536
"""So much of an engine's refusal is passed on as an event."""


async def passed_on(exchange: Exchange, call: Call, bill: Bill, reply: Upstream) -> None:
    """Relay ``reply`` as it comes; from its first byte on the request counts.

    A whole reply that does not tell what it used is charged what was held; a stream, or a reply
    that breaks off, its input and what has come.

    Raises:
        UpstreamFailed: the engine broke off; the client has part of the reply.
    """
    bill.used = True
    fine = reply.status < HTTPStatus.BAD_REQUEST
    reader = _reader(call, bill, reply, fine=fine)
    exchange.note_first_byte()
    if exchange.started and not fine:  # it was told that it waits, so its status is sent
        await exchange.write(await _as_event(reply), more=False)
        return
    if not exchange.started:
        await exchange.start(reply.status, reply.headers)
    try:
        async for chunk in reply.chunks():
            if passed := reader.feed(chunk):
                await exchange.write(passed)
        rest = reader.end()
        if reader.broken:
            raise UpstreamFailed("The replica broke off.")
    except UpstreamFailed:
        exchange.events_out = reader.frames - reader.failed  # its own last words are kept back
        bill.ended_early()
        raise
    if reader.failed:  # the engine has told the client what was wrong
        exchange.code = UpstreamFailed.code
        bill.ended_early()
    else:
        _close(bill, call, reader, fine=fine)
    await exchange.write(rest, more=False)


def _close(bill: Bill, call: Call, reader: StreamUsage | JsonUsage, *, fine: bool) -> None:
    """Note what a reply used that came to its end."""
    if fine and call.dialect.tells_usage and not call.streaming:
        bill.charge_untold(reader.told)
    counts = {"input", "output"} if call.demand.choices else {"input"}
    bill.ended_well = fine and reader.told >= counts


async def _as_event(reply: Upstream) -> bytes:
    """Return an engine's refusal as the event that ends a stream."""
    told = b""
    async for chunk in reply.chunks():
        told += chunk if len(told) < REFUSAL_BYTES else b""
    return b"event: error\ndata: " + b" ".join(told.split(b"\n")) + b"\n\n"


def _reader(call: Call, bill: Bill, reply: Upstream, *, fine: bool) -> StreamUsage | JsonUsage:
    """Return what reads the reply; a stream's usage begins with its input."""
    stream = call.dialect.stream
    if fine and call.streaming and stream is not None:
        bill.usage.input_tokens = bill.held.input_tokens
        return StreamUsage(bill.usage, stream, keep_frame=call.wants_usage)
    if call.dialect.form:
        return SoundUsage(bill.usage)
    return JsonUsage(bill.usage, beside=reply.headers.get("metadata", ""))
