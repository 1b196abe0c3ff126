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


async def test_of_several_each_ends_in_its_own_time():
    ended = []

    async def work(name, seconds):
        with pytest.raises(TimeoutError), Deadline(seconds):
            await asyncio.Event().wait()
        ended.append(name)

    async def ends_in_time():
        with Deadline(0.02):
            await asyncio.sleep(0)

    jobs = [work("late", 0.06), work("early", 0.01), ends_in_time(), work("between", 0.03)]
    await asyncio.wait_for(asyncio.gather(*jobs), 10)
    assert ended == ["early", "between", "late"]


def test_each_loop_has_its_own_deadlines():
    async def within(seconds):
        with Deadline(seconds):
            await asyncio.Event().wait()

    loops = [asyncio.new_event_loop() for _ in range(2)]
    tasks = [loop.create_task(within(0.01)) for loop in loops]
    for loop in (*loops, *loops):  # They take turns, so that each enters while the other's is the latest.
        loop.run_until_complete(asyncio.sleep(0))
    for loop, task in zip(loops, tasks, strict=True):
        with pytest.raises(TimeoutError):
            loop.run_until_complete(asyncio.wait_for(asyncio.shield(task), 10))
        loop.close()
