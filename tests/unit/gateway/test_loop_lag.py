"""The loop's lag, and whose doing it is."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from gateway.images import let_decoders_yield
from gateway.images.priority import NICENESS
from gateway.loop_lag import Maximum, starved_clock, watch_loop_lag
from gateway.telemetry import LOOP_LAG_MAX
from loadtest.images.photos import small_pictures
from loadtest.images.shrinkers import by_libvips


def test_the_maximum_is_that_of_this_window_and_the_one_before():
    longest = Maximum(window_s=10)
    seen = [longest.of(value, now) for now, value in ((0, 1), (5, 3), (9, 2), (10, 1), (19, 0), (20, 0), (95, 0.5))]
    assert seen == [1, 3, 3, 3, 3, 1, 0.5]


async def test_what_the_loop_does_itself_is_its_own_part():
    task = asyncio.create_task(watch_loop_lag(0.001))
    await asyncio.sleep(0.002)
    time.sleep(0.3)  # noqa: ASYNC251 - what must never happen on the loop
    async with asyncio.timeout(5):
        while LOOP_LAG_MAX.labels("own")._value.get() < 0.1:
            await asyncio.sleep(0.001)
    assert LOOP_LAG_MAX.labels("whole")._value.get() >= 0.29
    task.cancel()


def test_waiting_for_a_core_is_counted():
    """Beside another process on the same core, each waits while the other has it."""
    core = min(os.sched_getaffinity(0))
    waited = []

    def busy() -> None:
        os.sched_setaffinity(0, {core})  # of this thread alone
        with starved_clock() as starved_s:
            before_s = starved_s()
            until = time.thread_time() + 0.2
            while time.thread_time() < until:
                sum(range(20_000))
            waited.append(starved_s() - before_s)

    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    ) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()
            os.sched_setaffinity(other.pid, {core})
            thread = threading.Thread(target=busy)
            thread.start()
            thread.join()
        finally:
            other.kill()
    assert waited[0] > 0.02


def test_decoders_yield_and_nobody_else():
    by_libvips(next(small_pictures()))
    let_decoders_yield()
    nice: dict[bool, set[int]] = {}
    for task in Path("/proc/self/task").iterdir():
        decodes = (task / "comm").read_text(encoding="ascii").startswith("libvips")
        nice.setdefault(decodes, set()).add(os.getpriority(os.PRIO_PROCESS, int(task.name)))
    assert len(nice[True]) == 1
    # Other threads are as they were; whoever runs the tests may have made all of them nice.
    assert nice[True] == {NICENESS} != nice[False] or nice[False] == {NICENESS}
