"""An engine's answer as it comes in: filled by its connection, read by one reader."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Source(Protocol):
    """The connection, as its answer sees it."""

    def resume(self) -> None:
        """What has come is read: more may come."""

    def close(self) -> None:
        """Nobody wants the rest."""


class Answer:
    """See EngineResponse; `head` must have been awaited first. What has come before a failure is given before it."""

    __slots__ = ("_error", "_pieces", "_source", "_waiter", "complete", "content_type", "expects_body", "status",
                 "unread_bytes")  # fmt: skip

    def __init__(self, source: Source, *, expects_body: bool) -> None:
        """`expects_body` is False for the answer to a HEAD."""
        self.status = 0
        self.content_type = b""
        self.expects_body = expects_body
        self.complete = False
        self.unread_bytes = 0
        self._source = source
        self._pieces: list[bytes] = []
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def has_head(self) -> bool:
        """Whether the status and headers are here."""
        return self.status != 0

    # filled by the connection, which calls `wake` after a batch of these

    def begin(self, status: int, content_type: bytes) -> None:
        """The head is here."""
        self.status = status
        self.content_type = content_type

    def add(self, piece: bytes) -> None:
        """Another piece is here."""
        self._pieces.append(piece)
        self.unread_bytes += len(piece)

    def end(self) -> None:
        """All of it is here."""
        self.complete = True

    def fail(self, error: Exception) -> None:
        """The rest will never come."""
        self._error = error
        self.wake()

    def wake(self) -> None:
        """Tell the reader that there is news."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

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

    async def chunks(self) -> AsyncIterator[bytes]:
        """See EngineResponse: what has come since the last one, in one piece."""
        while True:
            if self._pieces:
                yield self._taken()
            elif self.complete:
                return
            elif self._error is not None:
                raise self._error
            else:
                await self._news()

    async def read(self) -> bytes:
        """See EngineResponse."""
        taken = []
        while not self.complete:
            if self._pieces:
                taken.append(self._taken())
            elif self._error is not None:
                raise self._error
            else:
                await self._news()
        if not taken and len(self._pieces) == 1:
            return self._pieces[0]
        taken += self._pieces
        return b"".join(taken)

    def close(self) -> None:
        """See EngineResponse. A complete answer's connection has long been free again."""
        self._pieces.clear()
        if not self.complete and self._error is None:
            self._source.close()

    def _taken(self) -> bytes:
        pieces = self._pieces
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.unread_bytes = 0
        if not self.complete:
            self._source.resume()
        return piece

    def _news(self) -> asyncio.Future[None]:
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter
