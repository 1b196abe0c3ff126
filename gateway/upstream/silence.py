"""How long an engine may say nothing between two pieces of an answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.upstream.client import stalled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from gateway.streams import Pause, Sink
    from gateway.upstream.client import EngineResponse
    from gateway.upstream.endpoints import Endpoint


COLON = ord(":")
"""What a comment begins with."""


class Silence:
    """Ends a wait that takes too long. One timer looks now and then: a timeout for each piece would cost more."""

    def __init__(self, limit_s: float) -> None:
        """Nobody waits yet."""
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self.since = self._loop.time()
        """When something came last, by the event loop's clock."""
        self._waiting: asyncio.Task[object] | None = None
        self.over = False
        """Whether the wait was ended here."""
        self._timer = self._loop.call_later(limit_s, self._look)

    def _look(self) -> None:
        left = self._limit_s if self._waiting is None else self.since + self._limit_s - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
            return
        task, self._waiting = self._waiting, None
        if task is not None:
            self.over = True
            task.cancel()

    def begin(self, *, anew: bool) -> asyncio.Task[object]:
        """The current task waits from now on; `anew` or still, as before."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - an answer is always read in a task
        self._waiting = task
        if anew:
            self.since = self._loop.time()
        return task

    def end(self) -> None:
        """Something came: what is done with it takes as long as it takes."""
        self._waiting = None

    async def excused(self, pause: Pause) -> None:
        """Wait for a slow client, which is nobody's silence."""
        self.end()
        await pause
        self.begin(anew=True)

    def ended(self, task: asyncio.Task[object]) -> bool:
        """Whether the task's cancellation came from here, and from nowhere else."""
        return self.over and task.uncancel() == 0

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()


async def attended(chunks: AsyncIterator[bytes], endpoint: Endpoint, limit_s: float) -> AsyncGenerator[bytes, None]:
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
                if silence and task and silence.ended(task):
                    raise stalled() from None
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


class Attended:
    """The rest of an answer after its beginning, watched in the same way."""

    def __init__(self, response: EngineResponse, endpoint: Endpoint, limit_s: float) -> None:
        """Nothing is watched before it is poured."""
        self._response = response
        self._endpoint = endpoint
        self._limit_s = limit_s

    async def pour(self, sink: Sink) -> None:
        """See Stream; raises EngineTimeout."""
        endpoint = self._endpoint
        silence = Silence(self._limit_s)
        now = asyncio.get_running_loop().time
        task = silence.begin(anew=True)

        def heard(piece: bytes) -> Pause | None:
            if piece[0] != COLON or not is_comment(piece):
                endpoint.answers += 1
                silence.since = now()
            pause = sink(piece)
            return None if pause is None else silence.excused(pause)

        try:
            await self._response.pour(heard)
        except asyncio.CancelledError:
            if silence.ended(task):
                raise stalled() from None
            raise
        finally:
            silence.stop()


def is_comment(chunk: bytes) -> bool:
    """Whether there is nothing but a comment in it, by the looks of it."""
    return chunk.startswith(b":") and b"\ndata:" not in chunk
