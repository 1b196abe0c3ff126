"""How long an engine may say nothing between two pieces of an answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.errors import EngineTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.upstream.endpoints import Endpoint


class Silence:
    """Ends a wait that takes too long. One timer looks now and then: a timeout for each piece would cost more."""

    def __init__(self, limit_s: float) -> None:
        """Nobody waits yet."""
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._waiting: asyncio.Task[object] | None = None
        self._timer = self._loop.call_later(limit_s, self._look)

    def _look(self) -> None:
        left = self._limit_s if self._waiting is None else self._since + self._limit_s - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
            return
        task, self._waiting = self._waiting, None
        if task is not None:
            task.cancel()

    def begin(self, *, anew: bool) -> asyncio.Task[object]:
        """The current task waits from now on; `anew` or still, as before."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - an answer is always read in a task
        self._waiting = task
        if anew:
            self._since = self._loop.time()
        return task

    def end(self) -> None:
        """Something came: what is done with it takes as long as it takes."""
        self._waiting = None

    @property
    def over(self) -> bool:
        """Whether the wait was ended here."""
        return self._waiting is None

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()


async def attended(chunks: AsyncIterator[bytes], endpoint: Endpoint, limit_s: float) -> AsyncIterator[bytes]:
    """The chunks, each a sign of life of its engine; EngineTimeout when it says nothing for so long after the first.

    Comments do not count: vLLM's API keeps sending them while its core hangs.
    """
    silence: Silence | None = None
    anew = True
    try:
        while True:
            task = silence.begin(anew=anew) if silence else None
            try:
                chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except asyncio.CancelledError:
                if silence and task and silence.over and task.uncancel() == 0:
                    raise EngineTimeout("The engine stopped answering.") from None
                raise
            if silence:
                silence.end()
            anew = not is_comment(chunk)
            if anew:
                endpoint.answers += 1
                silence = silence or Silence(limit_s)
            yield chunk
    finally:
        if silence:
            silence.stop()


def is_comment(chunk: bytes) -> bool:
    """Whether there is nothing but a comment in it, by the looks of it."""
    return chunk.startswith(b":") and b"\ndata:" not in chunk
