from __future__ import annotations

import asyncio
import contextlib

import pytest

from gateway.deadline import Deadline


async def test_a_block_that_ends_in_time_is_left_alone():
    with Deadline(5):
        await asyncio.sleep(0)
    assert asyncio.current_task().cancelling() == 0


@pytest.mark.parametrize("seconds", [0.01, 0, -1])
async def test_a_block_that_takes_longer_is_ended(seconds):
    with pytest.raises(TimeoutError), Deadline(seconds):
        await asyncio.Event().wait()
    assert asyncio.current_task().cancelling() == 0


async def test_what_the_block_raises_goes_through():
    with pytest.raises(KeyError), Deadline(5):
        raise KeyError


@pytest.mark.parametrize("seconds", [0, 5], ids=["with the deadline", "before it"])
async def test_who_is_cancelled_by_others_is_cancelled(seconds):
    waits = asyncio.Event()

    async def work():
        with Deadline(seconds):
            waits.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(work())
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_block_that_swallows_the_cancellation_is_not_punished_for_it():
    with Deadline(0), contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await asyncio.sleep(0)
    assert asyncio.current_task().cancelling() == 0
