"""Writes the checkpoint's files so that a reader never meets half of one: written aside, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors.torch import save_file

from serving.demo.training import tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NAMES: Final = (
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
)
"""A checkpoint's files, without its card."""


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
    partial.chmod(0o644)  # safetensors leaves it readable by its owner only
    partial.replace(folder / "model.safetensors")


def publish(folder: Path, target: Path) -> None:
    """Copy a trained checkpoint over another. The card stays: `evaluate` rewrites what it says was measured."""
    for name in NAMES:
        partial = target / f"{name}.part"
        shutil.copyfile(folder / name, partial)
        partial.replace(target / name)
