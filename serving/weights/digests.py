"""Hashing files that may be as large as the disk, a piece at a time."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from serving.weights.manifest import Checksum

_PIECE_BYTES = 2**20


def _never() -> None:
    pass


def of_file(path: Path, between: Callable[[], None] = _never) -> str:
    """SHA-256 of a file, in hexadecimal; `between` is called after each MiB and may raise."""
    hasher = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            hasher.update(piece)
            between()
    return hasher.hexdigest()


def of_prefix(fd: int, start: int, length: int) -> hashlib._Hash:
    """A SHA-256 that has taken `length` bytes from offset `start`, or fewer when the file ends before."""
    hasher = hashlib.sha256()
    position, stop = start, start + length
    while piece := os.pread(fd, min(_PIECE_BYTES, stop - position), position):
        hasher.update(piece)
        position += len(piece)
    return hasher


def agrees(path: Path, checksum: Checksum, sha256: str) -> bool:
    """Whether a file whose SHA-256 is known is what `checksum` says; reads it again for git's SHA-1 only."""
    if checksum.algorithm == "sha256":
        return sha256 == checksum.hex
    # Git's choice, not ours: it is how the hub names small files, and an extra check beside TLS.
    hasher = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            hasher.update(piece)
    return hasher.hexdigest() == checksum.hex
