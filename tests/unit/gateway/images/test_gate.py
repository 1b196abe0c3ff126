"""Admission by weight: bounded, in order, and nothing lost when somebody leaves."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.images.gate import MemoryGate


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def taking(gate, *weights):
    return [asyncio.create_task(gate.take(weight)) for weight in weights]


async def test_what_fits_goes_in_at_once_and_the_rest_waits():
    gate = MemoryGate(10)
    tasks = taking(gate, 4, 6, 1)
    await settle()
    assert [task.done() for task in tasks] == [True, True, False]
    assert gate.held_bytes == 10
    gate.give_back(await tasks[0])
    await settle()
    assert tasks[2].done()
    assert gate.held_bytes == 7


async def test_one_above_the_budget_waits_to_be_alone_and_then_holds_all():
    gate = MemoryGate(10)
    (small,) = taking(gate, 1)
    await settle()
    large, after = taking(gate, 1000, 1)
    await settle()
    assert not large.done()
    gate.give_back(await small)
    await settle()
    assert large.done()
    assert not after.done()
    gate.give_back(await large)
    await settle()
    assert after.done()


async def test_a_large_one_is_not_overtaken_for_ever():
    gate = MemoryGate(10)
    (first,) = taking(gate, 6)
    await settle()
    large, small = taking(gate, 8, 1)
    await settle()
    assert not small.done()
    gate.give_back(await first)
    await settle()
    assert large.done()
    assert small.done()


async def test_one_who_leaves_the_line_lets_the_others_through():
    gate = MemoryGate(10)
    (first,) = taking(gate, 6)
    await settle()
    large, small = taking(gate, 8, 1)
    await settle()
    large.cancel()
    await settle()
    assert large.cancelled()
    assert small.done()
    assert gate.held_bytes == 7
    gate.give_back(await first)
    gate.give_back(await small)
    assert gate.held_bytes == 0


async def test_one_who_leaves_in_the_moment_of_its_turn_holds_nothing():
    gate = MemoryGate(10)
    (first,) = taking(gate, 10)
    await settle()
    late, after = taking(gate, 5, 10)
    await settle()
    gate.give_back(await first)
    late.cancel()
    await settle()
    assert late.cancelled()
    assert after.done()
    assert gate.held_bytes == 10


async def test_one_who_left_behind_another_is_passed_over():
    gate = MemoryGate(10)
    (first,) = taking(gate, 10)
    await settle()
    second, third, fourth = taking(gate, 5, 5, 5)
    await settle()
    third.cancel()
    await settle()
    gate.give_back(await first)
    await settle()
    assert second.done()
    assert fourth.done()
    assert gate.held_bytes == 10


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=40), st.integers(1, 20))
def test_never_over_budget_and_all_is_given_back(pieces, budget):
    async def run():
        gate = MemoryGate(budget)

        async def one(weight, leaves):
            held = await gate.take(weight)
            try:
                assert gate.held_bytes <= budget
                await asyncio.sleep(0)
                if leaves:
                    raise asyncio.CancelledError
            finally:
                gate.give_back(held)

        tasks = [asyncio.create_task(one(*piece)) for piece in pieces]
        await asyncio.sleep(0)
        for task, (_, leaves) in zip(tasks, pieces, strict=True):
            if leaves:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert gate.held_bytes == 0
        assert not gate._waiting

    asyncio.run(asyncio.wait_for(run(), 5))


async def test_cancelling_all_frees_all():
    gate = MemoryGate(10)
    tasks = taking(gate, 10, 5, 5)
    await settle()
    for task in tasks:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert done[0] == 10
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in done[1:])
    gate.give_back(10)
    assert gate.held_bytes == 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await gate.take(await gate.take(10))
