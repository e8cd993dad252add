"""A LoRA adapter made on the spot: random weights of rank 8 for a Llama-shaped model folder."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

RANK = 8
PROJECTIONS = {"q_proj": 1, "v_proj": 0}
"""Projections that are adapted; 1 if all heads speak, 0 if those of the KV cache do."""


def make_adapter(base: Path, folder: Path, *, seed: int = 1) -> Path:
    """Write an adapter for the model in ``base``, in the form that PEFT writes; return its folder.

    Its weights are large enough that a reply under it is another one.
    """
    shape = json.loads((base / "config.json").read_text())
    hidden, heads = shape["hidden_size"], shape["num_attention_heads"]
    kept = hidden // heads * shape["num_key_value_heads"]
    dice = np.random.default_rng(seed)
    weights = {}
    for layer in range(shape["num_hidden_layers"]):
        for name, whole in PROJECTIONS.items():
            at = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            down = dice.normal(0, 0.1, (RANK, hidden))
            up = dice.normal(0, 0.1, (hidden if whole else kept, RANK))
            weights[f"{at}.lora_A.weight"] = down.astype(np.float32)
            weights[f"{at}.lora_B.weight"] = up.astype(np.float32)
    folder.mkdir(parents=True)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    told = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": [*PROJECTIONS],
    }
    (folder / "adapter_config.json").write_text(json.dumps(told))
    return folder
