"""The words of ASGI as types, for whoever speaks it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

Message = dict[str, Any]
"""One ASGI event; its keys are those of the ASGI specification."""
Scope = dict[str, Any]
Receive = Callable[[], Coroutine[Any, Any, Message]]
Send = Callable[[Message], Coroutine[Any, Any, None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An application."""

EXTENSION = "gateway.when_gone"
"""An extension that `http_server` offers: a WhenGone. ASGI's own way is a `receive` that waits: a coroutine, a future
and two turns of the loop for each request, to say that nothing has happened.
"""
WhenGone = Callable[[Callable[[], object] | None], None]
"""Takes what is to be called once when the client leaves, at once if it has left already; None for nothing."""


def when_gone(scope: Scope) -> WhenGone:
    """The request's EXTENSION. Raises KeyError under a server that has none."""
    extension: WhenGone = scope["extensions"][EXTENSION]
    return extension
