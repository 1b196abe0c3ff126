"""The key file on disk: reading it, noticing that it has changed, and changing it. What is in it: `key_format.py`.

Which way it fails: an unreadable file stops the start. Later it fails *static*: the ring read last stays in force,
because a half-written file, or a volume that is away for a moment, must neither lock every client out nor let anyone
in. A readable file always wins, so that taking a key out of it revokes the key, at most a poll and a read later.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shlex
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gateway.key_format import parse_ring, render_ring
from gateway.key_ring import Key, KeyFileError, KeyRing, hash_secret, new_secret, utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

__all__ = [
    "Key",
    "KeyFile",
    "KeyFileError",
    "KeyRing",
    "hash_secret",
    "new_secret",
    "parse_ring",
    "read_ring",
    "render_ring",
    "update",
    "utc_now",
]

POLL_INTERVAL_S = 0.5
"""Half of what is allowed, so that a revoked key is out well within the two seconds that are promised."""

MAX_KEY_FILE_BYTES = 16 * 1024 * 1024
"""Room for 50,000 keys; a Kubernetes Secret holds 1 MiB. A larger file is a mistake, such as the path of a log."""

_UNSETTLED_S = 2.0
"""A file this young may change again without a new mtime (ticks are up to 10 ms, 2 s on FAT), so it is read again."""

ReloadOutcome = Literal["ok", "failed"]

_Signature = tuple[int, int, int]
"""mtime in ns, inode and size of the file behind the symbolic links, which Kubernetes swaps to update a Secret."""

logger = logging.getLogger(__name__)


class KeyFile:
    """The keys in a file, as of one poll ago at most."""

    def __init__(
        self,
        path: Path,
        clock: Callable[[], datetime] = utc_now,
        poll_interval_s: float = POLL_INTERVAL_S,
        on_reload: Callable[[ReloadOutcome], None] = lambda _: None,
    ) -> None:
        """Read the file now. `clock` tells how old it is; `on_reload` counts changes, from a thread of `watch`.

        Raises:
            KeyFileError: the file is missing, invalid or without a key, so that nobody could call.

        """
        self.path = path
        self._clock = clock
        self._poll_interval_s = poll_interval_s
        self._on_reload = on_reload
        self._signature = _sign(path)
        self._text = _read(path)
        self._fault: tuple[_Signature | None, str] | None = None
        self.ring = _parse(path, self._text)
        """Replaced as a whole, never changed: a request that holds it sees one consistent set of keys."""
        if not self.ring.keys:
            raise KeyFileError(f"{path} holds no keys: {_next_step(path)}")

    async def watch(self) -> None:
        """Poll the file until cancelled, and swap `ring` whenever it holds new valid keys.

        Polling rather than inotify, which does not see what happens on the other side of NFS or of a bind mount. The
        reads have a thread of their own: behind the pictures in the shared pool a revocation could wait too long.
        """
        loop = asyncio.get_running_loop()
        pool = ThreadPoolExecutor(1, thread_name_prefix="keys")
        try:
            while True:
                await asyncio.sleep(self._poll_interval_s)
                await loop.run_in_executor(pool, self.refresh)
        finally:
            pool.shutdown(wait=False)

    def refresh(self) -> None:
        """Look at the file once; blocks on the disk. Never raises: each fault of the file is one line in the log."""
        # Signed before it is read: a change in between is then seen by the next look.
        signature = _sign(self.path)
        if signature is not None and signature == self._signature and self._is_settled(signature):
            return
        self._signature = signature
        try:
            text = _read(self.path)
            ring = self.ring if text == self._text else _parse(self.path, text)
        except KeyFileError as exc:
            fault = (signature, str(exc))
            if fault != self._fault:
                self._fault = fault
                # Not logger.exception: the traceback would say nothing more about the file.
                self._on_reload("failed")
                logger.error("%s (the %d keys read before stay in force)", exc, len(self.ring))  # noqa: TRY400
            return
        if ring is not self.ring or self._fault:
            self._on_reload("ok")
            before, after = ({key.id for key in keys.keys} for keys in (self.ring, ring))
            logger.info("%s read: added %s, removed %s", self.path, sorted(after - before), sorted(before - after))
        self._text, self._fault, self.ring = text, None, ring

    def _is_settled(self, signature: _Signature) -> bool:
        return self._clock().timestamp() - signature[0] / 1e9 >= _UNSETTLED_S


def read_ring(path: Path) -> KeyRing:
    """Read the key file once; a valid file without keys is an empty ring.

    Raises:
        KeyFileError: the file is missing, unreadable, empty or invalid.

    """
    return _parse(path, _read(path))


def update(path: Path, change: Callable[[list[Key]], list[Key]]) -> KeyRing:
    """Change the key file, or make it with mode 0600: one writer at a time, and readers see the old file or the new.

    `change` gets the present keys (none when the file is missing or empty) and returns those to keep; what it raises
    goes through and leaves the file as it was. Returns the keys written. Waits while another process changes the file.

    Raises:
        KeyFileError: the file is invalid now or would be afterwards, or cannot be written. It is left as it was.

    """
    # Behind the links, because the rename at the end would put a file in the place of a link.
    target = Path(os.path.realpath(path))
    try:
        with _locked(target):
            text = _read(target) if target.exists() else ""
            keys = list(_parse(path, text).keys) if text.strip() else []
            text = render_ring(change(keys))
            # Checked before it is written: what the gateway would refuse must not get into the file.
            ring = parse_ring(text)
            _replace(target, text)
    except FileNotFoundError as exc:
        raise KeyFileError(f"{path} cannot be made: make the folder {target.parent} first") from exc
    except OSError as exc:
        raise KeyFileError(f"{path} cannot be written ({exc.strerror}): run this as the owner of the file") from exc
    return ring


def _next_step(path: Path) -> str:
    return f"create one with `python -m gateway keys create --file {shlex.quote(str(path))} --tenant NAME`"


def _sign(path: Path) -> _Signature | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_KEY_FILE_BYTES + 1)
    except FileNotFoundError as exc:
        raise KeyFileError(f"{path} does not exist: {_next_step(path)}") from exc
    except OSError as exc:
        raise KeyFileError(f"{path} cannot be read ({exc.strerror}): make it a file that this user may read") from exc
    if len(content) > MAX_KEY_FILE_BYTES:
        raise KeyFileError(f"{path} has more than {MAX_KEY_FILE_BYTES} bytes, so it is no key file: {_next_step(path)}")
    try:
        # -sig, because some editors put a byte order mark in front.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise KeyFileError(f"{path} is not UTF-8, so it is no key file: {_next_step(path)}") from None


def _parse(path: Path, text: str) -> KeyRing:
    if not text.strip():
        raise KeyFileError(f"{path} is empty: {_next_step(path)}")
    try:
        return parse_ring(text)
    except KeyFileError as exc:
        raise KeyFileError(f"{path}: {exc}. Repair it, or {_next_step(path)}") from None


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    # A file beside it, never removed: the key file itself is replaced, and a lock on the old one would guard nothing.
    descriptor = os.open(target.with_name(f".{target.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(target: Path, text: str) -> None:
    """Put the text in the file's place so that a crash at any moment leaves the old file or the new one, whole."""
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            _keep_owner_and_mode(target, descriptor)
            os.fsync(descriptor)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        # The rename itself lives in the folder.
        os.fsync(folder)
    finally:
        os.close(folder)


def _keep_owner_and_mode(target: Path, descriptor: int) -> None:
    # Root may revoke a key, but the file must stay readable for the gateway's user: otherwise the gateway would keep
    # the revoked key, since it goes on with what it read last.
    if not target.exists():
        return
    old, new = target.stat(), os.fstat(descriptor)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
