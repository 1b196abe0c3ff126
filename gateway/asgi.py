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
