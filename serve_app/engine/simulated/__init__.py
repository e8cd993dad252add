"""The simulated engine: vLLM's OpenAI server on the wire, a latency model instead of a model.

Tests, benchmarks and capacity planning run on it. It is a process of its own::

    python -m serve_app.engine.simulated --served-model-name NAME [--port P] [--settings JSON]

The words: a **sequence** is one request inside the engine; the **batch** is the sequences that
run; a **step** gives every decoding sequence of the batch one token and reads a chunk of prompts;
the **KV cache** is counted in blocks; to **preempt** is to take a running sequence's blocks away
and to compute it again later.

    __main__     the command line and the process
    server       routes, middleware, the two completion endpoints
    driver       the scheduler on a real clock; one tap per request
    latency      the continuous-batching scheduler (pure, virtual time)
    names        the model's names and its LoRA adapters
    request      a body becomes an ask, or a refusal in vLLM's error shape
    reply        the deterministic text
    wire         vLLM's JSON and SSE frames
    exposition   vLLM's Prometheus lines
    faults       failures on demand

**Decided:** a waiting sequence never preempts a running one, however urgent; only an exhausted KV
cache does, as in vLLM's priority scheduling.

**Decided:** a sequence is admitted when the blocks for its whole prompt are free. vLLM asks for
the first chunk only; under pressure that computes and throws away more, and tells a test nothing.

**Decided:** a capped reply is exactly ``max_tokens`` long, so that a benchmark chooses its
lengths; without a cap a chat reply ends by itself after 8 to 128 tokens.

**Decided:** a request whose prompt and cap exceed the context is refused. vLLM 0.32 shortens the
cap in silence, and a test that asked for a length would then measure another one.
"""

from serve_app.engine.simulated.latency import Scheduler, Sequence

__all__ = ["Scheduler", "Sequence"]
