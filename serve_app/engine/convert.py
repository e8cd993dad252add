"""Turn a GGUF file into a model folder that vLLM loads; run once, in a process of its own.

    python -m serve_app.engine.convert GGUF FOLDER

Needs torch, transformers, gguf and accelerate, which the gateway never imports.
"""

import os
import shutil
import sys
from pathlib import Path


def convert(gguf: Path, folder: Path) -> None:
    """Write ``folder`` as a safetensors model with its tokenizer; whole or not at all."""
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415 - brings torch

    being_made = folder.with_name(f"{folder.name}.being-made-{os.getpid()}")
    shutil.rmtree(being_made, ignore_errors=True)
    source = {"gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), **source, dtype="bfloat16")
    for leftover in ("hf_quantizer", "is_quantized"):
        if hasattr(model, leftover):
            delattr(model, leftover)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(being_made)
    AutoTokenizer.from_pretrained(str(gguf.parent), **source).save_pretrained(being_made)
    being_made.rename(folder)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
