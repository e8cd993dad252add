"""The request page: the whole life of an inference request.

1 read       what is asked; a mistake in it is told only to a caller who may call
2 admit      who calls, and one request of its limits, in one store call        401 403 429
3 seat       at once, or in line                                                429 503
4 relay      bytes as they come; another replica if one fails before any byte   502 504
5 settle, give the seat back: once, however it ends
"""

import asyncio
from http import HTTPStatus

from serve_app.errors import GateError, UpstreamFailed
from serve_app.ingress.call import Call, read
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.gate import Bill, Gate
from serve_app.ingress.relay import Upstream
from serve_app.ingress.usage import JsonUsage, StreamUsage
from serve_app.limits import Outcome

ATTEMPTS = 3


async def inference(gate: Gate, exchange: Exchange) -> None:
    """Answer one inference request.

    Raises:
        GateError: before the reply has begun, or, when a stream broke, after.
    """
    call, mistake = await asked(gate, exchange)
    model = call.model.name if call else ""
    async with gate.admitted(exchange, cost=0 if mistake else 1, model=model) as bill:
        bill.caller.must("run_inference")
        if mistake or call is None:
            raise mistake or AssertionError("a call or a mistake")
        if call.streaming:
            bill.caller.must("use_streaming")
        bill.caller.must_use(model)
        await seated(gate, exchange, call, bill)


async def asked(gate: Gate, exchange: Exchange) -> tuple[Call | None, GateError | None]:
    """Return what is asked, or what is wrong with it.

    Raises:
        Unauthenticated: nobody we know; a large body was not read for a stranger.
    """
    await gate.known(exchange)
    try:
        path = exchange.scope["engine_path"]
        raw, fields = await exchange.json_body(gate.settings.limits.max_body_bytes)
        return read(path, raw, fields, gate.models), None
    except GateError as mistake:
        return None, mistake


async def seated(gate: Gate, exchange: Exchange, call: Call, bill: Bill) -> None:
    """Take a seat and relay; go again while a replica fails before its first byte."""
    arrived_us, avoid, waited_ms = 0, "", 0.0
    for attempt in range(1, ATTEMPTS + 1):
        async with gate.line.seat(
            call.model.name,
            gate.queue_class,
            arrived_us=arrived_us,
            waited_ms=waited_ms,
            avoid=avoid,
        ) as seat:
            arrived_us, avoid, waited_ms = seat.arrived_us, seat.replica, seat.waited_ms
            exchange.note_seat(seat.served_class, waited_ms)
            try:
                async with gate.relay.send(call, seat, exchange.passed_on(call.model)) as reply:
                    await relayed(exchange, call, bill, reply)
                return
            except UpstreamFailed:
                if exchange.started or attempt == ATTEMPTS:
                    raise
            except asyncio.CancelledError:
                bill.left(call.input_estimate)
                raise


async def relayed(exchange: Exchange, call: Call, bill: Bill, reply: Upstream) -> None:
    """Pass the reply on and note its usage."""
    bill.outcome = Outcome.USED
    usage = bill.usage
    if reply.status >= HTTPStatus.BAD_REQUEST:
        reader: StreamUsage | JsonUsage = JsonUsage(usage)
    elif call.streaming:
        usage.input_tokens = call.input_estimate
        reader = StreamUsage(usage, keep_frame=call.wants_usage)
    else:
        reader = JsonUsage(usage)
    exchange.note_first_byte()
    await exchange.start(reply.status, reply.headers)
    async for chunk in reply.chunks():
        if passed := reader.feed(chunk):
            await exchange.write(passed)
    rest = reader.end()
    if not reader.finished:
        raise UpstreamFailed("The replica broke off.")
    await exchange.write(rest, more=False)
