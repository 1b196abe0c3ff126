"""Waiting for what is to happen, never for a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_EVERY_S = 0.005


async def until(condition: Callable[[], object], deadline_s: float = 5) -> None:
    """Return once `condition` holds; raises TimeoutError after `deadline_s`."""
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(LOOK_EVERY_S)
