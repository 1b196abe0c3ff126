"""The end of a test's own servers."""

from __future__ import annotations

import asyncio


async def ended(tasks: set[asyncio.Task], writers: list[asyncio.StreamWriter]) -> None:
    """Until conversations and connections are over.

    `close` waits for what is unsent, which nobody may want any more: the event loop could end before, and the transport
    would be found unclosed by the garbage collection of some later test.
    """
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for writer in writers:
        writer.transport.abort()
    await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
