"""A client that leaves: noticed while its answer is made, so that nobody works for it any longer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from gateway.asgi import Message


class ClientGone(Exception):
    """The client left; there is nobody to answer."""


class CancelledWhenGone:
    """A `with` block that is cancelled when the client disconnects, and then raises ClientGone.

    The cancellation reaches the engine's connection, which closes, and vLLM stops generating.
    """

    __slots__ = ("_gone", "_over", "_receive", "_receiving", "_start", "_task")

    def __init__(self, receive: Callable[[], Coroutine[Any, Any, Message]]) -> None:
        """`receive` is the ASGI channel, whose body has been read."""
        self._receive = receive
        self._receiving: Coroutine[Any, Any, Message] | None = None
        self._gone = False
        self._over = False

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101 - a request always runs in a task
        self._task = task
        # A block that never waits, such as a kept answer's, is over before there is anything to look at.
        self._start = loop.call_soon(self._look)

    def _look(self, _: object = None) -> None:
        # `receive` runs by hand, up to where it waits: a task that does nothing else would cost as much as a step.
        while not self._over:
            if self._receiving is None:
                self._receiving = self._receive()
            try:
                waits_for = self._receiving.send(None)
            except StopIteration as end:
                self._receiving = None
                if end.value["type"] == "http.disconnect":
                    self._over = self._gone = True
                    self._task.cancel()
            else:
                if waits_for is None:  # It only lets others go first.
                    asyncio.get_running_loop().call_soon(self._look)
                else:
                    waits_for.add_done_callback(self._look)
                return

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over = True
        self._start.cancel()
        if self._receiving is not None:
            self._receiving.close()
        if kind is asyncio.CancelledError and self._gone and self._task.uncancel() == 0:
            raise ClientGone from None
