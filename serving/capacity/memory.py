"""What vLLM's profiling run finds used on each GPU, and what it therefore leaves for the KV cache. An estimate.

v1/worker/gpu_worker.py: determine_available_memory takes, from visible memory x --gpu-memory-utilization, what loading
took and the highest point of a run at full load, and what CUDA graphs are expected to take. The CUDA context and NCCL's
buffers are allocated before the snapshot (init_device) and so come out of the share that utilization leaves alone.

The sizes of tensors follow from the shapes in v1/worker/gpu_model_runner.py: profile_run; how many of them live at one
time is judged here. docs/capacity.md holds the result against published logs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serving.capacity import images, weights
from serving.capacity.gpus import GIB
from serving.capacity.weights import HALF_BYTES

if TYPE_CHECKING:
    from serving.capacity.model import Model
    from serving.capacity.question import Engine

OTHER_BYTES = GIB // 2
"""Attention and cuBLAS workspaces, kernels that CUDA loads late, fragments: a reserve, not a computation. FlashInfer's
workspace alone is 394 MiB (envs.py: VLLM_FLASHINFER_WORKSPACE_BUFFER_SIZE)."""

SAMPLER_BYTES_PER_LOGIT = 16
"""Logits in 32 bits, their probabilities, the random numbers, one copy (v1/sample/ops/topk_topp_sampler.py)."""

GRAPH_BYTES = 6_500_000
"""One CUDA graph of a 36-layer model: a published log estimates 0.52 GiB for 86 of Qwen3-8B (LMCache issue 3430)."""
GRAPH_LAYERS = 36


@dataclass(frozen=True)
class Budget:
    """Bytes of one GPU, all of them estimates but `requested`."""

    requested: int
    """v1/worker/utils.py: request_memory."""
    weights: int
    deepstack: int
    """Buffers that live as long as the model (model_executor/models/qwen3_vl.py: deepstack_input_embeds)."""
    encoder_output: int
    """Of the pictures that the profiling run keeps in the encoder cache."""
    activations: int
    """The highest of encoder, decoder and sampler."""
    graphs: int
    other: int

    @property
    def used(self) -> int:
        """Everything but the KV cache."""
        parts = (self.weights, self.deepstack, self.encoder_output, self.activations, self.graphs, self.other)
        return sum(parts)

    @property
    def available(self) -> int:
        """Left for the KV cache; negative when the model does not even load."""
        return self.requested - self.used


def encoder_budget_tokens(model: Model, engine: Engine) -> int:
    """Return the visual tokens that one step may encode, and that the encoder cache holds.

    v1/core/encoder_cache_manager.py: compute_mm_encoder_budget; both of its values are max-num-batched-tokens
    (config/scheduler.py) unless one picture is larger.
    """
    return max(engine.max_batched_tokens, images.most_tokens(model.vision, engine.max_image_pixels))


def profiled_tokens(model: Model, engine: Engine) -> int:
    """Return the visual tokens of the profiling run: as many largest pictures as the budget holds.

    multimodal/encoder_budget.py: MultiModalBudget._get_max_items. The bound by requests is left out: it is higher.
    """
    largest = images.most_tokens(model.vision, engine.max_image_pixels)
    return encoder_budget_tokens(model, engine) // largest * largest


def budget(model: Model, engine: Engine) -> Budget:
    """Divide one GPU's memory."""
    text, vision = model.text, model.vision
    levels = vision.deepstack_levels
    encoded = profiled_tokens(model, engine) * vision.out_width * (1 + levels) * HALF_BYTES
    return Budget(
        requested=math.ceil(engine.gpu.visible_bytes * engine.memory_utilization),
        weights=weights.per_gpu_bytes(model, engine.checkpoint, engine.gpu, engine.gpus_per_engine),
        deepstack=levels * engine.max_batched_tokens * text.width * HALF_BYTES,
        encoder_output=encoded,
        activations=max(_encoder(model, engine), _decoder(model, engine), _sampler(model, engine)),
        graphs=graphs(engine.max_requests) * GRAPH_BYTES * text.layers // GRAPH_LAYERS,
        other=OTHER_BYTES,
    )


def graphs(max_requests: int) -> int:
    """Count CUDA graphs: piecewise ones up to twice max-num-seqs or 512, full ones up to max-num-seqs.

    config/vllm.py: _set_cudagraph_sizes: 1, 2, 4, then by 8 up to 256, then by 16.
    """
    sizes = [1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)]
    piecewise = [size for size in sizes if size <= 2 * max_requests]
    full = [size for size in sizes if size <= max_requests]
    return len(piecewise) + len(full)


def _encoder(model: Model, engine: Engine) -> int:
    """Residual, normalized input and pixels of each patch, with the wider of attention and MLP beside them."""
    vision = model.vision
    patches = profiled_tokens(model, engine) * vision.patches_per_token
    pixels = vision.channels * vision.temporal_patch * vision.patch_px * vision.patch_px
    inner = max(4 * vision.width, 2 * vision.mlp_width)  # q, k, v and output; before and after the activation
    return patches * (2 * vision.width + inner + pixels) * HALF_BYTES


def _decoder(model: Model, engine: Engine) -> int:
    """Four tensors as wide as the model, gate and up projection, and their product."""
    text = model.text
    inner = 3 * text.mlp_width // engine.gpus_per_engine
    return engine.max_batched_tokens * (4 * text.width + inner) * HALF_BYTES


def _sampler(model: Model, engine: Engine) -> int:
    """One row of logits a request, gathered from all GPUs."""
    return engine.max_requests * model.text.vocabulary * SAMPLER_BYTES_PER_LOGIT
