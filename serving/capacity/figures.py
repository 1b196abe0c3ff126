"""A plan as a list of figures, each with its unit, formula and source. Pure: `serving/plan_cli.py` prints them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from serving.capacity import images, kv, load, memory, roofline, weights
from serving.capacity.gpus import GIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serving.capacity.question import Question


class Basis(StrEnum):
    """What a figure rests on."""

    EXACT = "exact"
    """Counted as the model or vLLM counts it, and tested against them."""
    COMPUTED = "computed, not measured"
    """Only a GPU could show it, and none was at hand."""


@dataclass(frozen=True)
class Figure:
    """One figure of a plan."""

    key: str
    """For programs; the unit is its ending."""
    title: str
    value: float
    unit: str
    basis: Basis
    formula: str
    """With the numbers of this plan in it."""
    source: str


def figures(question: Question) -> tuple[Figure, ...]:
    """Compute every figure for a question that `fits` accepts."""
    return (*_model(question), *_memory(question), *_cache(question), *_times(question), *_service(question))


def _model(question: Question) -> Iterator[Figure]:
    model, engine, sent = question.model, question.engine, question.load
    parts, cell = model.parameters, model.vision.cell_px
    seen = images.resized(sent.image, model.vision, engine.max_image_pixels)
    yield Figure(
        "parameters",
        "Parameters",
        parts.total,
        "",
        Basis.EXACT,
        f"decoder matrices {parts.decoder_linear:,} + its norms {parts.decoder_other:,} + embedding "
        f"{parts.embedding:,} + output {parts.output:,} + vision {parts.vision:,}",
        "transformers/models/qwen3_vl/modeling_qwen3_vl.py",
    )
    yield Figure(
        "image_tokens",
        "Tokens of a picture",
        question.image_tokens,
        "tokens",
        Basis.EXACT,
        f"{sent.image} px, resized to {seen}: {seen.width_px}/{cell} x {seen.height_px}/{cell}",
        "transformers/models/qwen2_vl/image_processing_qwen2_vl.py: smart_resize; "
        "model_executor/models/qwen3_vl.py: _get_vision_info",
    )
    yield Figure(
        "request_tokens",
        "Tokens of a request",
        question.request_tokens,
        "tokens",
        Basis.EXACT,
        f"text {sent.prompt_tokens:,} + {sent.images_per_request} x (picture {question.image_tokens:,} + 2 marks) + "
        f"answer {sent.output_tokens:,}",
        "model_executor/models/qwen3_vl.py: get_placeholder_str",
    )


def _memory(question: Question) -> Iterator[Figure]:
    model, engine = question.model, question.engine
    budget, parts, gpus = memory.budget(model, engine), model.parameters, engine.gpus_per_engine
    per_weight = weights.bytes_per_weight(engine.checkpoint, engine.gpu)
    yield _gib(
        "requested",
        "Memory vLLM may use",
        budget.requested,
        f"{engine.gpu.visible_bytes / GIB:.1f} GiB visible x {engine.memory_utilization}",
        "serving/gpus.toml; v1/worker/utils.py: request_memory",
    )
    yield _gib(
        "weights",
        "Weights",
        budget.weights,
        f"decoder matrices {parts.decoder_linear:,} x {per_weight:.4f} B / {gpus} GPU + vocabulary "
        f"{parts.embedding + parts.output:,} x 2 B / {gpus} GPU + vision {parts.vision:,} x 2 B + norms",
        "serving/capacity/weights.py",
    )
    yield _gib(
        "activations",
        "Activations",
        budget.activations + budget.deepstack,
        f"the largest of encoder, decoder ({engine.max_batched_tokens:,} tokens) and sampler "
        f"({engine.max_requests} x {model.text.vocabulary:,} logits), and DeepStack's buffers",
        "v1/worker/gpu_model_runner.py: profile_run; serving/capacity/memory.py",
    )
    yield _gib(
        "encoder",
        "Encoder budget",
        budget.encoder_output,
        f"{memory.profiled_tokens(model, engine):,} visual tokens x {model.vision.out_width} x "
        f"{1 + model.vision.deepstack_levels} levels x 2 B",
        "v1/core/encoder_cache_manager.py: compute_mm_encoder_budget; multimodal/encoder_budget.py",
    )
    yield _gib(
        "graphs",
        "CUDA graphs, workspaces",
        budget.graphs + budget.other,
        f"{memory.graphs(engine.max_requests)} graphs x {memory.GRAPH_BYTES / 1e6:.1f} MB x {model.text.layers}/"
        f"{memory.GRAPH_LAYERS} layers + {memory.OTHER_BYTES / GIB:.1f} GiB reserve",
        "config/vllm.py: _set_cudagraph_sizes; serving/capacity/memory.py",
    )
    yield _gib(
        "kv_cache",
        "Left for the KV cache",
        budget.available,
        "memory vLLM may use - everything above",
        "v1/worker/gpu_worker.py: determine_available_memory",
    )


def _gib(key: str, title: str, size_bytes: int, formula: str, source: str) -> Figure:
    return Figure(f"{key}_bytes", f"{title}, each GPU", size_bytes, "bytes", Basis.COMPUTED, formula, source)


def _cache(question: Question) -> Iterator[Figure]:
    model, engine = question.model, question.engine
    form, held = engine.layout(model), load.kv_capacity(question)
    yield Figure(
        "kv_token_bytes",
        "KV cache of a token, each GPU",
        form.token_bytes,
        "bytes",
        Basis.EXACT,
        f"{form.layers} layers x {form.kv_heads} KV heads x 2 x {form.head_dim} x {form.element_bytes} B",
        "v1/kv_cache_interface.py: AttentionSpec.page_size_bytes",
    )
    yield Figure(
        "kv_capacity_tokens",
        "KV cache capacity",
        held.logged_tokens,
        "tokens",
        Basis.COMPUTED,
        f"{held.blocks:,} blocks of {held.block_tokens} / {kv.blocks_for(engine.context_tokens, held.block_tokens):,} "
        f"blocks a full request x {engine.context_tokens:,}; exact for given bytes",
        "v1/core/kv_cache_utils.py: get_kv_cache_config_from_groups, get_kv_cache_capacity",
    )
    yield Figure(
        "full_context_requests",
        "Requests of the full context",
        held.full_requests,
        "requests",
        Basis.COMPUTED,
        f"{held.logged_tokens:,} / {engine.context_tokens:,}",
        "v1/core/kv_cache_utils.py: get_max_concurrency_for_kv_cache_config",
    )
    yield Figure(
        "concurrent_requests",
        "Requests at once",
        load.concurrent_requests(question),
        "requests",
        Basis.COMPUTED,
        f"min(max-num-seqs {engine.max_requests}, {held.usable_blocks:,} blocks / "
        f"{kv.blocks_for(question.request_tokens, held.block_tokens)} a request)",
        "one null block is held back: v1/core/kv_cache_utils.py: get_kv_cache_configs",
    )


def _times(question: Question) -> Iterator[Figure]:
    model, engine = question.model, question.engine
    prefill = roofline.prefill_work(model, engine, question.input_tokens)
    batch = load.concurrent_requests(question)
    peak, source = roofline.flops_per_s(engine), "serving/capacity/roofline.py; peaks: serving/gpus.toml"
    encoder = roofline.encoder_flops(model, question.image_tokens) * question.load.images_per_request
    yield Figure(
        "encoder_s",
        "Time to encode the pictures",
        roofline.encoder_s(question),
        "s",
        Basis.COMPUTED,
        f"{encoder / 1e12:.2f} TFLOP / ({roofline.half_flops_per_s(engine) / 1e12:.0f} TFLOP/s x "
        f"{roofline.COMPUTE_EFFICIENCY})",
        source,
    )
    yield Figure(
        "prefill_s",
        "Time to the first token, idle engine",
        roofline.prefill_s(question),
        "s",
        Basis.COMPUTED,
        f"encoder + the larger of {prefill.flops / 1e12:.2f} TFLOP / ({peak / 1e12:.0f} TFLOP/s x "
        f"{roofline.COMPUTE_EFFICIENCY}) and weights / bandwidth",
        source,
    )
    yield _decode_step(question, 1, "decode_alone_s", source)
    yield _decode_step(question, batch, "decode_full_s", source)


def _decode_step(question: Question, requests: int, key: str, source: str) -> Figure:
    engine = question.engine
    tokens = question.input_tokens + question.load.output_tokens / 2
    work = roofline.decode_work(question.model, engine, requests, tokens)
    return Figure(
        key,
        f"Time of a decode step, {requests} request{'s' * (requests > 1)}",
        roofline.decode_step_s(question, requests),
        "s",
        Basis.COMPUTED,
        f"the larger of {work.bytes / 1e9:.1f} GB / ({engine.gpu.bandwidth_bytes_per_s / 1e9:,.0f} GB/s x "
        f"{roofline.BANDWIDTH_EFFICIENCY}) and {work.flops / 1e12:.2f} TFLOP / "
        f"({roofline.flops_per_s(engine) / 1e12:.0f} TFLOP/s x {roofline.COMPUTE_EFFICIENCY}), + "
        f"{roofline.STEP_OVERHEAD_S * 1e3:.0f} ms",
        source,
    )


def _service(question: Question) -> Iterator[Figure]:
    plan, gpus = load.service(question), question.engine.gpus_per_engine
    rate = question.load.requests_per_second
    source = "serving/capacity/load.py"
    steps = question.load.output_tokens - 1
    yield Figure(
        "saturated_requests_per_s",
        "Throughput of an engine, saturated",
        plan.saturated_requests_per_s,
        "requests/s",
        Basis.COMPUTED,
        f"{plan.batch} / ({steps} x decode step + {plan.batch} x prefill)",
        source,
    )
    yield Figure(
        "sustainable_requests_per_s_per_gpu",
        "Sustainable throughput, each GPU",
        plan.sustainable_requests_per_s / gpus,
        "requests/s",
        Basis.COMPUTED,
        f"saturated x {load.TARGET_UTILIZATION} / {gpus} GPU",
        source,
    )
    yield Figure(
        "gpus_needed",
        "GPUs needed",
        plan.engines * gpus,
        "GPUs",
        Basis.COMPUTED,
        f"ceil({rate:g} / {plan.sustainable_requests_per_s:.2f}) engines x {gpus}",
        source,
    )
    yield Figure(
        "first_token_s",
        "Mean time to the first token, at this load",
        plan.first_token_s,
        "s",
        Basis.COMPUTED,
        f"prefill x (1 + u / (2 (1 - u))) + half a step; u = {rate / plan.engines:.2f}/s x (encoder / {gpus} GPU + "
        "decoder's prefill)",
        f"{source}; M/D/1 queue",
    )
    yield Figure(
        "token_interval_s",
        "Time between tokens, at this load",
        plan.decode_step_s,
        "s",
        Basis.COMPUTED,
        f"decode step for {plan.running:.1f} running requests / (1 - u)",
        f"{source}; Little's law",
    )
