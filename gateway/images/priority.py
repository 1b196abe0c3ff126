"""Decoders work at a lower priority than the event loop, which has a hundred times less to do and must not wait."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_TASKS: Final = Path("/proc/self/task")
_DECODER: Final = b"libvips"
NICENESS: Final = 10


def let_decoders_yield() -> None:
    """Have the kernel give the event loop a core first, and libvips' own threads what is left. Linux only.

    Theirs alone, which decode. A thread that runs Python, as the pool's do, holds the interpreter while it waits for a
    core, and so would hold up the loop. To be called again and again: libvips starts and ends its threads as it likes.
    """
    if not _TASKS.is_dir():
        return
    for task in _TASKS.iterdir():
        with suppress(OSError):  # It has ended.
            if (task / "comm").read_bytes().startswith(_DECODER):
                os.setpriority(os.PRIO_PROCESS, int(task.name), NICENESS)
