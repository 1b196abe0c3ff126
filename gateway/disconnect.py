"""A client that leaves: noticed while its answer is made, so that nobody works for it any longer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.asgi import Wire


class ClientGone(Exception):
    """The client left; there is nobody to answer."""


class CancelledWhenGone:
    """A `with` block that is cancelled when the client disconnects, and then raises ClientGone.

    The cancellation reaches the engine's connection, which closes, and vLLM stops generating. Unless others want what
    is done here: `stays`.
    """

    __slots__ = ("_wire", "gone", "stays", "task")

    def __init__(self, wire: Wire) -> None:
        """`wire` is the request's, by ASGI's extension."""
        self.gone = False
        """The client has left."""
        self.stays: Callable[[], bool] | None = None
        """Asked when the client leaves: whether the work goes on all the same. Who says yes may cancel the task later,
        and sees that nobody is answered: `check`."""
        self._wire = wire

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a request always runs in a task
        self.task = task
        self._wire.when_gone(self._leave)
        return self

    def _leave(self) -> None:
        self.gone = True
        if self.stays is None or not self.stays():
            self.task.cancel()

    def check(self) -> None:
        """Raise ClientGone if there is nobody to answer any more."""
        if self.gone:
            raise ClientGone

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._wire.when_gone(None)
        if kind is asyncio.CancelledError and self.gone and self.task.uncancel() == 0:
            raise ClientGone from None
