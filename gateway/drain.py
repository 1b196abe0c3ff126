"""The way out: SIGTERM makes the gateway unready at once, and only later does it stop listening.

In between, load balancers notice, and every answer asks for its connection to be closed: a client that keeps its
connections opens the next one elsewhere, before this process closes them.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import FrameType

    from gateway.asgi import Asgi, Message, Receive, Scope, Send

CLOSE = (b"connection", b"close")

log = logging.getLogger(__name__)


class Drain:
    """Whether this process is on its way out."""

    def __init__(self) -> None:
        """Not yet."""
        self.begun = False

    def begin(self) -> None:
        """From now on it is unready."""
        self.begun = True

    def on_sigterm(self, delay_s: float) -> None:
        """Begin with SIGTERM, and let the server do what it does then `delay_s` later.

        To be called once the server has set its own handlers: in the application's start. Further SIGTERMs change
        nothing: a worker gets one from its parent and another when the whole group is signalled. SIGINT waits for
        nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            return  # Only there can signals be handled: such a server is stopped by whoever runs it.
        loop = asyncio.get_running_loop()
        stop = signal.getsignal(signal.SIGTERM)

        def handle(number: int, frame: FrameType | None) -> None:
            if self.begun:
                return
            self.begin()
            if not delay_s:
                _call(stop, number, frame)
                return
            log.warning("draining: not ready any more, still listening", extra={"seconds": delay_s})
            loop.call_soon_threadsafe(loop.call_later, delay_s, _call, stop, number, None)

        signal.signal(signal.SIGTERM, handle)


def _call(handler: Any, number: int, frame: FrameType | None) -> None:  # noqa: ANN401 - what signal.getsignal gives
    if callable(handler):
        handler(number, frame)


class ClosingConnections:
    """Asks for each connection to be closed after its answer once the drain has begun."""

    def __init__(self, app: Asgi, drain: Drain) -> None:
        """The outermost middleware."""
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""

        def closing(message: Message) -> Coroutine[Any, Any, None]:
            if self._drain.begun and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), CLOSE]
            return send(message)

        await self._app(scope, receive, closing)
