"""Writes the checkpoint's files so that a reader never meets half of one: written aside, then renamed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from serving.demo import tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write everything but the weights and the card."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as aside:
        tokens.save(tokenizer, Path(aside))
        for file in Path(aside).iterdir():
            file.replace(folder / file.name)


def save_weights(model: Any, folder: Path) -> None:  # noqa: ANN401 - transformers' models are untyped
    """Write model.safetensors in bfloat16; the output layer is tied to the embeddings and not stored twice."""
    weights = {
        name: weight.detach().to(torch.bfloat16).contiguous()
        for name, weight in model.state_dict().items()
        if name != "lm_head.weight"
    }
    partial = folder / f"model.safetensors.{os.getpid()}.part"
    save_file(weights, partial, metadata={"format": "pt"})
    partial.replace(folder / "model.safetensors")
