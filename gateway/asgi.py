"""The words of ASGI as types, for whoever speaks it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

Message = dict[str, Any]
"""One ASGI event; its keys are those of the ASGI specification."""
Scope = dict[str, Any]
Receive = Callable[[], Coroutine[Any, Any, Message]]
Send = Callable[[Message], Coroutine[Any, Any, None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An application."""
Headers = Mapping[bytes, bytes]
"""By name in lower case; a repeated header's values are joined by commas, as HTTP allows."""

EXTENSION = "gateway.wire"
"""An extension that `http_server` offers: a Wire."""


class Head(Protocol):
    """What a request's head says."""

    headers: Headers
    kept: dict[str, Any]
    """For the application: what it finds out from the head, and from who sent it, alone. Requests of a connection that
    begin with the same bytes, but for the length of their bodies, share it."""


class Wire(Protocol):
    """What ASGI's `receive` and `send` do for one request, without what they cost.

    Either is a coroutine and a dict for each piece; a `receive` that waits is a coroutine, a future and two turns of
    the loop for each request, to say that nothing has happened.
    """

    @property
    def head(self) -> Head:
        """The request's."""

    def when_gone(self, call: Callable[[], object] | None) -> None:
        """Take what is to be called once when the client leaves, at once if it has left already; None for nothing."""

    def take_body(self) -> bytes | None:
        """All of the request's body if it is here, None if some is to be received."""

    keep_alive: bool
    """Whether the connection may be used after this answer. False, before the answer begins, ends it."""

    def answer(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> Awaitable[None] | None:
        """Give all of the answer; its length is added to the headers. What it gives is to be awaited."""

    def start(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Begin an answer of unknown length; names in lower case. Its head goes out with the body's first piece."""

    def write(self, body: bytes, *, more: bool) -> Awaitable[None] | None:
        """Send a piece of the body, the last one without `more`. What it gives is to be awaited before the next one."""


def wire_of(scope: Scope) -> Wire:
    """The request's EXTENSION. Raises KeyError under a server that has none."""
    wire: Wire = scope["extensions"][EXTENSION]
    return wire
