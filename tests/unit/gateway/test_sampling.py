from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime
from types import SimpleNamespace

from prometheus_client import REGISTRY

from gateway.key_ring import Key, KeyRing
from gateway.sampling import Sampler, cache_sample, keys_sample, process_sample
from gateway.stores import MemoryStore


def value(name, **labels):
    return REGISTRY.get_sample_value(name, labels)


def key(number, expires=None):
    created = datetime(2026, 1, 1, tzinfo=UTC)
    expires = datetime.fromtimestamp(expires, UTC) if expires else None
    return Key(f"k_{number}", f"tenant-{number}", f"{number:064x}", created, expires=expires)


async def test_a_cache_shows_its_size_and_what_it_pushed_out():
    store = MemoryStore(16_000)
    sample = cache_sample("of-a-test", store)
    for number in range(100):
        await store.put(b"%d" % number, b"x" * 500, 60)
    sample()
    assert value("gateway_cache_bytes", cache="of-a-test") == store.bytes_used > 0
    assert value("gateway_cache_entries", cache="of-a-test") == len(store)
    assert value("gateway_cache_evictions_total", cache="of-a-test") == store.evictions > 0
    sample()
    assert value("gateway_cache_evictions_total", cache="of-a-test") == store.evictions


def test_the_next_expiry_is_that_of_a_key_that_is_still_valid():
    now = 1000.0
    keys = SimpleNamespace(ring=KeyRing([key(1), key(2, expires=900), key(3, expires=3000), key(4, expires=2000)]))
    sample = keys_sample(keys, clock=lambda: now)
    sample()
    assert value("gateway_key_next_expiry_timestamp_seconds") == 2000
    now = 2000.0
    sample()
    assert value("gateway_key_next_expiry_timestamp_seconds") == 3000
    keys.ring = KeyRing([key(1)])
    sample()
    assert value("gateway_key_next_expiry_timestamp_seconds") == math.inf


def test_the_process_shows_its_memory_and_time():
    before = value("gateway_cpu_seconds_total")
    sample = process_sample()
    sample()
    sum(number * number for number in range(200_000))
    sample()
    assert value("gateway_resident_memory_bytes") > 1_000_000
    assert value("gateway_cpu_seconds_total") > before


async def test_it_samples_at_once_and_again(monkeypatch):
    monkeypatch.setattr("gateway.sampling.INTERVAL_S", 0)
    sampler, calls = Sampler(), []
    third = asyncio.Event()

    def sample():
        calls.append(1)
        if len(calls) == 3:
            third.set()

    sampler.add(sample)
    task = asyncio.create_task(sampler.run())
    await asyncio.wait_for(third.wait(), 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert value("gateway_workers") == 1
    assert value("gateway_start_time_seconds") > 1e9
