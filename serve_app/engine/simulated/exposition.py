"""vLLM's Prometheus lines, those that a gate or an autoscaler reads."""

from serve_app.engine.simulated.latency import Scheduler

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def expose(engine: Scheduler, model_name: str) -> str:
    """Return the state of the engine in the Prometheus text format, as vLLM 0.32 names it."""
    escaped = model_name.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    labels = f'{{engine="0",model_name="{escaped}"}}'
    lines = []
    for name, kind, told, value in _metrics(engine):
        lines += [f"# HELP vllm:{name} {told}", f"# TYPE vllm:{name} {kind}"]
        lines += [f"vllm:{name}{labels} {float(value)}"]
    return "\n".join([*lines, ""])


def _metrics(engine: Scheduler) -> list[tuple[str, str, str, float]]:
    """Return name, type, help and value of every metric."""
    g, c = "gauge", "counter"
    return [
        (
            "num_requests_running",
            g,
            "Number of requests in model execution batches.",
            len(engine.running),
        ),
        (
            "num_requests_waiting",
            g,
            "Number of requests waiting to be processed.",
            len(engine.waiting),
        ),
        (
            "kv_cache_usage_perc",
            g,
            "KV-cache usage. 1 means 100 percent usage.",
            engine.kv_usage,
        ),
        (
            "num_preemptions_total",
            c,
            "Cumulative number of preemption from the engine.",
            engine.preemptions,
        ),
        ("prompt_tokens_total", c, "Number of prefill tokens processed.", engine.prompt_tokens),
        (
            "generation_tokens_total",
            c,
            "Number of generation tokens processed.",
            engine.generation_tokens,
        ),
    ]
