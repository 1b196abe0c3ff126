"""Parameters -> bytes of weights on each GPU of an engine.

Official FP8 and community W4A16 checkpoints of Qwen3-VL quantize the matrices of the decoder's layers and nothing else:
the vision tower, the embedding and the output layer stay in 16 bits.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.capacity.gpus import Gpu
    from serving.capacity.model import Model

HALF_BYTES = 2
GROUP = 128
"""Weights that share a scale: Qwen's FP8 has blocks of 128 x 128, W4A16 is taken to have groups of 128."""


class Checkpoint(StrEnum):
    """Precision of the decoder's matrices."""

    BF16 = "bf16"
    FP8 = "fp8"
    W4A16 = "w4a16"


def bytes_per_weight(checkpoint: Checkpoint, gpu: Gpu) -> float:
    """Return the bytes that one weight of the decoder's matrices takes on this GPU, its share of the scale included.

    FP8 without FP8 arithmetic goes through Marlin, which wants one 16-bit scale for each group of 128 in each column
    (model_executor/layers/quantization/utils/marlin_utils_fp8.py: prepare_fp8_layer_for_marlin).
    """
    match checkpoint:
        case Checkpoint.BF16:
            return HALF_BYTES
        case Checkpoint.FP8 if gpu.has_fp8:
            return 1 + 4 / GROUP**2
        case Checkpoint.FP8:
            return 1 + HALF_BYTES / GROUP
        case _:  # w4a16
            return 0.5 + HALF_BYTES / GROUP


def decoder_bytes(model: Model, checkpoint: Checkpoint, gpu: Gpu, gpus_per_engine: int = 1) -> int:
    """Return the bytes of the decoder's layers on each GPU: what one decode step reads besides the output layer."""
    parts = model.parameters
    linear = parts.decoder_linear * bytes_per_weight(checkpoint, gpu) / gpus_per_engine
    return round(linear) + parts.decoder_other * HALF_BYTES


def output_bytes(model: Model, gpus_per_engine: int = 1) -> int:
    """Return the bytes of the output layer on each GPU, which is the embedding when the two are tied."""
    return (model.parameters.output or model.parameters.embedding) * HALF_BYTES // gpus_per_engine


def per_gpu_bytes(model: Model, checkpoint: Checkpoint, gpu: Gpu, gpus_per_engine: int = 1) -> int:
    """Return the bytes of all weights on each GPU of the engine.

    Tensor parallelism splits the decoder's matrices, the embedding and the output layer. The vision tower is whole on
    each GPU, as the profiles set --mm-encoder-tp-mode data (model_executor/models/qwen3_vl.py: disable_tp).
    """
    parts = model.parameters
    vocabulary = (parts.embedding + parts.output) * HALF_BYTES // gpus_per_engine
    return decoder_bytes(model, checkpoint, gpu, gpus_per_engine) + vocabulary + parts.vision * HALF_BYTES
