"""(profile, GPU) -> the settings that an engine would be started with. Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from serving.capacity import gpus, images
from serving.capacity.gpus import GIB
from serving.capacity.question import Dtype, Engine, KvDtype
from serving.capacity.weights import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serving.capacity.gpus import Gpu
    from serving.profile import Profile

TENSOR_PARALLEL = "tensor-parallel-size"

_DTYPES = {"half": Dtype.HALF, "float16": Dtype.HALF, "bfloat16": Dtype.BFLOAT16}
_NO_QUANTIZED_KV = ("auto", "bfloat16", "float16")


class SettingsError(Exception):
    """A profile's settings cannot be computed with; the message says why."""


def gpu_of(profile_name: str) -> Gpu | None:
    """Return the GPU that a profile is for, by the longest name of the table that the profile's contains."""
    fitting = [name for name in gpus.table() if name in profile_name]
    return gpus.table()[max(fitting, key=len)] if fitting else None


def checkpoint_of(model_name: str | None) -> Checkpoint | None:
    """Guess a checkpoint's precision from its name, as published names tell it; None when they don't."""
    name = (model_name or "").lower()
    if "fp8" in name:
        return Checkpoint.FP8
    if any(word in name for word in ("w4a16", "awq", "int4", "4bit")):
        return Checkpoint.W4A16
    return Checkpoint.BF16 if name else None


def engine_of(profile: Profile, gpu: Gpu, checkpoint: Checkpoint) -> Engine:
    """Read a profile's flags; vLLM's defaults stand for what it leaves out. Raises SettingsError."""
    flags = profile.flags
    if "max-model-len" not in flags:
        raise SettingsError(f"profile {profile.name} has no max-model-len: the model's own asks for 36 GiB of KV cache")
    kv_dtype = str(flags.get("kv-cache-dtype", "auto"))
    if kv_dtype not in (*_NO_QUANTIZED_KV, "fp8", "fp8_e4m3", "fp8_e5m2"):
        raise SettingsError(f"profile {profile.name}: kv-cache-dtype {kv_dtype!r} is not computed here")
    plain = Engine(gpu, checkpoint, context_tokens=_int(flags, "max-model-len", 0))
    requests, batched_tokens = _batch_defaults(gpu)
    return dataclasses.replace(
        plain,
        gpus_per_engine=_int(flags, TENSOR_PARALLEL, 1),
        kv_dtype=KvDtype.AUTO if kv_dtype in _NO_QUANTIZED_KV else KvDtype.FP8,
        dtype=_DTYPES.get(str(flags.get("dtype")), Dtype.AUTO),
        max_requests=_int(flags, "max-num-seqs", requests),
        max_batched_tokens=_int(flags, "max-num-batched-tokens", batched_tokens),
        memory_utilization=float(str(flags.get("gpu-memory-utilization", plain.memory_utilization))),
        max_image_pixels=_max_image_pixels(flags),
    )


def _batch_defaults(gpu: Gpu) -> tuple[int, int]:
    """Return --max-num-seqs and --max-num-batched-tokens of an API server (engine/arg_utils.py: get_batch_defaults)."""
    if gpu.visible_bytes >= 160 * GIB:
        return 1024, 16384
    if gpu.visible_bytes >= 70 * GIB and "a100" not in gpu.title.lower():
        return 1024, 8192
    return 256, 2048


def _int(flags: Mapping[str, Any], name: str, default: int) -> int:
    return int(flags.get(name, default))


def _max_image_pixels(flags: Mapping[str, Any]) -> int:
    size = flags.get("mm-processor-kwargs", {}).get("size", {})
    return int(size.get("longest_edge", images.MAX_PIXELS))
