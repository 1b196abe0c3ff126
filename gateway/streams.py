"""A body on its way: each piece is handed on in the very callback that brought it, so that no task wakes for it.

That is what a streamed token costs least with. A reader that cannot take more for now says so by giving something to
wait for; whoever pours then stops, and the engine with it once enough is unread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Generator

T = TypeVar("T")

Pause = Awaitable[None]
Sink = Callable[[bytes], Pause | None]
"""Takes a piece at once; what it gives is to be awaited before the next one."""


class Stream(Protocol):
    """A body that is read once."""

    async def pour(self, sink: Sink) -> None:
        """Hand over every piece as it comes; returns at the end, raises what the source or the sink raises."""


class Pieces:
    """A stream out of an iterator, which wakes the task for each piece."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        """`pieces` are read when it is poured."""
        self._pieces = pieces

    async def pour(self, sink: Sink) -> None:
        """See Stream."""
        async for piece in self._pieces:
            if (pause := sink(piece)) is not None:
                await pause


class Rest(Generic[T]):
    """What is left of a coroutine that waits for `awaited` already; to be awaited in a task, for what it returns."""

    __slots__ = ("_awaited", "_work")

    def __init__(self, work: Coroutine[Any, Any, T], awaited: Any) -> None:  # noqa: ANN401 - asyncio's business
        """`awaited` is what the coroutine's first `send` gave."""
        self._work = work
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, T]:
        """As the coroutine would."""
        work, awaited = self._work, self._awaited
        try:
            while True:
                try:
                    value = yield awaited
                except BaseException as exc:  # noqa: BLE001 - a cancellation above all: it is the coroutine's to see
                    awaited = work.throw(exc)
                else:
                    awaited = work.send(value)
        except StopIteration as end:
            result: T = end.value
            return result
