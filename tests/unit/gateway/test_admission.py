from __future__ import annotations

import asyncio

import pytest

from gateway.admission import CLASS_DELAY_S, SHARE_S, Admission
from gateway.errors import QueueFull, QueueTimeout

LONG = {"interactive": 60.0, "default": 60.0, "bulk": 60.0}


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def admission(capacity=1, **more):
    return Admission(lambda: capacity, **{"max_waiting": 100, "deadlines_s": LONG, "clock": Clock()} | more)


async def settled(*tasks):
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)
    return [task.done() for task in tasks]


class Line:
    """Requests in the order in which they get their slot; each holds it until told."""

    def __init__(self, gate):
        self.gate, self.order, self.slots, self.tasks = gate, [], [], []

    async def join(self, name, priority="default", tenant=None):
        async def run():
            slot = await self.gate.enter(tenant or name, priority)
            self.order.append(name)
            self.slots.append(slot)

        task = asyncio.create_task(run())
        self.tasks.append(task)
        await settled()
        return task

    async def serve_all(self):
        while self.slots:
            self.slots.pop(0).release()
            await settled()


async def test_free_slots_are_given_at_once_and_never_more_than_there_are():
    gate = admission(capacity=2)
    line = Line(gate)
    for name in "abc":
        await line.join(name)
    assert line.order == ["a", "b"]
    assert gate.waiting == 1
    line.slots[0].release()
    await settled()
    assert line.order == ["a", "b", "c"]


async def test_a_slot_given_back_twice_counts_once():
    gate = admission()
    slot = await gate.enter("t", "default")
    slot.release()
    slot.release()
    line = Line(gate)
    await line.join("a")
    await line.join("b")
    assert line.order == ["a"]


async def test_interactive_passes_default_and_default_passes_bulk():
    line = Line(admission())
    await line.join("first")
    for name, priority in [("bulk", "bulk"), ("default", "default"), ("interactive", "interactive")]:
        await line.join(name, priority)
    await line.serve_all()
    assert line.order == ["first", "interactive", "default", "bulk"]


async def test_bulk_is_not_passed_by_what_arrives_after_its_delay():
    clock = Clock()
    line = Line(admission(clock=clock))
    await line.join("first")
    await line.join("bulk", "bulk")
    clock.now += CLASS_DELAY_S["bulk"] - 1
    await line.join("in time", "interactive")
    clock.now += 2
    await line.join("too late", "interactive")
    await line.serve_all()
    assert line.order == ["first", "in time", "bulk", "too late"]


async def test_a_tenant_with_many_requests_does_not_stand_in_the_way_of_one_with_one():
    line = Line(admission())
    await line.join("first")
    for i in range(20):
        await line.join(f"many{i}", tenant="many")
    await line.join("single", tenant="single")
    await line.serve_all()
    assert line.order.index("single") <= 2
    assert line.order[-1] == "many19"


async def test_equals_are_served_in_their_order():
    line = Line(admission())
    for name in "abcd":
        await line.join(name)
    await line.serve_all()
    assert line.order == list("abcd")


async def test_a_full_queue_refuses_at_once_and_bulk_first():
    gate = admission(max_waiting=4)
    line = Line(gate)
    await line.join("first")
    for i in range(2):
        await line.join(f"b{i}", "bulk")
    with pytest.raises(QueueFull) as caught:
        await gate.enter("t", "bulk")
    assert caught.value.retry_after_s >= 1
    for i in range(2):
        await line.join(f"i{i}", "interactive")
    with pytest.raises(QueueFull):
        await gate.enter("t", "interactive")


async def test_a_wait_ends_with_its_class_s_deadline():
    gate = admission(deadlines_s=LONG | {"bulk": 0.01})
    slot = await gate.enter("t", "default")
    with pytest.raises(QueueTimeout) as caught:
        await gate.enter("t", "bulk")
    assert caught.value.status == 503
    assert gate.waiting == 0
    slot.release()
    await gate.enter("t", "default")


async def test_a_client_that_leaves_frees_its_place():
    gate = admission()
    line = Line(gate)
    await line.join("first")
    leaver = await line.join("leaver")
    await line.join("next")
    leaver.cancel()
    await settled()
    assert gate.waiting == 1
    await line.serve_all()
    assert line.order == ["first", "next"]


async def test_a_client_that_leaves_in_the_moment_of_its_turn_loses_no_slot():
    gate = admission()
    line = Line(gate)
    await line.join("first")
    leaver = await line.join("leaver")
    line.slots.pop().release()  # grants the leaver's slot; it has not run yet
    leaver.cancel()
    await settled()
    await line.join("next")
    assert line.order == ["first", "next"]


async def test_slots_that_appear_are_used_when_told():
    room = [0]
    gate = Admission(lambda: room[0], max_waiting=10, deadlines_s=LONG)
    line = Line(gate)
    await line.join("a")
    await line.join("b")
    assert line.order == []
    room[0] = 2
    gate.wake()
    await settled()
    assert line.order == ["a", "b"]


async def test_no_tenant_is_remembered_after_it_has_gone():
    gate = admission()
    line = Line(gate)
    for i in range(50):
        await line.join(f"t{i}")
    await line.serve_all()
    assert not gate._by_tenant
    assert not any(gate._queues.values())
    assert SHARE_S > 0


@pytest.mark.parametrize("priority", list(LONG))
async def test_each_class_has_a_deadline_of_its_own(priority):
    gate = admission(deadlines_s=LONG | {priority: 0.01})
    await gate.enter("t", "default")
    others = [asyncio.create_task(gate.enter("t", other)) for other in LONG if other != priority]
    with pytest.raises(QueueTimeout, match=r"within 0\.01 s"):
        await gate.enter("t", priority)
    assert await settled(*others) == [False, False]
    assert gate.waiting == 2
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def test_tenants_get_equal_shares_however_many_each_has_waiting():
    line = Line(admission())
    await line.join("first")
    for number, tenants in enumerate(["a"] * 12 + ["b"] * 6 + ["c"] * 3):
        await line.join(f"{tenants}{number}", tenant=tenants)
    await line.serve_all()
    served = [name[0] for name in line.order[1:]]
    assert [served[:9].count(tenant) for tenant in "abc"] == [3, 3, 3]
    assert len(served) == 21


async def test_bulk_leaves_places_free_for_those_who_come_later():
    line = Line(gate := admission(capacity=8))
    for i in range(10):
        await line.join(f"bulk{i}", "bulk")
    assert (len(line.order), gate.waiting) == (6, 4)
    await line.join("interactive", "interactive")
    await line.join("default")
    assert line.order[6:] == ["interactive", "default"]
    await line.join("later", "interactive")
    assert gate.waiting == 5
    line.slots.pop(6).release()  # the interactive one's: bulk has all that it may have
    await settled()
    assert line.order[8:] == ["later"]
    line.slots.pop(0).release()
    await settled()
    assert line.order[9:] == ["bulk6"]
    await line.serve_all()
    assert (len(line.order), gate.waiting, gate._busy, gate._busy_with_bulk) == (13, 0, 0, 0)


async def test_bulk_alone_still_gets_the_only_place():
    line = Line(admission(capacity=1))
    await line.join("bulk0", "bulk")
    await line.join("bulk1", "bulk")
    assert line.order == ["bulk0"]
    await line.serve_all()
    assert line.order == ["bulk0", "bulk1"]


async def test_bulk_that_leaves_in_the_moment_of_its_turn_gives_back_what_bulk_may_have():
    line = Line(gate := admission(capacity=1))
    await line.join("first")
    leaver = await line.join("leaver", "bulk")
    line.slots.pop().release()
    leaver.cancel()
    await settled()
    assert (gate._busy, gate._busy_with_bulk) == (0, 0)
    await line.join("bulk", "bulk")
    assert line.order == ["first", "bulk"]
