"""A LoRA adapter for the demo checkpoint, drawn at random: it serves to show that an adapter changes answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

RANK = 8
MODULE = "base_model.model.model.language_model.layers.{layer}.mlp.down_proj.lora_{part}.weight"


def write_adapter(folder: Path, config: dict, seed: int = 1) -> Path:
    """Write it in PEFT's format, for the down projection of every layer of the decoder."""
    text = config["text_config"]
    width, inner = text["hidden_size"], text["intermediate_size"]
    random = np.random.default_rng(seed)
    tensors = {}
    for layer in range(text["num_hidden_layers"]):
        tensors[MODULE.format(layer=layer, part="A")] = random.normal(size=(RANK, inner))
        tensors[MODULE.format(layer=layer, part="B")] = random.normal(size=(width, RANK))
    folder.mkdir()
    described = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": ["down_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(described))
    (folder / "adapter_model.safetensors").write_bytes(safetensors(tensors))
    return folder


def safetensors(tensors: dict) -> bytes:
    """Write tensors in 32 bits: the length of a header, the header, the bytes."""
    header, body = {}, b""
    for name, tensor in tensors.items():
        raw = tensor.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    encoded = json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded + body
