"""serving/profiles, serving/gpus.toml and the simulation of autoscaling -> what the templates need, as data. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadtest.autoscale.scenarios import target_in_flight
from serving import fitness, profile
from serving.capacity import gpus, settings
from serving.command import FORBIDDEN_VARIABLES

if TYPE_CHECKING:
    from serving.capacity.gpus import Gpu
    from serving.profile import Profile

PRODUCTS = {
    "t4": r"\bT4\b",
    "l4": r"\bL4\b",
    "a10": r"\bA10G?\b",
    "l40s": r"\bL40S\b",
    "a100-40": r"\bA100\b.*\b40GB\b",
    "a100-80": r"\bA100\b.*\b80GB\b",
    "h100": r"\bH100\b",
}
"""GPU of gpus.toml -> what is in the node label nvidia.com/gpu.product, which is NVML's name with dashes for blanks."""
HALF = ("half", "float16")


def facts() -> dict[str, Any]:
    """Return everything, ready for JSON."""
    return {
        "profiles": {name: _profile(profile.load(name)) for name in profile.names()},
        "gpus": {name: {"product": PRODUCTS[name], "bf16": gpu.has_bf16} for name, gpu in gpus.table().items()},
        "forbiddenVariables": sorted(FORBIDDEN_VARIABLES),
    }


def _profile(one: Profile) -> dict[str, Any]:
    gpu = settings.gpu_of(one.name)
    requests = int(str(one.flags["max-num-seqs"]))
    in_image = (one.model or "").startswith("./")
    return {
        "title": gpu.title if gpu else "no GPU",
        # How many the pod asks for.
        "gpus": fitness.gpus_needed(one) if gpu else 0,
        # What an engine runs at once.
        "requests": requests,
        # Requests in flight at which autoscaling asks for another engine (docs/autoscaling.md, the last table).
        "targetInFlight": target_in_flight(one.name) if gpu else max(1, requests // 2),
        # The hub's name; empty for a checkpoint of the operator's own, or one in the image.
        "model": "" if in_image else one.model or "",
        "modelInImage": in_image,
        "bf16": gpu is not None and one.flags.get("dtype") not in HALF,
        "fp8KvCache": _fp8_kv_cache(gpu),
    }


def _fp8_kv_cache(gpu: Gpu | None) -> str:
    """Say whether an FP8 KV cache can be had: `yes`, with FlashInfer only, or `never` (serving/fitness.py)."""
    if gpu is None or not gpu.has_fp8_kv:
        return "never"
    return "yes" if gpu.capability >= fitness.FP8_KV_CAPABILITY["TRITON_ATTN"] else "flashinfer"
