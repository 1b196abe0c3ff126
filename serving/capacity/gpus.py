"""serving/gpus.toml -> frozen values. The table holds the sources."""

from __future__ import annotations

import functools
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

TABLE = Path(__file__).parents[1] / "gpus.toml"
GIB = 1 << 30

BF16_CAPABILITY = (8, 0)
"""platforms/cuda.py: CudaPlatform.check_if_supports_dtype refuses bfloat16 below."""
FP8_CAPABILITY = (8, 9)
"""model_executor/layers/quantization/compressed_tensors/schemes/compressed_tensors_w8a8_fp8.py: get_min_capability;
below it FP8 weights are unpacked by Marlin, which saves memory and no arithmetic."""


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU. Rates are peaks."""

    name: str
    title: str
    memory_gib: int
    """As sold."""
    visible_bytes: int
    """What CUDA reports as total."""
    capability: tuple[int, int]
    bandwidth_bytes_per_s: float
    link_bytes_per_s: float
    """To the other GPUs of a tensor-parallel group, one direction."""
    fp16_flops_per_s: float
    bf16_flops_per_s: float | None
    fp8_flops_per_s: float | None

    @property
    def has_bf16(self) -> bool:
        """Whether vLLM starts here with bfloat16."""
        return self.capability >= BF16_CAPABILITY

    @property
    def has_fp8(self) -> bool:
        """Whether FP8 weights are multiplied as FP8."""
        return self.capability >= FP8_CAPABILITY

    @property
    def has_fp8_kv(self) -> bool:
        """Whether an FP8 KV cache can be had.

        v1/attention/backends/triton_attn.py (TritonAttentionImpl.__init__) needs 8.9, but FlashInfer, which is chosen
        before it, takes 8.0 (v1/attention/backends/flashinfer.py: supports_compute_capability).
        """
        return self.capability >= BF16_CAPABILITY


@functools.cache
def table() -> Mapping[str, Gpu]:
    """Return every GPU of the table by its name, the smallest memory first."""
    entries = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    found = [
        Gpu(
            name=name,
            title=entry["title"],
            memory_gib=entry["memory_gib"],
            visible_bytes=math.floor(entry["visible_gib"] * GIB),
            capability=(entry["capability"][0], entry["capability"][1]),
            bandwidth_bytes_per_s=entry["bandwidth_bytes_per_s"],
            link_bytes_per_s=entry["link_bytes_per_s"],
            fp16_flops_per_s=entry["fp16_flops_per_s"],
            bf16_flops_per_s=entry.get("bf16_flops_per_s"),
            fp8_flops_per_s=entry.get("fp8_flops_per_s"),
        )
        for name, entry in entries.items()
    ]
    # Sorting is stable: of two with the same memory, the table's order is from the lesser to the greater.
    return MappingProxyType({gpu.name: gpu for gpu in sorted(found, key=lambda gpu: gpu.memory_gib)})
