"""Large bodies are read a few at a time, so that no turn of the event loop has many of them to do.

Whatever has arrived is read in one turn: with 64 clients that is 64 pieces of 256 KiB, and all of their bodies are half
in memory, in pages that the kernel has to clear first. The others' data wait where they are, with their senders.

A place is for who sends fast. One who does not keep up gives it back after a moment and is read beside the others, as
one slow client, or four that mean it, must not hold up everybody's pictures.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

LOOK_S = 0.05
LEAST_BYTES = 128 * 1024
"""Between two looks (2.5 MB/s): who sends less costs the event loop next to nothing."""


class Places:
    """So many at once, in order of arrival. For one event loop."""

    def __init__(self, count: int) -> None:
        """`count` senders may have one."""
        self._free = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Wait for a free place. When cancelled, none is held."""
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.give_back()  # it was this one's turn in the same moment
            raise

    def give_back(self) -> None:
        """The next one's turn."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Place:
    """An `async with` block that has one, for as long as `received` keeps growing."""

    def __init__(self, places: Places) -> None:
        """One of `places`, once entered."""
        self._places = places
        self._seen = 0
        self.received = 0
        """Bytes so far."""

    async def __aenter__(self) -> Self:
        await self._places.take()
        self._timer: asyncio.TimerHandle | None = None
        self._look_later()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._places.give_back()

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        if self.received - self._seen < LEAST_BYTES:
            self._timer = None
            self._places.give_back()
            return
        self._seen = self.received
        self._look_later()
