"""An engine that stamps each chunk with the time it was sent, so that its way can be measured.

    python -m benchmarks.stamped PORT

It serves chats as vLLM does, on uvicorn: ``max_tokens`` chunks, one each ``INTERVAL_S``, 250 bytes
each, and without a stream a short reply at once. The clock is the machine's, the same for all its
processes.
"""

import asyncio
import json
import sys
import time
from typing import Any

import uvicorn

INTERVAL_S = 0.01
PADDING = "x" * 120
FRAME = (
    'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","at":%d,"choices":[{"index":0,'
    '"delta":{"content":"' + PADDING + '"},"finish_reason":null}]}\n\n'
)
USAGE = {"prompt_tokens": 8, "completion_tokens": 8, "total_tokens": 16}
LAST = b"data: " + json.dumps({"choices": [], "usage": USAGE}).encode() + b"\n\ndata: [DONE]\n\n"
WHOLE = json.dumps({"choices": [{"message": {"content": PADDING}}], "usage": USAGE}).encode()


async def engine(scope: Any, receive: Any, send: Any) -> None:
    """Answer one request."""
    if scope["type"] != "http":
        return
    raw, more = b"", True
    while more:
        message = await receive()
        raw += message.get("body", b"")
        more = message.get("more_body", False)
    asked = json.loads(raw)
    stream = asked.get("stream", False)
    media = b"text/event-stream" if stream else b"application/json"
    headers = [(b"content-type", media)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if not stream:
        await send({"type": "http.response.body", "body": WHOLE})
        return
    for _ in range(asked["max_tokens"]):
        body = (FRAME % time.monotonic_ns()).encode()
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await asyncio.sleep(INTERVAL_S)
    await send({"type": "http.response.body", "body": LAST})


if __name__ == "__main__":
    uvicorn.run(engine, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
