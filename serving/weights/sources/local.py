"""A folder: a mounted share, a disk image, the result of another fetch."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from serving.weights.errors import Changed, NotThere, Unreachable
from serving.weights.manifest import Entry
from serving.weights.sources import PIECE_BYTES, Listing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serving.weights.sources import Reference


class LocalSource:
    """Implements Source for `file:///DIR`. Symlinks are followed, as the hub's own cache is made of them."""

    pinned = False
    reads_own_manifest = True

    def __init__(self, url: str, reference: Reference) -> None:
        self.url = url
        self._folder = Path(reference.path)

    def listing(self) -> Listing:
        """Every regular file of the folder, not of those below it; the time of change is its version."""
        entries = []
        try:
            for item in os.scandir(self._folder):
                if item.is_file():
                    status = item.stat()
                    entries.append(Entry(item.name, status.st_size, None, str(status.st_mtime_ns)))
        except FileNotFoundError:
            raise NotThere(f"there is no folder {self._folder}: give the one that config.json stands in") from None
        except OSError as exc:
            raise Unreachable(f"{self._folder} cannot be read ({exc.strerror}): is the share mounted?") from exc
        return Listing(tuple(entries), None)

    @contextmanager
    def read(self, entry: Entry, start: int, stop: int) -> Iterator[Iterator[bytes]]:
        """Stream [start, stop) of a file."""
        try:
            with (self._folder / entry.name).open("rb") as file:
                if str(os.fstat(file.fileno()).st_mtime_ns) != entry.version:
                    raise Changed(f"{entry.name} has changed since it was listed: run the same command again")
                file.seek(start)
                yield iter(lambda: file.read(min(PIECE_BYTES, stop - file.tell())), b"")
        except FileNotFoundError:
            raise Changed(f"{entry.name} has gone since it was listed: run the same command again") from None
        except OSError as exc:
            raise Unreachable(f"{entry.name} cannot be read ({exc.strerror})") from exc
