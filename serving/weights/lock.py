"""One fetch at a time in a folder, however many processes of a node ask: an flock that dies with its holder."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from serving.weights.errors import Busy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

POLL_S = 0.25
REMIND_S = 30.0


@contextmanager
def exclusive(
    path: Path, say: Callable[[str], None], longest_wait_s: float | None = None, poll_s: float = POLL_S
) -> Iterator[None]:
    """Hold the lock of a folder; wait for it as long as it takes, or `longest_wait_s`, then raise Busy.

    The file stays for good: unlinking it would let two holders in. The kernel frees the lock when the holder ends, in
    whatever way.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _acquire(fd, say, longest_wait_s, poll_s)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _acquire(fd: int, say: Callable[[str], None], longest_wait_s: float | None, poll_s: float) -> None:
    began = told = time.monotonic()
    first = True
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            now = time.monotonic()
            if longest_wait_s is not None and now - began >= longest_wait_s:
                raise Busy(
                    f"process {_holder(fd)} has been fetching for the whole --wait of {longest_wait_s:g} s: "
                    "wait longer, or look at what it does"
                ) from None
            if first or now - told >= REMIND_S:
                say(f"process {_holder(fd)} is fetching into this folder; waiting ({now - began:.0f} s so far)")
                first, told = False, now
            time.sleep(poll_s)
        else:
            return


def _holder(fd: int) -> str:
    return os.pread(fd, 32, 0).decode(errors="replace").strip() or "?"
