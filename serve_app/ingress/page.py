"""The request page: the whole life of an inference request.

1 read       what is asked; a mistake in it is told only to a caller who may call
2 admit      who calls, and what it may use of its limits, in one store call    401 403 429
3 seat       at once, or in line                                                429 503
4 relay      bytes as they come; another replica if one fails before any byte   502 504
5 settle     what was used is charged, the seat given back: once, however it ends
"""

import asyncio

from serve_app.errors import UpstreamFailed
from serve_app.ingress.admission import admitted, asked
from serve_app.ingress.bill import Bill
from serve_app.ingress.exchange import Exchange
from serve_app.ingress.gate import Gate
from serve_app.ingress.passing import passed_on
from serve_app.ingress.reading.call import Call
from serve_app.ingress.responses import placed, sent
from serve_app.ingress.waiting import telling

ATTEMPTS, BACKOFF_S = 3, 0.5


async def inference(gate: Gate, exchange: Exchange) -> None:
    """Answer one inference request; raises GateError, when a stream broke also in its middle."""
    call, mistake = await asked(gate, exchange)
    async with admitted(gate, exchange, call) as bill:
        bill.caller.must("run_inference")
        if mistake or call is None:
            raise mistake or AssertionError("a call or a mistake")
        call.must_be_allowed(bill.caller)
        call = await placed(gate, call, bill.caller)
        await seated(gate, exchange, bill.capped(call, exchange), bill)


async def seated(gate: Gate, exchange: Exchange, call: Call, bill: Bill) -> None:
    """Take a seat and relay; go again while a replica fails before its first byte."""
    arrived_us, avoid, told = 0, "", telling(gate, exchange, call)
    for attempt in range(1, ATTEMPTS + 1):
        await asyncio.sleep(BACKOFF_S * (attempt - 1))  # a dead replica is withdrawn meanwhile
        asks = bill.asks(call, exchange)
        async with gate.line.seat(
            call.model.name, asks, arrived_us=arrived_us, avoid=avoid, telling=told
        ) as seat:
            arrived_us, avoid, bill.waited_ms = seat.arrived_us, seat.replica, seat.waited_ms
            exchange.note_seat(seat.served_class, bill.waited_ms)
            ranked = call.ranked(gate.rank(seat.served_class))
            try:
                async with sent(gate, exchange, ranked, seat, bill.caller) as reply:
                    await passed_on(exchange, call, bill, reply)
                return
            except UpstreamFailed:
                if bill.used or attempt == ATTEMPTS:
                    raise
            except asyncio.CancelledError:
                bill.ended_early()
                raise
            finally:
                seat.used = bill.used_tokens
