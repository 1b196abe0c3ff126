"""How late the event loop is, and whose doing it is: the gateway's own, or the machine's that has no core for it."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.telemetry import LOOP_LAG, LOOP_LAG_MAX, LOOP_OWN_LAG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INTERVAL_S = 0.05
WINDOW_S = 15.0
"""Maxima are those of this window and the one before: Prometheus, which looks every 15 to 30 seconds, sees each."""


class Maximum:
    """The largest value of late; forgotten after one to two windows."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        """Nothing seen yet."""
        self._window_s = window_s
        self._since_s = 0.0
        self._before = self._now = 0.0

    def of(self, value: float, now_s: float) -> float:
        """The largest, with `value` seen at `now_s`."""
        windows = (now_s - self._since_s) // self._window_s
        if windows:
            self._before, self._now, self._since_s = (self._now if windows == 1 else 0.0), 0.0, now_s
        self._now = max(self._now, value)
        return max(self._before, self._now)


async def watch_loop_lag(interval_s: float = INTERVAL_S) -> None:
    """Measure the event loop's lag for ever: sleep, and see how much later than due one wakes.

    Of the lag, the kernel's part is that in which the loop's thread could have run and had no core. It is counted from
    the look before, and so is rather too large. What is left is the gateway's own: work, and waiting for the
    interpreter. The whole, where the kernel does not say.
    """
    clock = asyncio.get_running_loop().time
    whole, own = LOOP_LAG_MAX.labels("whole"), LOOP_LAG_MAX.labels("own")
    longest, longest_own = Maximum(), Maximum()
    with starved_clock() as starved_s:
        while True:
            before_s = starved_s()
            due = clock() + interval_s
            await asyncio.sleep(interval_s)
            now = clock()
            lag_s = max(0.0, now - due)
            own_s = max(0.0, lag_s - (starved_s() - before_s))
            LOOP_LAG.observe(lag_s)
            LOOP_OWN_LAG.observe(own_s)
            whole.set(longest.of(lag_s, now))
            own.set(longest_own.of(own_s, now))


@contextmanager
def starved_clock() -> Iterator[Callable[[], float]]:
    """Seconds that the calling thread has been ready to run without a core so far, by Linux's account."""
    try:
        # Time on a core, time waiting for one (nanoseconds), turns (kernel: Documentation/scheduler/sched-stats.rst).
        with Path(f"/proc/self/task/{threading.get_native_id()}/schedstat").open("rb", buffering=0) as file:
            yield lambda: int(os.pread(file.fileno(), 100, 0).split()[1]) / 1e9
    except FileNotFoundError:
        yield lambda: 0.0
