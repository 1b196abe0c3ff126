"""An engine's answer as it comes in: filled by its connection, read by one reader."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gateway.streams import Pause, Sink


class Source(Protocol):
    """The connection, as its answer sees it."""

    def resume(self) -> None:
        """What has come is read: more may come."""

    def close(self) -> None:
        """Nobody wants the rest."""


class Answer:
    """See EngineResponse; `head` must have been awaited first. What has come before a failure is given before it."""

    __slots__ = ("_error", "_sink", "_source", "_waiter", "complete", "content_type", "expects_body", "pieces",
                 "status", "unread_bytes")  # fmt: skip

    def __init__(self, source: Source, *, expects_body: bool) -> None:
        """`expects_body` is False for the answer to a HEAD."""
        self.status = 0
        self.content_type = b""
        self.expects_body = expects_body
        self.complete = False
        self.unread_bytes = 0
        """Received while there was something to be taken, framing included."""
        self.pieces: list[bytes] = []
        """Of the body, not taken yet. Its connection adds to it and calls `wake` after a batch."""
        self._source = source
        self._error: Exception | None = None
        self._waiter: asyncio.Future[Pause | None] | None = None
        self._sink: Sink | None = None
        """While all that came has been poured: the next piece goes there."""

    @property
    def has_head(self) -> bool:
        """Whether the status and headers are here."""
        return self.status != 0

    # filled by the connection, which calls `wake` after a batch of these

    def begin(self, status: int, content_type: bytes) -> None:
        """The head is here."""
        self.status = status
        self.content_type = content_type

    def end(self) -> None:
        """All of it is here."""
        self.complete = True

    def fail(self, error: Exception) -> None:
        """The rest will never come."""
        self._error = error
        self.wake()

    def wake(self) -> None:
        """Tell the reader that there is news."""
        sink = self._sink
        if sink is not None:
            pieces = self.pieces
            if pieces:
                # As `_taken`, without a call for each token; nobody poured into has let the source wait.
                if len(pieces) == 1:
                    piece = pieces.pop()
                else:
                    piece = b"".join(pieces)
                    pieces.clear()
                try:
                    pause = sink(piece)
                except Exception as exc:  # noqa: BLE001 - not the connection's: it goes to whoever pours
                    self._sink = None
                    waiter, self._waiter = self._waiter, None
                    if waiter is not None and not waiter.done():
                        waiter.set_exception(exc)
                    return
                if pause is not None:
                    self._stop(pause)
                    return
            if not self.complete and self._error is None:
                return
        self._stop(None)

    def _stop(self, pause: Pause | None) -> None:
        """It is the reader's turn."""
        self._sink = None
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(pause)

    # read by the one who asked

    async def head(self) -> None:
        """Until the status and headers are here. Raises what `fail` was given; cancelled, it closes the connection."""
        try:
            while self.status == 0 and self._error is None:
                await self._news()
        except BaseException:
            self.close()
            raise
        if self.status == 0 and self._error is not None:
            raise self._error

    def chunks(self) -> Answer:
        """See EngineResponse."""
        return self

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> bytes:
        """What has come since the last one, in one piece."""
        while not self.pieces:
            if self.complete:
                raise StopAsyncIteration
            if self._error is not None:
                raise self._error
            await self._news()
        return self._taken()

    async def pour(self, sink: Sink) -> None:
        """See EngineResponse."""
        while True:
            while self.pieces:
                if (pause := sink(self._taken())) is not None:
                    await pause
            if self.complete:
                return
            if self._error is not None:
                raise self._error
            self._sink = sink
            try:
                pause = await self._news()
            finally:
                self._sink = None
            if pause is not None:
                await pause

    async def read(self) -> bytes:
        """See EngineResponse."""
        taken = []
        while not self.complete:
            if self.pieces:
                taken.append(self._taken())
            elif self._error is not None:
                raise self._error
            else:
                await self._news()
        if not taken and len(self.pieces) == 1:
            return self.pieces[0]
        taken += self.pieces
        return b"".join(taken)

    def close(self) -> None:
        """See EngineResponse. A complete answer's connection has long been free again."""
        self.pieces.clear()
        if not self.complete and self._error is None:
            self._source.close()

    def _taken(self) -> bytes:
        pieces = self.pieces
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.unread_bytes = 0
        if not self.complete:
            self._source.resume()
        return piece

    def _news(self) -> asyncio.Future[Pause | None]:
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter
