"""What people see: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LINE_EVERY_S = 10.0


class Progress(Protocol):
    """Something that is told about bytes, from several threads."""

    def advance(self, count: int) -> None:
        """So many bytes more are there."""
        ...


def size(count: float) -> str:
    """Bytes for people: `16.3 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:  # noqa: PLR2004  # the next unit
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


class Lines:
    """Progress for a log: a line every few seconds."""

    def __init__(
        self, total: int, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic,
        every_s: float = LINE_EVERY_S,
    ) -> None:  # fmt: skip
        self._total, self._say, self._clock, self._every_s = total, say, clock, every_s
        self._done, self._lock = 0, threading.Lock()
        self._began = self._told = clock()

    def advance(self, count: int) -> None:
        """Count, and say something if it is time."""
        with self._lock:
            self._done += count
            now = self._clock()
            if now - self._told < self._every_s or not self._total:
                return
            self._told = now
            rate = self._done / max(now - self._began, 1e-9)
            left = (self._total - self._done) / max(rate, 1)
            line = f"{self._done / self._total:4.0%}  {size(self._done)} of {size(self._total)}, {size(rate)}/s"
        self._say(f"{line}, about {left:.0f} s left")


@contextmanager
def shown(total: int, say: Callable[[str], None], *, terminal: bool) -> Iterator[Progress]:
    """A bar on standard error when that is a terminal and rich is installed; lines otherwise."""
    bar = _bar(total) if terminal else None
    if bar is None:
        yield Lines(total, say)
        return
    with bar:
        yield bar


def _bar(total: int) -> _Bar | None:
    try:
        return _Bar(total)
    except ImportError:
        return None


class _Bar:
    """rich's progress bar; rich itself is imported here, as the engine's image may lack it."""

    def __init__(self, total: int) -> None:
        from rich import progress  # noqa: PLC0415
        from rich.console import Console  # noqa: PLC0415

        self._progress = progress.Progress(
            progress.TextColumn("fetching"),
            progress.BarColumn(),
            progress.DownloadColumn(binary_units=True),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
            console=Console(file=sys.stderr),
        )
        self._task = self._progress.add_task("fetching", total=total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, count: int) -> None:
        """Move the bar."""
        self._progress.advance(self._task, count)
