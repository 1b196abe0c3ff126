"""Decoding admitted by memory: a few large pictures at once, or many small ones. Pure asyncio; knows no picture.

Strictly first come, first served: a large picture that waits holds back the small ones behind it, else a stream of
small ones would keep it waiting for ever.
"""

from __future__ import annotations

import asyncio
from collections import deque


class MemoryGate:
    """A budget of bytes that is taken in pieces and given back. For one event loop."""

    def __init__(self, budget_bytes: int) -> None:
        """`budget_bytes` may be held at once. More than that in one piece waits until it is alone."""
        self._budget_bytes = budget_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.held_bytes = 0
        """Taken and not given back; of a piece above the budget only the budget is counted."""

    async def take(self, weight_bytes: int) -> int:
        """Wait until `weight_bytes` are free and take them. Gives what is to be handed to `give_back`, once.

        When cancelled, nothing is held.
        """
        weight_bytes = min(weight_bytes, self._budget_bytes)
        if not self._waiting and self._fits(weight_bytes):
            self.held_bytes += weight_bytes
            return weight_bytes
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((weight_bytes, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                # The one who left may have held back others that fit.
                self._admit()
            else:
                self.give_back(weight_bytes)  # it was this one's turn in the same moment
            raise
        return weight_bytes

    def give_back(self, weight_bytes: int) -> None:
        """What `take` gave is free again."""
        self.held_bytes -= weight_bytes
        self._admit()

    def _fits(self, weight_bytes: int) -> bool:
        return self.held_bytes + weight_bytes <= self._budget_bytes

    def _admit(self) -> None:
        while self._waiting and (self._waiting[0][1].cancelled() or self._fits(self._waiting[0][0])):
            weight_bytes, turn = self._waiting.popleft()
            if not turn.cancelled():
                self.held_bytes += weight_bytes
                turn.set_result(None)
