"""Which pictures an engine has, as far as this worker knows: it is asked about them by name and decodes none again.

vLLM takes a part with a `uuid` and no picture for the one that it keeps under that name, and refuses the request with
400 when there is none: its cache is bounded, and its own affair. So this is a guess; a wrong one costs a round trip.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

MOST = 256
"""Names that are remembered of an engine: a third of what vLLM's default cache (4 GiB) holds at 512x512."""
MISSES = 3
"""In a row, after which an engine is taken for one that keeps no pictures, or not for long."""
PAUSE_S = 300.0
"""For so long."""


class SeenPictures:
    """One engine's."""

    __slots__ = ("_clock", "_misses", "_names", "_paused_until")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """None is known yet; `clock` gives seconds."""
        self._clock = clock
        self._names: dict[str, None] = {}
        """The latest last."""
        self._misses = 0
        self._paused_until = 0.0

    def has_all(self, names: Iterable[str]) -> bool:
        """Whether the engine is to be asked by these names alone."""
        return all(name in self._names for name in names) and self._clock() >= self._paused_until

    def answered(self, names: Sequence[str], *, by_name: bool = False) -> None:
        """It has answered about these pictures, so it has them now, and had them if it got no more than their names."""
        if by_name:
            self._misses = 0
        for name in names:
            self._names.pop(name, None)
            self._names[name] = None
        while len(self._names) > MOST:
            del self._names[next(iter(self._names))]

    def missed(self) -> None:
        """It did not take names for pictures: it has lost some, and with them whatever was older."""
        self._names.clear()
        self._misses += 1
        if self._misses >= MISSES:
            self._misses = 0
            self._paused_until = self._clock() + PAUSE_S

    def forget(self) -> None:
        """It may be another process by now."""
        self._names.clear()
