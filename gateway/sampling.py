"""Values that nobody counts as they change are looked at once a second: sizes, memory, the next expiry of a key.

Not with `Gauge.set_function`: it gives nothing where several workers count in shared files.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.metric_kinds import publish
from gateway.telemetry import (
    CACHE_BYTES,
    CACHE_ENTRIES,
    CACHE_EVICTIONS,
    CPU_SECONDS,
    KEY_NEXT_EXPIRY,
    RESIDENT_BYTES,
    STARTED,
    TENANT,
    WORKERS,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.keys import KeyFile, KeyRing
    from gateway.stores import MemoryStore

INTERVAL_S = 1.0
"""Far below any scrape interval."""
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
STATM = Path("/proc/self/statm")


class Sampler:
    """Calls what was added, once at the start and then every second."""

    def __init__(self) -> None:
        """Knows the process itself."""
        STARTED.set(time.time())
        WORKERS.set(1)
        self._samples: list[Callable[[], None]] = [process_sample()]

    def add(self, sample: Callable[[], None]) -> None:
        """Have `sample` called from now on; it must be quick and must not raise."""
        self._samples.append(sample)

    async def run(self) -> None:
        """For ever."""
        while True:
            publish()  # First: who sees a cache full has to see the requests that filled it.
            for sample in self._samples:
                sample()
            await asyncio.sleep(INTERVAL_S)


def process_sample() -> Callable[[], None]:
    """Memory and processor time of this process; no memory where there is no /proc."""
    counted_s = 0.0

    def sample() -> None:
        nonlocal counted_s
        used_s = time.process_time()
        CPU_SECONDS.inc(used_s - counted_s)
        counted_s = used_s
        if STATM.exists():
            RESIDENT_BYTES.set(int(STATM.read_text(encoding="ascii").split()[1]) * PAGE_BYTES)

    return sample


def cache_sample(name: str, store: MemoryStore) -> Callable[[], None]:
    """Size and evictions of a cache in memory."""
    size, entries, evictions = CACHE_BYTES.labels(name), CACHE_ENTRIES.labels(name), CACHE_EVICTIONS.labels(name)
    counted = 0

    def sample() -> None:
        nonlocal counted
        size.set(store.bytes_used)
        entries.set(len(store))
        evictions.inc(store.evictions - counted)
        counted = store.evictions

    return sample


def keys_sample(keys: KeyFile, clock: Callable[[], float] = time.time) -> Callable[[], None]:
    """The next expiry of a valid key, and names for the tenants that are new in the file."""
    seen: KeyRing | None = None
    expiries: list[float] = []

    def sample() -> None:
        nonlocal seen, expiries
        if (ring := keys.ring) is not seen:  # There may be 50,000 keys: read once for each change of the file.
            seen = ring
            expiries = sorted(key.expires.timestamp() for key in ring.keys if key.expires)
            TENANT.offer(key.tenant for key in ring.keys)
        after = bisect_right(expiries, clock())
        KEY_NEXT_EXPIRY.set(expiries[after] if after < len(expiries) else math.inf)

    return sample
