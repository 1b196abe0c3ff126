"""Which profile is for these GPUs, and whether an engine can work on them. Pure: hardware.py looks, run_cli.py acts.

A refusal is for what vLLM would refuse or die of minutes later, once the weights are loaded; it says why, and what
comes nearest. Everything else that is odd is a note. The arithmetic of memory is serving/capacity's.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serving import profile as profiles
from serving.capacity import fits, gpus, model, settings
from serving.capacity.gpus import GIB
from serving.capacity.weights import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from serving.capacity.gpus import Gpu
    from serving.capacity.model import Model
    from serving.capacity.question import Engine
    from serving.hardware import Device
    from serving.profile import Profile

NVML_SURPLUS = 1.035
"""NVML's total over CUDA's, at most: 15.0 GiB over 14.6 on a T4, 80.0 over 79.1 on an A100."""
CUDA_SHARE = 0.97
"""CUDA's total over NVML's, at least, for a GPU that gpus.toml does not have."""
PARALLEL = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size")
FP8_KV_CAPABILITY = {
    # v1/attention/backends/fa_utils.py: flash_attn_supports_kv_cache_dtype; triton_attn.py: TritonAttentionImpl
    "FLASH_ATTN": (9, 0),
    "TRITON_ATTN": (8, 9),
}
"""Compute capability that an attention backend needs for an FP8 KV cache."""
_SIZE = re.compile(r"qwen3-vl-(2b|4b|8b|32b)(?![a-z0-9])")


class NoProfile(Exception):
    """No profile is for these GPUs; the message says why and what to do."""


@dataclass(frozen=True)
class Choice:
    """A profile and the reason for it."""

    name: str
    why: str


@dataclass(frozen=True)
class Checkpointed:
    """What is known about the checkpoint without loading it."""

    model: Model
    precision: Checkpoint


@dataclass(frozen=True)
class Findings:
    """The verdict on starting one engine here."""

    refusals: tuple[str, ...] = ()
    """Why it cannot work."""
    nearest: tuple[str, ...] = ()
    """What does, the nearest first."""
    notes: tuple[str, ...] = ()
    """What the operator should know; none of it stops the engine."""


def gpu_of(device: Device) -> Gpu | None:
    """Describe a GPU by the table's entry for it, or by the nearest one with its own memory; None below all of them."""
    near = nearest(device)
    if near is None or is_known(device, near):
        return near
    visible_bytes = int(device.total_bytes * CUDA_SHARE)
    return dataclasses.replace(near, title=device.name, visible_bytes=visible_bytes, capability=device.capability)


def nearest(device: Device) -> Gpu | None:
    """Return the largest GPU of the table that has the same arithmetic (bf16, FP8) and no more memory."""
    table = gpus.table().values()
    if device.capability < min(gpu.capability for gpu in table):
        return None
    arithmetic = (device.capability >= gpus.BF16_CAPABILITY, device.capability >= gpus.FP8_CAPABILITY)
    alike = [gpu for gpu in table if (gpu.has_bf16, gpu.has_fp8) == arithmetic and _holds(device, gpu)]
    return max(alike, key=lambda gpu: gpu.visible_bytes, default=None)


def _holds(device: Device, gpu: Gpu) -> bool:
    return device.total_bytes >= gpu.visible_bytes


def is_known(device: Device, gpu: Gpu) -> bool:
    """Whether this is, to vLLM, the table's GPU: the same compute capability and the same memory."""
    same_memory = gpu.visible_bytes <= device.total_bytes <= gpu.visible_bytes * NVML_SURPLUS
    return same_memory and device.capability == gpu.capability


def choose(devices: Sequence[Device]) -> Choice:
    """Choose the profile for all of these GPUs together, or for as many as one has. Raises NoProfile."""
    first = devices[0]
    if len({(device.name, device.capability) for device in devices}) > 1:
        raise NoProfile(
            f"the GPUs differ ({', '.join(_described(device) for device in devices)}): "
            "choose alike ones with CUDA_VISIBLE_DEVICES, or give --profile"
        )
    gpu = nearest(first)
    if gpu is None:
        raise NoProfile(
            f"no profile is for {_described(first)}; the smallest is for {_smallest().title}. "
            "`python -m serving plan` tells what would fit; --profile with --no-check starts one all the same"
        )
    counts = {gpus_needed(profiles.load(name)): name for name in profiles.names() if settings.gpu_of(name) == gpu}
    used = max(count for count in counts if count <= len(devices))
    return Choice(counts[used], f"{_reason(first, gpu)}{_unused(used, len(devices))}")


def _reason(device: Device, gpu: Gpu) -> str:
    if is_known(device, gpu):
        return f"for {_described(device)}"
    return f"the nearest for {_described(device)}: the same arithmetic as {gpu.title}, and no less memory"


def _unused(used: int, present: int) -> str:
    each = "" if used == 1 else f" on {used} GPUs"
    if used == present:
        return each
    return f"{each}; {present - used} of {present} GPUs stay idle: start engines on them with CUDA_VISIBLE_DEVICES"


def gpus_needed(profile: Profile) -> int:
    """Return how many GPUs an engine takes."""
    product = 1
    for flag in PARALLEL:
        product *= int(str(profile.flags.get(flag, 1)))
    return product


def checkpoint_named(name: str) -> Checkpointed | None:
    """Tell size and precision from a published name; None when it does not say."""
    size = _SIZE.search(name.lower())
    precision = settings.checkpoint_of(name)
    return Checkpointed(model.load(size.group()), precision) if size and precision else None


def checkpoint_read(read: Model) -> Checkpointed | None:
    """Tell size and precision from a config.json; None for a quantization that is not computed here."""
    try:
        return Checkpointed(read, Checkpoint(read.quantization or Checkpoint.BF16))
    except ValueError:
        return None


def judge(profile: Profile, checkpoint: Checkpointed | None, devices: Sequence[Device]) -> Findings:
    """Judge an engine: `profile` with the operator's own words in it (overrides.effective), on the GPUs here."""
    needed = gpus_needed(profile)
    if needed > len(devices):
        return Findings((_too_few(profile, needed, len(devices)),), tuple(_fewer(devices)))
    gpu = gpu_of(devices[0])
    if gpu is None:
        return Findings((f"{_described(devices[0])} is below every GPU that there is a profile for",))
    backend = _backend_refusal(profile, gpu)
    refusals, near, notes = list(backend[:1]), list(backend[1:]), list(_notes(profile, gpu, devices))
    if checkpoint is None:
        notes.append("the checkpoint's size is not known from its name or config.json: its memory is not judged")
        return Findings(tuple(refusals), tuple(near), tuple(notes))
    try:
        engine = settings.engine_of(profile, gpu, checkpoint.precision)
    except settings.SettingsError as exc:
        return Findings(tuple(refusals), tuple(near), (*notes, f"memory is not judged: {exc}"))
    verdict = fits.can_start(checkpoint.model, engine)
    refusals += verdict.reasons
    near += [fits.changes(engine, option.question.engine, fits.RUN_OPTIONS) for option in verdict.alternatives]
    if verdict.fits:
        if fits.spare_bytes(checkpoint.model, engine) < fits.UNCERTAIN_BYTES:
            notes.append("it fits by less than the estimate may be wrong (0.5 GiB): vLLM may yet refuse")
        for device in devices[:needed]:
            refusals += _taken(device, engine)
    return Findings(tuple(refusals), tuple(near), tuple(notes))


def _too_few(profile: Profile, needed: int, present: int) -> str:
    return f"profile {profile.name} with these flags takes {needed} GPUs for one engine, and {present} can be seen"


def _fewer(devices: Sequence[Device]) -> Iterator[str]:
    try:
        yield f"--profile {choose(devices).name}"
    except NoProfile as exc:
        yield str(exc)


def _backend_refusal(profile: Profile, gpu: Gpu) -> tuple[str, ...]:
    """Return the refusal and what comes nearest, or nothing."""
    backend = str(profile.flags.get("attention-backend", "")).upper()
    needs = FP8_KV_CAPABILITY.get(backend)
    if not needs or not _has_fp8_kv(profile) or gpu.capability >= needs:
        return ()
    why = f"an FP8 KV cache with {backend} needs compute capability {_version(needs)}, and {gpu.title} has "
    near = ["--attention-backend FLASHINFER"] if gpu.has_fp8_kv else []
    return (f"{why}{_version(gpu.capability)}", *near, "--kv-cache-dtype auto")


def _notes(profile: Profile, gpu: Gpu, devices: Sequence[Device]) -> Iterator[str]:
    meant = settings.gpu_of(profile.name)
    near = nearest(devices[0])
    if meant and near and meant != near:
        yield f"profile {profile.name} is not for {_described(devices[0])}: --profile {near.name} is"
    if not gpu.has_bf16 and profile.flags.get("dtype", "auto") == "auto":
        yield f"{gpu.title} has no bfloat16: vLLM falls back to float16, which the model was not trained in"
    if _has_fp8_kv(profile) and gpu.has_bf16 and not gpu.has_fp8:
        yield f"{gpu.title} has no FP8 arithmetic: an FP8 KV cache goes through FlashInfer there, and saves memory only"


def _taken(device: Device, engine: Engine) -> Iterator[str]:
    """Refuse a GPU that something else fills: v1/worker/utils.py: request_memory raises over it."""
    requested = int(engine.gpu.visible_bytes * engine.memory_utilization)
    if device.free_bytes < requested:
        yield (
            f"GPU {device.index} has {device.free_bytes / GIB:.1f} GiB free and vLLM asks for {requested / GIB:.1f}: "
            "another process holds the rest (nvidia-smi shows it); stop it, or choose another GPU with "
            "CUDA_VISIBLE_DEVICES, or give a smaller --gpu-memory-utilization"
        )


def _has_fp8_kv(profile: Profile) -> bool:
    return str(profile.flags.get("kv-cache-dtype", "auto")).startswith("fp8")


def _smallest() -> Gpu:
    return next(iter(gpus.table().values()))


def _described(device: Device) -> str:
    return f"{device.name} ({device.total_bytes / GIB:.0f} GiB, compute capability {_version(device.capability)})"


def _version(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
