"""Tells glibc's allocator that large blocks come and go all the time.

Left alone, glibc asks the kernel for each block above its threshold (128 KiB at first) and gives it back when it is
freed: a body of 4 MiB, which is several such blocks, then costs a thousand page faults each. What is kept instead is at
most TRIM_BYTES. Other C libraries (musl, macOS) have no such knobs and are left as they are.
"""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
"""Parameter numbers of mallopt(3)."""
MMAP_BYTES = 32 * 1024 * 1024
"""The largest value that glibc takes on 64-bit machines."""
TRIM_BYTES = 64 * 1024 * 1024
"""Free memory at the heap's end that is not given back."""


def keep_large_blocks() -> bool:
    """Set both; whether that was done. Call once per process, before the first large block."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)) and bool(mallopt(M_TRIM_THRESHOLD, TRIM_BYTES))
