"""config.json -> the widths of a Qwen3-VL model, and how many parameters each part has. Exact; nothing is estimated.

The counts follow transformers/models/qwen3_vl/modeling_qwen3_vl.py; tests/engine/test_kv_accounting.py compares their
sum with the model instantiated on torch's meta device. It refuses other architectures, mixture-of-experts among them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODELS_DIR = Path(__file__).parents[1] / "models"
ARCHITECTURE = "Qwen3VLForConditionalGeneration"
DEFAULT = "qwen3-vl-8b"


class ModelError(Exception):
    """A config.json cannot be used; the message names the file and the fault."""


@dataclass(frozen=True)
class Text:
    """The decoder's widths."""

    vocabulary: int
    width: int
    mlp_width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    attention_bias: bool
    tied: bool
    """The output layer is the embedding, stored once."""
    max_context_tokens: int


@dataclass(frozen=True)
class Vision:
    """The vision tower's widths."""

    layers: int
    width: int
    mlp_width: int
    channels: int
    patch_px: int
    temporal_patch: int
    merge: int
    """Patches a side that become one visual token."""
    out_width: int
    positions: int
    deepstack_levels: int
    """Layers whose output is merged a second time, for the decoder's first layers."""

    @property
    def cell_px(self) -> int:
        """Side of the square that one visual token covers."""
        return self.patch_px * self.merge

    @property
    def patches_per_token(self) -> int:
        """Patches that are merged into one visual token."""
        return self.merge * self.merge


@dataclass(frozen=True)
class Parameters:
    """How many numbers each part holds."""

    decoder_linear: int
    """The matrices of the decoder's layers: what FP8 and W4A16 checkpoints quantize."""
    decoder_other: int
    """Norms and biases."""
    embedding: int
    output: int
    """The output layer; 0 when it is tied to the embedding."""
    vision: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.decoder_linear + self.decoder_other + self.embedding + self.output + self.vision


@dataclass(frozen=True)
class Model:
    """One model."""

    name: str
    text: Text
    vision: Vision
    quantization: str | None = None
    """`quantization_config.quant_method` of the checkpoint, with the bits when they are known: fp8, w4a16."""

    @property
    def parameters(self) -> Parameters:
        """Count them, part by part."""
        return count(self.text, self.vision)


def count(text: Text, vision: Vision) -> Parameters:
    """Count parameters as transformers' Qwen3VLTextModel, Qwen3VLVisionModel and the output layer allocate them."""
    query, key_value = text.heads * text.head_dim, text.kv_heads * text.head_dim
    attention = text.width * query + 2 * text.width * key_value + query * text.width
    bias = query + 2 * key_value + text.width if text.attention_bias else 0
    norms = 2 * text.width + 2 * text.head_dim  # before attention and MLP; of query and key
    embedding = text.vocabulary * text.width
    return Parameters(
        decoder_linear=text.layers * (attention + 3 * text.width * text.mlp_width),
        decoder_other=text.layers * (norms + bias) + text.width,
        embedding=embedding,
        output=0 if text.tied else embedding,
        vision=_vision(vision),
    )


def _vision(vision: Vision) -> int:
    width, mlp = vision.width, vision.mlp_width
    patch = vision.channels * vision.temporal_patch * vision.patch_px**2 * width + width
    attention = 4 * width * width + 4 * width
    block = attention + 2 * width * mlp + mlp + width + 2 * 2 * width  # MLP's biases, two LayerNorms
    merged = width * vision.patches_per_token
    merger = merged * merged + merged + merged * vision.out_width + vision.out_width
    # The last merger normalizes each patch, those of the DeepStack levels each merged token.
    mergers = merger + 2 * width + vision.deepstack_levels * (merger + 2 * merged)
    return patch + vision.positions * width + vision.layers * block + mergers


def known() -> tuple[str, ...]:
    """Return the names of the models whose config.json lies in serving/models."""
    return tuple(sorted(file.stem for file in MODELS_DIR.glob("*.json")))


def load(name_or_path: str) -> Model:
    """Read a known model, a config.json or a directory that has one. Raises ModelError."""
    if name_or_path.lower() in known():
        file = MODELS_DIR / f"{name_or_path.lower()}.json"
    else:
        file = Path(name_or_path)
        file = file / "config.json" if file.is_dir() else file
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"there is no model {name_or_path!r}: name one of {', '.join(known())}, or give the path of a config.json"
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as exc:
        raise ModelError(f"{file} cannot be read as JSON: {exc}") from exc
    return parse(config, file.parent.name if file.name == "config.json" else file.stem)


def parse(config: object, name: str) -> Model:
    """Read the content of a config.json. Raises ModelError for another architecture or a missing width."""
    if not isinstance(config, dict) or ARCHITECTURE not in (config.get("architectures") or ()):
        raise ModelError(f"{name}: only {ARCHITECTURE} is known here, and `architectures` does not have it")
    try:
        return Model(name, _text(config), _vision_widths(config["vision_config"]), _quantization(config))
    except KeyError as exc:
        raise ModelError(f"{name}: config.json has no {exc}") from exc
    except (TypeError, ValueError, AttributeError) as exc:
        raise ModelError(f"{name}: config.json is not that of a Qwen3-VL model: {exc}") from exc


def _text(config: dict[str, Any]) -> Text:
    text = config["text_config"]
    tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
    return Text(
        vocabulary=int(text["vocab_size"]),
        width=int(text["hidden_size"]),
        mlp_width=int(text["intermediate_size"]),
        layers=int(text["num_hidden_layers"]),
        heads=int(text["num_attention_heads"]),
        kv_heads=int(text["num_key_value_heads"]),
        head_dim=int(text["head_dim"]),
        attention_bias=bool(text.get("attention_bias", False)),
        tied=bool(tied),
        max_context_tokens=int(text["max_position_embeddings"]),
    )


def _vision_widths(vision: dict[str, Any]) -> Vision:
    return Vision(
        layers=int(vision["depth"]),
        width=int(vision["hidden_size"]),
        mlp_width=int(vision["intermediate_size"]),
        channels=int(vision["in_channels"]),
        patch_px=int(vision["patch_size"]),
        temporal_patch=int(vision["temporal_patch_size"]),
        merge=int(vision["spatial_merge_size"]),
        out_width=int(vision["out_hidden_size"]),
        positions=int(vision["num_position_embeddings"]),
        deepstack_levels=len(vision["deepstack_visual_indexes"]),
    )


def _quantization(config: dict[str, Any]) -> str | None:
    """Tell the checkpoint's precision in this package's words; an unknown method keeps its own name."""
    quantization = config.get("quantization_config")
    if not quantization:
        return None
    method = str(quantization["quant_method"])
    if method != "compressed-tensors":
        return method
    weights = next(iter(quantization["config_groups"].values()))["weights"]
    bits, kind = int(weights["num_bits"]), str(weights["type"])
    return {(8, "float"): "fp8", (4, "int"): "w4a16"}.get((bits, kind), f"{method} {bits}-bit {kind}")
