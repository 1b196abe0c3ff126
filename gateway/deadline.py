"""`asyncio.timeout` for the hot path: the same promise for a block that mostly ends at once, at a tenth of its cost.

All deadlines of an event loop share one timer, which is set for the earliest: making one and taking it back costs more
(11 µs with uvloop) than all else that a deadline does, and nearly none is ever reached.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

EARLY_S = 0.001
"""Event loops count in milliseconds: a timer may go off this much before its time."""


class Deadline:
    """A `with` block that is cancelled after `seconds` and then raises TimeoutError. To be used once, in a task."""

    __slots__ = ("_cancelling", "_expired", "_given", "_seconds", "_task", "_watch")

    def __init__(self, seconds: float, task: asyncio.Task[Any] | None = None) -> None:
        """Not above zero: the block is cancelled where it first waits. `task` is the one that runs, if it is known."""
        self._seconds = seconds
        self._given = task
        self._expired = False

    def __enter__(self) -> None:
        task = self._given or asyncio.current_task()
        assert task is not None  # noqa: S101 - as the class says
        self._task = task
        loop = task.get_loop()
        self._cancelling = task.cancelling()
        self._watch = watch_of(loop)
        self._watch.add(self, loop.time() + self._seconds)

    def expire(self) -> None:
        """Its time is over."""
        self._expired = True
        self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: object) -> None:
        self._watch.due.pop(self, None)
        # Ours alone: a cancellation from elsewhere that came as well goes on.
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from exc


class Watch:
    """The deadlines of one event loop, and the timer for the earliest of them."""

    __slots__ = ("_set_for", "_timer", "due", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """None is there yet."""
        self.loop = loop
        self.due: dict[Deadline, float] = {}
        """By the loop's clock."""
        self._timer: asyncio.TimerHandle | None = None
        self._set_for = math.inf

    def add(self, deadline: Deadline, at: float) -> None:
        """Have it expire; whoever takes it out of `due` first is spared."""
        self.due[deadline] = at
        if at < self._set_for:
            self._set(at)

    def _set(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._set_for = at
        self._timer = self.loop.call_at(at, self._look)

    def _look(self) -> None:
        self._timer, self._set_for = None, math.inf
        now = self.loop.time() + EARLY_S
        for deadline in [deadline for deadline, at in self.due.items() if at <= now]:
            del self.due[deadline]
            deadline.expire()
        if self.due:
            self._set(min(self.due.values()))


_latest: Watch | None = None
"""That of the loop that asked last, which is the only one but in tests."""


def watch_of(loop: asyncio.AbstractEventLoop) -> Watch:
    """The loop's deadlines. Where two loops take turns, one may have several, each with a timer of its own."""
    global _latest  # noqa: PLW0603 - a dict by loops costs as much as the rest of a deadline
    if _latest is None or _latest.loop is not loop:
        _latest = Watch(loop)
    return _latest
