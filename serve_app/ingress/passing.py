"""Pass an engine's reply on to the client, and note what it used."""

from http import HTTPStatus

from serve_app.errors import UpstreamFailed
from serve_app.ingress.bill import Bill
from serve_app.ingress.call import Call
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.relay import Upstream
from serve_app.ingress.usage import JsonUsage, StreamUsage


async def passed_on(exchange: Exchange, call: Call, bill: Bill, reply: Upstream) -> None:
    """Relay ``reply`` as it comes; from its first byte on the request counts.

    Raises:
        UpstreamFailed: the engine broke off; the client has part of the reply.
    """
    bill.used = True
    usage = bill.usage
    if reply.status >= HTTPStatus.BAD_REQUEST:
        reader: StreamUsage | JsonUsage = JsonUsage(usage)
    elif call.streaming:
        usage.input_tokens = bill.held.input_tokens
        reader = StreamUsage(usage, keep_frame=call.wants_usage)
    else:
        reader = JsonUsage(usage)
    exchange.note_first_byte()
    await exchange.start(reply.status, reply.headers)
    try:
        async for chunk in reply.chunks():
            if passed := reader.feed(chunk):
                await exchange.write(passed)
        rest = reader.end()
        if not reader.finished:
            raise UpstreamFailed("The replica broke off.")
    except UpstreamFailed:
        bill.ended_early()
        raise
    bill.ended_well = reply.status < HTTPStatus.BAD_REQUEST
    await exchange.write(rest, more=False)
