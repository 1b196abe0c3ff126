"""A client that leaves: noticed while its answer is made, so that nobody works for it any longer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.asgi import WhenGone


class ClientGone(Exception):
    """The client left; there is nobody to answer."""


class CancelledWhenGone:
    """A `with` block that is cancelled when the client disconnects, and then raises ClientGone.

    The cancellation reaches the engine's connection, which closes, and vLLM stops generating.
    """

    __slots__ = ("_gone", "_task", "_when_gone")

    def __init__(self, when_gone: WhenGone) -> None:
        """`when_gone` is the request's, by ASGI's extension."""
        self._when_gone = when_gone
        self._gone = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a request always runs in a task
        self._task = task
        self._when_gone(self._leave)

    def _leave(self) -> None:
        self._gone = True
        self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._when_gone(None)
        if kind is asyncio.CancelledError and self._gone and self._task.uncancel() == 0:
            raise ClientGone from None
