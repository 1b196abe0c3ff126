"""The words of ASGI as types, for whoever speaks it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol

Message = dict[str, Any]
"""One ASGI event; its keys are those of the ASGI specification."""
Scope = dict[str, Any]
Receive = Callable[[], Coroutine[Any, Any, Message]]
Send = Callable[[Message], Coroutine[Any, Any, None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An application."""

EXTENSION = "gateway.wire"
"""An extension that `http_server` offers: a Wire."""


class Wire(Protocol):
    """What ASGI's `receive` and `send` do for one request, without what they cost.

    Either is a coroutine and a dict for each piece; a `receive` that waits is a coroutine, a future and two turns of
    the loop for each request, to say that nothing has happened.
    """

    def when_gone(self, call: Callable[[], object] | None) -> None:
        """Take what is to be called once when the client leaves, at once if it has left already; None for nothing."""

    def take_body(self) -> bytes | None:
        """All of the request's body if it is here, None if some is to be received."""

    def start(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Begin the answer; names in lower case. Its head goes out with the first piece of the body."""

    def write(self, body: bytes, *, more: bool) -> Awaitable[None] | None:
        """Send a piece of the body, the last one without `more`. What it gives is to be awaited before the next one."""


def wire_of(scope: Scope) -> Wire:
    """The request's EXTENSION. Raises KeyError under a server that has none."""
    wire: Wire = scope["extensions"][EXTENSION]
    return wire
