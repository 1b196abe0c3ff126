"""The order of a fetch: lock, list, plan, room, transfer, check, seal, switch, prune. Readable in one screen."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serving.weights import contents, lock, manifest, progress, transfer
from serving.weights.errors import Misconfigured, NoRoom, Unreachable
from serving.weights.names import MANIFEST, SUMS
from serving.weights.store import Record, Stamp, Store

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from serving.weights.manifest import Entry, Plan, Promise
    from serving.weights.sources import Listing, Source

SPARE_BYTES = 64 * 2**20
"""Room that is left on the disk beside the weights: records, directories, logs of others."""
MAX_MANIFEST_BYTES = 16 * 2**20
LINKED_FROM_BYTES = 2**20
"""Smaller files are fetched anew rather than linked between revisions: a config.json is what people edit in place."""


@dataclass(frozen=True)
class Request:
    """What the operator asked for."""

    to: Path
    keep: int = 2
    """Whole revisions that stay, `current` among them."""
    verify: bool = False
    """Hash again what is there, instead of comparing sizes and times of change."""
    stale_ok: bool = False
    """Be content with the current revision of the same source when the source cannot be reached."""
    wait_s: float | None = None
    """Longest wait for another fetch; None is for ever."""
    manifest_text: str | None = None
    manifest_name: str = ""
    settings: transfer.Settings = field(default_factory=transfer.Settings)


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    path: Path
    """DIR/current."""
    digest: str
    was_there: bool
    """Nothing had to be fetched."""


def fetch(request: Request, source: Source, say: Callable[[str], None], stop: threading.Event) -> Outcome:
    """Make DIR/current what the source has. Raises FetchError; `current` is then as it was before."""
    run = _Run(request, source, Store(request.to), say, stop)
    try:
        run.store.prepare()
        with lock.exclusive(run.store.lock_path, say, request.wait_s):
            return run.locked()
    except OSError as exc:
        raise NoRoom(f"{request.to} cannot be used ({exc.strerror}): give a folder that you may write to") from exc


@dataclass(frozen=True)
class _Run:
    request: Request
    source: Source
    store: Store
    say: Callable[[str], None]
    stop: threading.Event

    def locked(self) -> Outcome:
        """Everything that is done while the lock is held."""
        if self.source.pinned and (digest := self._same_as_before()):
            return Outcome(self.store.current_link, digest, was_there=True)
        try:
            listing = self.source.listing()
            plan = manifest.plan(listing.entries, self._promises(listing), self.source.url)
        except Unreachable as exc:
            if self.request.stale_ok and (digest := self._same_as_before()):
                self.say(f"warning: {exc}. Using what is here, which may be old (--stale-ok)")
                return Outcome(self.store.current_link, digest, was_there=True)
            raise
        was_there = self.store.intact(plan.digest, rehash=self.request.verify)
        if not was_there:
            self._tell(plan)
            self._bring(plan, listing.revision)
        self.store.activate(plan.digest)
        self.store.clear(self.store.stale(plan.digest))
        for old in self.store.prune(self.request.keep):
            self.say(f"deleted the old revision {old[:12]} (--keep {self.request.keep})")
        return Outcome(self.store.current_link, plan.digest, was_there=was_there)

    @property
    def _asked(self) -> str:
        text = self.request.manifest_text
        return self.source.url + (f" manifest:{hashlib.sha256(text.encode()).hexdigest()}" if text is not None else "")

    def _same_as_before(self) -> str | None:
        """Digest of the current revision, if it is whole and was fetched by the same command."""
        digest = self.store.current()
        record = self.store.record(self.store.final(digest)) if digest else None
        if digest and record and record.request == self._asked:
            return digest if self.store.intact(digest, rehash=self.request.verify) else None
        return None

    def _bring(self, plan: Plan, commit: str | None) -> None:
        """Fetch, check and seal one revision."""
        store, settings = self.store, self.request.settings
        folder = store.partial(plan.digest)
        if store.final(plan.digest).exists():
            self.say(f"revision {plan.digest[:12]} is damaged on this disk: taking it away and fetching what is wrong")
            store.reopen(plan.digest)
        before = store.record(folder)
        known = {name: stamp.sha256 for name, stamp in before.files.items()} if before else {}
        self._adopt(plan, known)
        present = transfer.bytes_present(folder, plan.files, settings)
        self._check_room(plan, present)
        if present:
            self.say(
                f"{progress.size(present)} of {progress.size(plan.total_bytes)} are here already: going on from there"
            )
        with progress.shown(plan.total_bytes, self.say, terminal=sys.stderr.isatty()) as bar:
            hashes = transfer.Transfer(self.source, folder, settings, bar, self.stop, known).run(plan.files)
        contents.check_index(folder, hashes)
        stats = {name: (folder / name).stat() for name in hashes}
        stamps = {name: Stamp(stat.st_size, stat.st_mtime_ns, hashes[name]) for name, stat in stats.items()}
        store.seal(plan.digest, Record(self.source.url, commit, self._asked, plan.unvouched, stamps))

    def _adopt(self, plan: Plan, known: Mapping[str, str]) -> None:
        """Take what is right of a damaged revision, and large files that other revisions have too."""
        store, settings, folder = self.store, self.request.settings, self.store.partial(plan.digest)
        others = store.holdings(store.whole())
        for entry in plan.files:
            if transfer.past_of(folder, entry, settings).whole:
                continue
            promised = entry.checksum.hex if entry.checksum else ""
            if entry.name in known and (folder / entry.name).is_file():
                transfer.adopt(folder, entry, known[entry.name], folder / entry.name, settings)
            elif promised in others and entry.size >= LINKED_FROM_BYTES:
                transfer.adopt(folder, entry, promised, others[promised], settings)

    def _promises(self, listing: Listing) -> Mapping[str, Promise] | None:
        """The manifest that counts: the operator's, else the source's own."""
        if self.request.manifest_text is not None:
            return manifest.parse(self.request.manifest_text, self.request.manifest_name)
        entries = {entry.name: entry for entry in listing.entries} if self.source.reads_own_manifest else {}
        for name in (MANIFEST, SUMS):
            if name in entries:
                return manifest.parse(self._small(entries[name]), f"{self.source.url}/{name}")
        return None

    def _small(self, entry: Entry) -> str:
        if not 0 < entry.size <= MAX_MANIFEST_BYTES:
            raise Misconfigured(f"{entry.name} has {entry.size:,} bytes, which no manifest has: give --manifest FILE")
        with self.source.read(entry, 0, entry.size) as stream:
            return b"".join(stream).decode("utf-8", errors="replace")

    def _tell(self, plan: Plan) -> None:
        for name, reason in plan.left_out:
            self.say(f"left out {name!r}: {reason}")
        if plan.unvouched:
            self.say(
                f"the source has no checksums for {len(plan.unvouched)} of {len(plan.files)} files: they are computed "
                "now and written to manifest.json, and later runs hold the files to them. Put that file beside the "
                "weights, or give it with --manifest, and every node is sure to get the same"
            )

    def _check_room(self, plan: Plan, present: int) -> None:
        store = self.store
        needed = plan.total_bytes - present + SPARE_BYTES
        if store.free_bytes() < needed:
            store.clear(store.stale(plan.digest))
        if (free := store.free_bytes()) < needed:
            raise NoRoom(
                f"{store.root} has no room: {progress.size(needed)} more are needed, {progress.size(free)} are free. "
                f"Free {progress.size(needed - free)}, delete an old revision below {store.root / 'revisions'}, or "
                "give --to a larger disk"
            )
