"""The rule of refusal: why a question has no answer, and the nearest one that has. Pure; `serving run` can ask it too.

The memory that vLLM leaves for the KV cache is an estimate (memory.py), so what is proposed must fit with room to
spare, and what fits without it is called tight.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from serving.capacity import gpus, kv, memory
from serving.capacity.gpus import GIB
from serving.capacity.images import Size
from serving.capacity.question import Dtype, KvDtype, Load, Question
from serving.capacity.weights import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from serving.capacity.model import Model
    from serving.capacity.question import Engine

CONTEXT_STEP_TOKENS = 1024
"""A proposed context length is a multiple of this."""
SMALLEST_CONTEXT_TOKENS = 2048
"""Less is not proposed: a picture of 1,024 tokens and a conversation would not go in."""
UNCERTAIN_BYTES = GIB // 2
"""The estimate of memory.py may be wrong by this much; what is proposed has it to spare."""
GROUPS = (1, 2, 4, 8)
"""GPUs of one engine."""


@dataclass(frozen=True)
class Alternative:
    """A question that does fit, and how it differs."""

    changes: str
    """As options of the command line: `--checkpoint w4a16`."""
    question: Question


@dataclass(frozen=True)
class Verdict:
    """Whether a question can be answered."""

    reasons: tuple[str, ...]
    """Empty when it fits; otherwise every reason, in words."""
    alternatives: tuple[Alternative, ...] = ()
    """What does fit, the nearest first; only when it does not."""

    @property
    def fits(self) -> bool:
        """Whether it works."""
        return not self.reasons


def fits(question: Question) -> Verdict:
    """Judge a question; look for what comes nearest when it cannot work."""
    reasons = tuple(_reasons(question))
    return Verdict(reasons, tuple(_alternatives(question)) if reasons else ())


def can_start(model: Model, engine: Engine) -> Verdict:
    """Judge an engine whatever it will be sent: what `serving run` asks before it starts vLLM."""
    least = Load(requests_per_second=1, prompt_tokens=1, output_tokens=1, image=Size(512, 512), images_per_request=0)
    return fits(Question(model, engine, least))


def _reasons(question: Question) -> Iterator[str]:
    model, engine = question.model, question.engine
    gpu, text = engine.gpu, model.text
    if not gpu.has_bf16 and engine.dtype is Dtype.BFLOAT16:
        yield (
            f"{gpu.title} has compute capability {_version(gpu.capability)} and bfloat16 needs "
            f"{_version(gpus.BF16_CAPABILITY)}: vLLM refuses to start (platforms/cuda.py: check_if_supports_dtype)"
        )
    if engine.kv_dtype is KvDtype.FP8 and not gpu.has_fp8_kv:
        yield (
            f"an FP8 KV cache needs compute capability {_version(gpus.BF16_CAPABILITY)} (FlashInfer), and "
            f"{gpu.title} has {_version(gpu.capability)} (v1/attention/backends/triton_attn.py)"
        )
    if engine.gpus_per_engine not in GROUPS or text.heads % engine.gpus_per_engine:
        yield f"{engine.gpus_per_engine} GPUs cannot share {text.heads} attention heads: use 1, 2, 4 or 8"
        return
    if engine.context_tokens > text.max_context_tokens:
        yield f"{model.name} takes at most {text.max_context_tokens:,} tokens, not {engine.context_tokens:,}"
    if question.request_tokens > engine.context_tokens:
        yield (
            f"a request of {question.input_tokens:,} tokens and an answer of {question.load.output_tokens:,} do not go "
            f"into a context of {engine.context_tokens:,}"
        )
    yield from _memory_reasons(model, engine)


def spare_bytes(model: Model, engine: Engine) -> int:
    """Return what is left of the KV cache beside one request of the full context; negative when that does not fit.

    vLLM wants the null block besides (v1/core/kv_cache_utils.py: get_kv_cache_configs).
    """
    form = engine.layout(model)
    needed = (kv.blocks_for(engine.context_tokens, form.block_tokens) + 1) * form.block_bytes
    return memory.budget(model, engine).available - needed


def is_tight(question: Question) -> bool:
    """Whether it fits by less than the estimate may be wrong."""
    return spare_bytes(question.model, question.engine) < UNCERTAIN_BYTES


def _memory_reasons(model: Model, engine: Engine) -> Iterator[str]:
    spare = spare_bytes(model, engine)
    if spare >= 0:
        return
    budget = memory.budget(model, engine)
    where = f"{engine.gpu.title} gives vLLM {_gib(budget.requested)} GiB"
    if budget.weights > budget.requested:
        yield f"{where}, and the weights alone are {_gib(budget.weights)} GiB ({engine.checkpoint})"
    else:
        yield (
            f"{where}; weights ({_gib(budget.weights)} GiB) and what a full step needs "
            f"({_gib(budget.used - budget.weights)} GiB) leave {_gib(max(0, budget.available))} GiB for the KV cache, "
            f"and one request of {engine.context_tokens:,} tokens takes {_gib(budget.available - spare)} GiB"
        )


def largest_context_tokens(question: Question) -> int:
    """Return the longest context that fits and is not tight, rounded down; 0 when none of use does."""
    engine = question.engine
    available = memory.budget(question.model, engine).available - UNCERTAIN_BYTES
    held = kv.capacity(available, engine.layout(question.model), engine.context_tokens)
    most = min(held.usable_tokens, question.model.text.max_context_tokens)
    rounded = most // CONTEXT_STEP_TOKENS * CONTEXT_STEP_TOKENS
    return rounded if rounded >= max(SMALLEST_CONTEXT_TOKENS, question.request_tokens) else 0


def _alternatives(question: Question) -> Iterator[Alternative]:
    """Propose what works, one of each kind, in the order of how little it changes for those who ask."""
    seen = {question.engine}
    for kind in (_same, _other_precision, _other_context, _more_gpus, _larger_gpu):
        for engine in kind(question):
            changed = dataclasses.replace(question, engine=_with_a_dtype(engine))
            if changed.engine not in seen and not any(_reasons(changed)) and not is_tight(changed):
                seen.add(changed.engine)
                yield Alternative(changes(question.engine, changed.engine), changed)
                break


def _with_a_dtype(engine: Engine) -> Engine:
    if engine.gpu.has_bf16 or engine.dtype is not Dtype.BFLOAT16:
        return engine  # `auto` falls back by itself (config/model.py: _resolve_auto_dtype)
    return dataclasses.replace(engine, dtype=Dtype.HALF)


PLAN_OPTIONS = {
    "gpu": "--gpu",
    "gpus_per_engine": "--gpus-per-engine",
    "dtype": "--dtype",
    "checkpoint": "--checkpoint",
    "kv_dtype": "--kv-dtype",
    "context_tokens": "--context",
}
RUN_OPTIONS = {
    "gpu": "a machine with",
    "gpus_per_engine": "--tensor-parallel-size",
    "dtype": "--dtype",
    "checkpoint": "a --model in",
    "kv_dtype": "--kv-cache-dtype",
    "context_tokens": "--max-model-len",
}


def changes(before: Engine, after: Engine, options: Mapping[str, str] = MappingProxyType(PLAN_OPTIONS)) -> str:
    """Write the difference of two engines as options: those of `serving plan`, or RUN_OPTIONS for vLLM's own."""
    old, new = ({name: getattr(engine, name) for name in options} for engine in (before, after))
    old["gpu"], new["gpu"] = before.gpu.name, after.gpu.name
    return " ".join(f"{option} {new[name]}" for name, option in options.items() if new[name] != old[name])


def _same(question: Question) -> Iterator[Engine]:
    """Change nothing but --dtype, where that is what is wrong."""
    yield question.engine


def _other_precision(question: Question) -> Iterator[Engine]:
    """Quantize what is not quantized yet: the cache first, which changes no weight."""
    engine = question.engine
    order = list(Checkpoint)
    for checkpoint in order[order.index(engine.checkpoint) :]:
        for cache in (engine.kv_dtype, KvDtype.FP8):
            yield dataclasses.replace(engine, checkpoint=checkpoint, kv_dtype=cache)


def _other_context(question: Question) -> Iterator[Engine]:
    """Shorten the context; or lengthen it, when it is the request that is too long."""
    needed = -(-question.request_tokens // CONTEXT_STEP_TOKENS) * CONTEXT_STEP_TOKENS
    wanted = max(question.engine.context_tokens, needed)
    if tokens := largest_context_tokens(question):
        yield dataclasses.replace(question.engine, context_tokens=min(tokens, wanted))


def _more_gpus(question: Question) -> Iterator[Engine]:
    for count in GROUPS:
        if count > question.engine.gpus_per_engine:
            yield dataclasses.replace(question.engine, gpus_per_engine=count)


def _larger_gpu(question: Question) -> Iterator[Engine]:
    for gpu in gpus.table().values():
        if gpu.memory_gib > question.engine.gpu.memory_gib:
            yield dataclasses.replace(question.engine, gpu=gpu)


def _version(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.2f}"
