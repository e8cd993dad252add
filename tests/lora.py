"""A LoRA adapter made on the spot: random weights of rank 8 for a Llama-shaped model folder."""

import json
import random
import struct
from array import array
from pathlib import Path

RANK = 8
PROJECTIONS = ("q_proj", "v_proj")
SPREAD = 0.1
"""Large enough that a reply under the adapter is another one."""


def make_adapter(base: Path, folder: Path, *, seed: int = 1) -> Path:
    """Write an adapter for the model in ``base``, as PEFT writes one; return its folder."""
    shape = json.loads((base / "config.json").read_text())
    hidden, heads = shape["hidden_size"], shape["num_attention_heads"]
    out = {"q_proj": hidden, "v_proj": hidden // heads * shape["num_key_value_heads"]}
    sizes = {}
    for layer in range(shape["num_hidden_layers"]):
        for name in PROJECTIONS:
            at = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            sizes[f"{at}.lora_A.weight"] = (RANK, hidden)
            sizes[f"{at}.lora_B.weight"] = (out[name], RANK)
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(_safetensors(sizes, random.Random(seed)))
    told = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": PROJECTIONS,
    }
    (folder / "adapter_config.json").write_text(json.dumps(told))
    return folder


def _safetensors(sizes: dict[str, tuple[int, int]], dice: random.Random) -> bytes:
    """Return random tensors in the file format: length of the header, header, numbers.

    Source: the README of github.com/huggingface/safetensors.
    """
    header, weights = {}, array("f")
    for name, (rows, columns) in sizes.items():
        begin = 4 * len(weights)
        weights.extend(dice.gauss(0, SPREAD) for _ in range(rows * columns))
        told = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [begin, 4 * len(weights)]}
        header[name] = told
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + weights.tobytes()
