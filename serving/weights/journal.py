"""How far each part of a file has come, on disk: what a killed run leaves for the next one.

One JSON line for each piece that was written, appended with a single write after the data. A line claims a prefix of a
part and its SHA-256; the next run hashes that prefix again before it goes on behind it, so neither a torn line nor data
that a power cut took back can end up in a file. A journal of another file, another version or other parts counts for
nothing.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Mark:
    """The last claim about a part."""

    done: int
    """Bytes from the part's beginning."""
    sha256: str
    """Of these bytes, in hexadecimal."""


@dataclass(frozen=True)
class Past:
    """What earlier runs left."""

    marks: dict[int, Mark] = field(default_factory=dict)
    """Offset of a part in the file -> how far it has come."""
    whole: str | None = None
    """SHA-256 of the whole file, once it was complete and right."""


class Journal:
    """The journal of one file. Appending is safe from several threads; there must be one process."""

    def __init__(self, path: Path, identity: str) -> None:
        """`identity` tells one file, version and division into parts from another."""
        self._path, self._identity = path, identity
        self._fd: int | None = None

    def load(self) -> Past:
        """Read what is there; anything that cannot be read counts for nothing."""
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").split("\n")
        except FileNotFoundError:
            return Past()
        records = [record for line in lines if (record := _record(line)) is not None]
        if not records or records[0].get("identity") != self._identity:
            return Past()
        marks: dict[int, Mark] = {}
        whole = None
        for record in records[1:]:
            match record:
                case {"start": int(start), "done": int(done), "sha256": str(sha256)}:
                    marks[start] = Mark(done, sha256)
                case {"whole": str(sha256)}:
                    whole = sha256
        return Past(marks, whole)

    def open(self, *, fresh: bool) -> None:
        """Open for appending; `fresh` forgets what is there."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if fresh else 0)
        self._fd = os.open(self._path, flags, 0o644)
        # Ends a line that a kill may have torn, so that the next one stands alone.
        self._append({"identity": self._identity} if fresh else None)

    def mark(self, start: int, mark: Mark) -> None:
        """Claim that a part has come this far. Call it after the data were written."""
        self._append({"start": start, "done": mark.done, "sha256": mark.sha256})

    def finish(self, sha256: str) -> None:
        """Claim that the file is complete."""
        self._append({"whole": sha256})

    def close(self) -> None:
        """Close it; what was written stays."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _append(self, record: dict[str, str | int] | None) -> None:
        if self._fd is None:
            raise RuntimeError("the journal is not open")
        os.write(self._fd, (json.dumps(record) if record else "").encode() + b"\n")


def _record(line: str) -> dict[str, object] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
