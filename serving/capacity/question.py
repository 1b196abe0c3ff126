"""What is asked: a model, an engine's settings, a load. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from serving.capacity import images, kv, weights

if TYPE_CHECKING:
    from serving.capacity.gpus import Gpu
    from serving.capacity.model import Model

IMAGE_MARK_TOKENS = 2
"""<|vision_start|> and <|vision_end|> (model_executor/models/qwen3_vl.py: get_placeholder_str)."""


class KvDtype(StrEnum):
    """--kv-cache-dtype: that of the model (16 bits), or FP8."""

    AUTO = "auto"
    FP8 = "fp8"


class Dtype(StrEnum):
    """--dtype. `auto` is the checkpoint's (bfloat16 for every Qwen3-VL), and float16 where the GPU has no bfloat16."""

    AUTO = "auto"
    BFLOAT16 = "bfloat16"
    HALF = "half"


@dataclass(frozen=True)
class Engine:
    """What an engine is started with."""

    gpu: Gpu
    checkpoint: weights.Checkpoint
    context_tokens: int
    """--max-model-len."""
    gpus_per_engine: int = 1
    """--tensor-parallel-size."""
    kv_dtype: KvDtype = KvDtype.AUTO
    dtype: Dtype = Dtype.AUTO
    max_requests: int = 256
    """--max-num-seqs; the default is vLLM's on the A100 and below 70 GiB (engine/arg_utils.py: get_batch_defaults)."""
    max_batched_tokens: int = 2048
    """--max-num-batched-tokens; likewise."""
    memory_utilization: float = 0.92
    """--gpu-memory-utilization; the default is vLLM's (config/cache.py)."""
    max_image_pixels: int = images.MAX_PIXELS
    """--mm-processor-kwargs size.longest_edge."""

    def layout(self, model: Model) -> kv.Layout:
        """Lay out the KV cache of a model on this engine's GPUs."""
        element_bytes = 1 if self.kv_dtype is KvDtype.FP8 else weights.HALF_BYTES
        return kv.layout(model.text, element_bytes, self.gpus_per_engine)


@dataclass(frozen=True)
class Load:
    """What clients send."""

    requests_per_second: float
    prompt_tokens: int
    """Text of a request, chat template included."""
    output_tokens: int
    image: images.Size
    images_per_request: int = 1


@dataclass(frozen=True)
class Question:
    """Everything a plan depends on."""

    model: Model
    engine: Engine
    load: Load

    @property
    def image_tokens(self) -> int:
        """Visual tokens of one picture, after the engine's own resizing."""
        return images.tokens(self.load.image, self.model.vision, self.engine.max_image_pixels)

    @property
    def input_tokens(self) -> int:
        """Tokens that a request is prefilled with."""
        return self.load.prompt_tokens + self.load.images_per_request * (self.image_tokens + IMAGE_MARK_TOKENS)

    @property
    def request_tokens(self) -> int:
        """Tokens that a request holds in the KV cache when it is done."""
        return self.input_tokens + self.load.output_tokens
