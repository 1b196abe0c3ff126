"""Tells glibc's allocator that large blocks come and go all the time, in many threads of which few work at once.

Left alone, glibc asks the kernel for each block above its threshold (128 KiB at first) and gives it back when it is
freed: a body of 4 MiB, which is several such blocks, then costs a thousand page faults each. What is kept instead is at
most TRIM_BYTES. And it gives each new thread an arena of its own, up to eight a core: libvips has some ten threads, and
what one of them has freed no other uses again, so that memory grows over thousands of pictures. Other C libraries
(musl, macOS) have no such knobs and are left as they are.
"""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
"""Parameter numbers of mallopt(3)."""
MMAP_BYTES = 32 * 1024 * 1024
"""The largest value that glibc takes on 64-bit machines."""
TRIM_BYTES = 64 * 1024 * 1024
"""Free memory at the heap's end that is not given back."""
ARENAS = 2
"""One for the event loop's thread, one for all others: 1,500 pictures of 0.7 megapixels left 92 MiB instead of 115."""


def keep_large_blocks() -> bool:
    """Set all three; whether that was done. Call once per process, before the first large block and other threads."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    knobs = ((M_MMAP_THRESHOLD, MMAP_BYTES), (M_TRIM_THRESHOLD, TRIM_BYTES), (M_ARENA_MAX, ARENAS))
    return all(mallopt(*knob) for knob in knobs)
