"""Arithmetic and bytes -> seconds: the roofline model, derated. An estimate, computed and not measured.

A step takes as long as the slower of its arithmetic and its memory traffic (Williams, Waterman and Patterson,
"Roofline", CACM 52(4), 2009). FLOPs of a matrix: two for each weight and token. The two factors below are what well
tuned serving reaches of a datasheet's peaks; docs/capacity.md shows what they give for published measurements.

Left out: decoding and resizing pictures on the CPU, which often is the first bottleneck, and the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from serving.capacity import weights
from serving.capacity.weights import Checkpoint

if TYPE_CHECKING:
    from serving.capacity.model import Model
    from serving.capacity.question import Engine, Question

COMPUTE_EFFICIENCY = 0.5
"""Share of the peak FLOP/s in prefill and in the vision tower."""
BANDWIDTH_EFFICIENCY = 0.7
"""Share of the peak bandwidth in decode."""
STEP_OVERHEAD_S = 0.001
"""Launches and scheduling that async scheduling does not hide."""
ALL_REDUCE_S = 10e-6
"""Latency of one all-reduce; there are two in each layer."""


@dataclass(frozen=True)
class Work:
    """What one step asks of each GPU."""

    flops: float
    """In the precision of the checkpoint's matrices."""
    bytes: float
    all_reduced_bytes: float = 0
    """Of one all-reduce."""


def flops_per_s(engine: Engine) -> float:
    """Return the peak rate for the decoder: FP8 where the GPU multiplies it, otherwise 16 bits."""
    gpu = engine.gpu
    if engine.checkpoint is Checkpoint.FP8 and gpu.fp8_flops_per_s:
        return gpu.fp8_flops_per_s
    return half_flops_per_s(engine)


def half_flops_per_s(engine: Engine) -> float:
    """Return the peak rate in 16 bits, which the vision tower always runs in."""
    return engine.gpu.bf16_flops_per_s or engine.gpu.fp16_flops_per_s


def encoder_flops(model: Model, image_tokens: int) -> float:
    """Count the arithmetic of encoding one picture; attention is over all its patches, in every layer."""
    vision = model.vision
    width, patches = vision.width, image_tokens * vision.patches_per_token
    embed = 2 * vision.channels * vision.temporal_patch * vision.patch_px**2 * width * patches
    blocks = vision.layers * (2 * (4 * width * width + 2 * width * vision.mlp_width) * patches + 4 * width * patches**2)
    merged = width * vision.patches_per_token
    mergers = (1 + vision.deepstack_levels) * 2 * (merged * merged + merged * vision.out_width) * image_tokens
    return embed + blocks + mergers


def prefill_work(model: Model, engine: Engine, tokens: int) -> Work:
    """Count one request's prefill: causal attention sees half of the square, logits are for the last token only."""
    text = model.text
    linear = 2 * model.parameters.decoder_linear * tokens
    attention = text.layers * 4 * text.heads * text.head_dim * tokens**2 / 2
    output = 2 * text.vocabulary * text.width
    return Work(
        (linear + attention + output) / engine.gpus_per_engine,
        _weights_read(model, engine),
        tokens * text.width * weights.HALF_BYTES,
    )


def decode_work(model: Model, engine: Engine, requests: float, context_tokens: float) -> Work:
    """Count one decode step for a batch: all weights are read once, and each request's cache."""
    text = model.text
    per_token = 2 * model.parameters.decoder_linear + 2 * text.vocabulary * text.width
    attention = text.layers * 4 * text.heads * text.head_dim * context_tokens
    cache = requests * context_tokens * engine.layout(model).token_bytes  # of one GPU already
    return Work(
        requests * (per_token + attention) / engine.gpus_per_engine,
        _weights_read(model, engine) + cache,
        requests * text.width * weights.HALF_BYTES,
    )


def _weights_read(model: Model, engine: Engine) -> float:
    gpus = engine.gpus_per_engine
    return weights.decoder_bytes(model, engine.checkpoint, engine.gpu, gpus) + weights.output_bytes(model, gpus)


def seconds(work: Work, model: Model, engine: Engine) -> float:
    """Return the time of a step: the roofline, the all-reduces of tensor parallelism, the overhead."""
    gpu, gpus = engine.gpu, engine.gpus_per_engine
    roof = max(
        work.flops / (flops_per_s(engine) * COMPUTE_EFFICIENCY),
        work.bytes / (gpu.bandwidth_bytes_per_s * BANDWIDTH_EFFICIENCY),
    )
    return roof + _all_reduces_s(work.all_reduced_bytes, gpus, gpu.link_bytes_per_s, model) + STEP_OVERHEAD_S


def _all_reduces_s(size_bytes: float, gpus: int, link_bytes_per_s: float, model: Model) -> float:
    if gpus == 1:
        return 0.0
    ring = 2 * (gpus - 1) / gpus * size_bytes / link_bytes_per_s
    return 2 * model.text.layers * (ALL_REDUCE_S + ring)


def encoder_s(question: Question) -> float:
    """Return the time of encoding one request's pictures. Each runs on one GPU (--mm-encoder-tp-mode data)."""
    flops = encoder_flops(question.model, question.image_tokens) * question.load.images_per_request
    return flops / (half_flops_per_s(question.engine) * COMPUTE_EFFICIENCY)


def prefill_s(question: Question) -> float:
    """Return the time from an idle engine's first look at a request to its first token: encoder and decoder."""
    return encoder_s(question) + _decoder_s(question)


def prefill_share_s(question: Question) -> float:
    """Return the time that one of many requests costs the engine: their pictures are encoded on all GPUs at once."""
    return encoder_s(question) / question.engine.gpus_per_engine + _decoder_s(question)


def _decoder_s(question: Question) -> float:
    work = prefill_work(question.model, question.engine, question.input_tokens)
    return seconds(work, question.model, question.engine)


def decode_step_s(question: Question, requests: float) -> float:
    """Return the time of one decode step for this many requests, halfway through their answers."""
    context_tokens = question.input_tokens + question.load.output_tokens / 2
    work = decode_work(question.model, question.engine, requests, context_tokens)
    return seconds(work, question.model, question.engine)
