"""What stands where on the disk, and the few steps that change it; each leaves a state that the next run understands.

- `DIR/current` leads to `revisions/<digest>`: what consumers open. It is replaced in one rename.
- `DIR/revisions/<digest>/` is a whole, checked checkpoint. It appears by one rename, when all of it is on the disk.
  In it, `manifest.json` has its checksums, `.fetch.json` where it came from, with sizes and times of change.
- `DIR/revisions/<digest>.partial/` is being fetched, or was left by a killed run.
- `DIR/revisions/<digest>.gone/` is being deleted.
- `DIR/.lock` is held by the one that fetches.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from serving.weights import digests, manifest
from serving.weights.names import MANIFEST
from serving.weights.transfer import FILE_MODE, JOURNALS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

RECORD = ".fetch.json"
PARTIAL, GONE = ".partial", ".gone"
FOLDER_MODE = 0o755


@dataclass(frozen=True)
class Stamp:
    """How a file looked when it was checked."""

    size: int
    """Bytes."""
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class Record:
    """What is known about a revision."""

    source: str
    revision: str | None
    """Commit, where the source has such a thing."""
    request: str
    """What was asked for: the same text means the same answer, if the source is pinned."""
    unvouched: tuple[str, ...]
    """Files whose checksum the first fetch computed, as nobody had promised one."""
    files: Mapping[str, Stamp]


class Store:
    """The folder of one checkpoint. Everything that changes it wants the lock to be held."""

    def __init__(self, root: Path) -> None:
        self.root, self._revisions = root, root / "revisions"
        self.current_link, self.lock_path = root / "current", root / ".lock"

    def prepare(self) -> None:
        """Make the folders; needs no lock."""
        for folder in (self.root, self._revisions):
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(FOLDER_MODE)

    def final(self, digest: str) -> Path:
        """Where a whole revision stands."""
        return self._revisions / digest

    def partial(self, digest: str) -> Path:
        """Where a revision is put together."""
        return self._revisions / f"{digest}{PARTIAL}"

    def current(self) -> str | None:
        """Digest that `current` points to, whether or not it is there."""
        try:
            return os.path.basename(os.readlink(self.current_link))  # noqa: PTH115, PTH119  # the text, not what it leads to
        except OSError:
            return None

    def record(self, folder: Path) -> Record | None:
        """What is known about a revision; None when there is no such record, or it cannot be read."""
        try:
            table = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            files = {name: Stamp(**stamp) for name, stamp in table.pop("files").items()}
            return Record(**{**table, "unvouched": tuple(table["unvouched"]), "files": files})
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def intact(self, digest: str, *, rehash: bool) -> bool:
        """Whether a revision is there and as it was checked: by size and time of change, or by hashing it again.

        A file that looks touched is hashed in any case, and if it is unchanged, its new time is written down.
        """
        folder = self.final(digest)
        record = self.record(folder)
        if record is None:
            return False
        touched = {}
        for name, stamp in record.files.items():
            try:
                status = (folder / name).lstat()
            except FileNotFoundError:
                return False
            if status.st_size != stamp.size:
                return False
            if rehash or status.st_mtime_ns != stamp.mtime_ns:
                if digests.of_file(folder / name) != stamp.sha256:
                    return False
                touched[name] = Stamp(stamp.size, status.st_mtime_ns, stamp.sha256)
        if any(record.files[name] != stamp for name, stamp in touched.items()):
            self._write(folder, {**asdict(record), "files": {**record.files, **touched}})
        return True

    def seal(self, digest: str, record: Record) -> None:
        """Make a complete partial revision final: records, then everything on the disk, then one rename."""
        folder = self.partial(digest)
        shutil.rmtree(folder / JOURNALS, ignore_errors=True)
        checksums = {name: (stamp.size, stamp.sha256) for name, stamp in record.files.items()}
        _write_durably(folder / MANIFEST, manifest.render(checksums))
        self._write(folder, asdict(record))
        folder.chmod(FOLDER_MODE)
        _sync(folder)
        folder.rename(self.final(digest))
        _sync(self._revisions)

    def reopen(self, digest: str) -> None:
        """Take a damaged revision out of sight: from now on it is a partial one."""
        self._delete(self.partial(digest))
        self.final(digest).rename(self.partial(digest))
        _sync(self._revisions)

    def activate(self, digest: str) -> None:
        """Point `current` to a whole revision, in one rename."""
        os.utime(self.final(digest))  # the time that prune goes by
        if self.current() == digest:
            return
        fresh = self.root / ".current.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(f"revisions/{digest}")
        fresh.replace(self.current_link)
        _sync(self.root)

    def holdings(self, folders: Iterable[Path]) -> dict[str, Path]:
        """SHA-256 -> a file that is said to have it, in these revisions; whoever takes one hashes it first."""
        records = [(folder, record) for folder in folders if (record := self.record(folder)) is not None]
        return {stamp.sha256: folder / name for folder, record in records for name, stamp in record.files.items()}

    def whole(self) -> list[Path]:
        """Whole revisions, in no order."""
        return [path for path in self._revisions.iterdir() if not path.name.endswith((PARTIAL, GONE))]

    def stale(self, digest: str) -> list[Path]:
        """What killed runs left of other revisions, and what was being deleted."""
        return [
            path
            for path in sorted(self._revisions.iterdir())
            if path.name.endswith(GONE) or (path.name.endswith(PARTIAL) and path != self.partial(digest))
        ]

    def prune(self, keep: int) -> list[str]:
        """Delete all but the `keep` revisions activated last (at least one), never `current`; returns the deleted."""
        current = self.current()
        whole = sorted(self.whole(), key=lambda path: (path.name == current, path.stat().st_mtime_ns), reverse=True)
        old = [path for path in whole[max(keep, 1) :] if path.name != current]
        for path in old:
            self._delete(path)
        return [path.name for path in old]

    def clear(self, paths: list[Path]) -> None:
        """Delete what `stale` found."""
        for path in paths:
            self._delete(path)

    def free_bytes(self) -> int:
        """Room on the disk for an ordinary user."""
        status = os.statvfs(self.root)
        return status.f_bavail * status.f_frsize

    def _write(self, folder: Path, record: dict[str, object]) -> None:
        files = {name: asdict(stamp) if isinstance(stamp, Stamp) else stamp for name, stamp in _files(record)}
        _write_durably(folder / RECORD, json.dumps({**record, "files": files}, indent=2) + "\n")

    def _delete(self, path: Path) -> None:
        """Rename first: a folder that is half deleted must not look whole."""
        if not path.exists():
            return
        gone = path if path.name.endswith(GONE) else path.with_name(f"{path.name}{GONE}")
        if gone != path:
            shutil.rmtree(gone, ignore_errors=True)
            path.rename(gone)
        shutil.rmtree(gone)


def _files(record: dict[str, object]) -> list[tuple[str, object]]:
    files = record["files"]
    return list(files.items()) if isinstance(files, dict) else []


def _write_durably(path: Path, text: str) -> None:
    """Replace a file in one rename, on the disk when this returns."""
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fchmod(file.fileno(), FILE_MODE)
        os.fsync(file.fileno())
    fresh.replace(path)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
