"""Tell a client whose stream still waits in line that it does."""

from serve_app.ingress.exchange import Exchange
from serve_app.ingress.gate import Gate
from serve_app.ingress.reading.call import Call
from serve_app.queueing import Telling

STREAM = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


def telling(gate: Gate, exchange: Exchange, call: Call) -> Telling | None:
    """Return how a waiting client is told, by comments that every reader of events skips.

    None if it asked for no stream, or ``queue.keep_alive_s`` is 0. From the first comment on the
    reply is under way: its headers tell nothing of the wait, and a refusal comes as an event.
    """

    async def tell(ahead: int, waited_s: float) -> None:
        if not exchange.started:
            for name in ("x-queue-time-ms", "x-served-class"):
                exchange.headers_out.pop(name, None)
            await exchange.start(200, STREAM)
        told = f": waiting in line for {waited_s:.0f} s, at most {ahead} ahead\n\n"
        await exchange.write(told.encode())

    every_s = gate.settings.queue.keep_alive_s
    return Telling(every_s, tell) if every_s and call.streaming else None
