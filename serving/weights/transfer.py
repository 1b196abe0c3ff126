"""Bytes from a source into a folder: parts in parallel, each continued where it was, each file checked when whole.

Works in a folder that nobody reads yet (`*.partial`), and never touches another. Being killed costs at most the piece
that each connection was reading.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from serving.weights import contents, digests
from serving.weights.errors import NoRoom, Refused, Stopped, Unreachable
from serving.weights.journal import Journal, Mark, Past
from serving.weights.manifest import Checksum

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from concurrent.futures import Future
    from pathlib import Path

    from serving.weights.manifest import Entry
    from serving.weights.progress import Progress
    from serving.weights.sources import Source

MIB = 2**20
JOURNALS = ".progress"
FILE_MODE = 0o644
"""Readable by the engine's user, whatever the umask of the one who fetches."""


@dataclass(frozen=True)
class Settings:
    """How to transfer."""

    parallel: int = 8
    """Connections at once."""
    part_bytes: int = 64 * MIB
    """Files larger than this are fetched in parts of this size."""
    tries: int = 6
    """Attempts without a single new byte before a part is given up."""
    backoff_s: float = 0.5
    """Pause after the first failure; doubled after each further one, at most 30 s, drawn between half and all of it."""


@dataclass(frozen=True)
class Part:
    """A range of a file."""

    start: int
    stop: int


def parts(size: int, part_bytes: int) -> tuple[Part, ...]:
    """Divide a file; an empty file has no part."""
    return tuple(Part(start, min(start + part_bytes, size)) for start in range(0, size, part_bytes))


def journal_of(folder: Path, entry: Entry, settings: Settings) -> Journal:
    """The journal of a file in a partial revision."""
    return Journal(folder / JOURNALS / f"{entry.name}.jsonl", f"{entry.identity}\t{settings.part_bytes}")


def past_of(folder: Path, entry: Entry, settings: Settings) -> Past:
    """What earlier runs left of a file."""
    return journal_of(folder, entry, settings).load() if (folder / entry.name).is_file() else Past()


def adopt(folder: Path, entry: Entry, sha256: str, held: Path, settings: Settings) -> None:
    """Take a file of another revision by a hard link, without a copy, as if an earlier run had fetched it.

    Nothing is believed: the transfer hashes it before it counts.
    """
    (folder / JOURNALS).mkdir(parents=True, exist_ok=True)
    if held != folder / entry.name:
        (folder / entry.name).unlink(missing_ok=True)
        (folder / entry.name).hardlink_to(held)
    journal = journal_of(folder, entry, settings)
    journal.open(fresh=True)
    journal.finish(sha256)
    journal.close()


def bytes_present(folder: Path, entries: Iterable[Entry], settings: Settings) -> int:
    """Bytes that earlier runs claim to have written; what the disk need not have room for any more."""
    total = 0
    for entry in entries:
        past = past_of(folder, entry, settings)
        total += entry.size if past.whole else sum(mark.done for mark in past.marks.values())
    return total


class _Job:
    """One file on its way: its past, its journal, how many parts are missing."""

    def __init__(self, entry: Entry, folder: Path, settings: Settings) -> None:
        self.entry, self.path = entry, folder / entry.name
        self.past = past_of(folder, entry, settings)
        self.parts = parts(entry.size, settings.part_bytes)
        self.journal = journal_of(folder, entry, settings)
        self.fd = -1
        self._missing, self._lock = len(self.parts), threading.Lock()

    def open(self) -> None:
        """Open file and journal, once: files are many, and descriptors few."""
        with self._lock:
            if self.fd < 0:
                self.journal.open(fresh=not self.past.marks)
                self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT, FILE_MODE)
                os.ftruncate(self.fd, self.entry.size)

    def part_done(self) -> bool:
        """Count one part down; true for the caller that finished the last one."""
        with self._lock:
            self._missing -= 1
            return self._missing == 0

    def forget(self) -> None:
        """Throw the file away: it begins anew, as a new file, for this one may be linked from another revision."""
        self.close()
        self.path.unlink(missing_ok=True)
        self.past = Past()

    def close(self) -> None:
        """Close what is open."""
        self.journal.close()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Transfer:
    """One run over one revision. `stop` may be set from anywhere: all ends at the next piece. It is set in the end."""

    def __init__(
        self, source: Source, folder: Path, settings: Settings, progress: Progress, stop: threading.Event,
        known: Mapping[str, str],
    ) -> None:  # fmt: skip
        """`known` holds the SHA-256 that an earlier fetch computed of files that nobody vouches for."""
        self._source, self._folder, self._settings, self._progress = source, folder, settings, progress
        self._stop, self._known = stop, known
        self._hashes: dict[str, str] = {}

    def run(self, entries: Iterable[Entry]) -> dict[str, str]:
        """Fetch every file; name -> SHA-256. Raises the first FetchError of any part."""
        (self._folder / JOURNALS).mkdir(parents=True, exist_ok=True)
        # Small files first: what is wrong with a configuration shows before the weights are fetched.
        jobs = [_Job(entry, self._folder, self._settings) for entry in sorted(entries, key=lambda entry: entry.size)]
        pool = ThreadPoolExecutor(self._settings.parallel, thread_name_prefix="fetch")
        try:
            _await([pool.submit(self._guarded, work) for job in jobs for work in self._works(job)])
        finally:
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            for job in jobs:
                job.close()
        return self._hashes

    def _guarded(self, work: Callable[[], None]) -> None:
        """Stop everybody at the first failure, before this worker takes up the next part."""
        try:
            self._check_stop()
            work()
        except BaseException:
            self._stop.set()
            raise

    def _works(self, job: _Job) -> list[Callable[[], None]]:
        if job.past.whole is not None:
            return [partial(self._recheck, job)]
        if not job.parts:
            return [partial(self._finish, job)]
        return [partial(self._fetch, job, part) for part in job.parts]

    def _recheck(self, job: _Job) -> None:
        """Believe that a file is whole already only if it hashes to the same; else fetch it."""
        if digests.of_file(job.path, self._check_stop) == job.past.whole:
            self._progress.advance(job.entry.size)
            self._finish(job, job.past.whole)
            return
        job.forget()
        for work in self._works(job):
            work()

    def _fetch(self, job: _Job, part: Part) -> None:
        """Bring one part to its end, from where it was, however often the source breaks off."""
        job.open()
        position, hasher = _resume(job, part)
        self._progress.advance(position - part.start)
        failures = 0
        while position < part.stop:
            before = position
            try:
                for count in self._stream(job, part, position, hasher):
                    position += count
            except Unreachable:
                failures = 1 if position > before else failures + 1
                if failures >= self._settings.tries or self._stop.wait(_pause_s(failures, self._settings.backoff_s)):
                    raise
        if job.part_done():
            self._finish(job)

    def _stream(self, job: _Job, part: Part, position: int, hasher: hashlib._Hash) -> Iterator[int]:
        """Write the rest of a part; yields how many bytes have safely been claimed."""
        with self._source.read(job.entry, position, part.stop) as stream:
            for piece in stream:
                self._check_stop()
                _write(job.fd, piece, position)
                position += len(piece)
                hasher.update(piece)
                job.journal.mark(part.start, Mark(position - part.start, hasher.hexdigest()))
                self._progress.advance(len(piece))
                yield len(piece)
        if position < part.stop:
            raise Unreachable(f"{job.entry.name}: the source broke off at byte {position:,} again and again")

    def _finish(self, job: _Job, sha256: str | None = None) -> None:
        """Check a whole file, make it durable, and say so in the journal."""
        entry = job.entry
        if sha256 is None:
            job.open()
            sha256 = digests.of_file(job.path, self._check_stop)
        promised = entry.checksum or (
            Checksum("sha256", self._known[entry.name]) if entry.name in self._known else None
        )
        if promised is not None and not digests.agrees(job.path, promised, sha256):
            job.forget()
            raise Refused(
                f"{entry.name} does not match its checksum ({promised.algorithm} {promised.hex}) and was thrown away: "
                "run the same command again; if it fails again, the source or its manifest is wrong"
            )
        contents.check(job.path, entry.name)
        if job.past.whole is None:
            os.fchmod(job.fd, FILE_MODE)
            os.fsync(job.fd)
            job.journal.finish(sha256)
        job.close()
        self._hashes[entry.name] = sha256

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Stopped("stopped; what was fetched stays: run the same command to go on")


def _await(futures: list[Future[None]]) -> None:
    """Wait until all are done or one has failed; raise what failed, rather than what it stopped."""
    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    failures = [exc for future in done if (exc := future.exception()) is not None]
    for exc in sorted(failures, key=lambda exc: isinstance(exc, Stopped)):
        raise exc


def _resume(job: _Job, part: Part) -> tuple[int, hashlib._Hash]:
    """Where to go on, and the hash of what is there: behind the last claim, if the bytes are still as claimed."""
    if mark := job.past.marks.get(part.start):
        hasher = digests.of_prefix(job.fd, part.start, mark.done)
        if mark.done <= part.stop - part.start and hasher.hexdigest() == mark.sha256:
            return part.start + mark.done, hasher
    return part.start, hashlib.sha256()


def _pause_s(failures: int, backoff_s: float) -> float:
    """Exponential backoff with jitter, so that many nodes do not come back at once."""
    return min(30.0, backoff_s * 2.0 ** (failures - 1)) * random.uniform(0.5, 1)  # noqa: S311  # no secret


def _write(fd: int, piece: bytes, position: int) -> None:
    """Write all of a piece. Raises NoRoom here, as an adapter would take an OSError for its own."""
    view = memoryview(piece)
    try:
        while view:
            view = view[os.pwrite(fd, view, position + len(piece) - len(view)) :]
    except OSError as exc:
        raise NoRoom(f"writing failed ({exc.strerror}): free space on the disk, and run the same command") from exc
