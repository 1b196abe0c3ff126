"""What the gateway must show under pressure, in a size that takes seconds; `make pressure` runs it in full."""

from __future__ import annotations

from tests.support import pressure
from tests.support.pressure import keys_file
from tests.support.processes import engine_process, gateway_processes


async def test_200_identical_requests_at_once_are_one_engine_request(tmp_path):
    async with (
        engine_process(tmp_path, latency_s=1) as engine,
        gateway_processes(tmp_path, 1, engine.url, keys_file(tmp_path)) as (gateway,),
    ):
        for stream in (False, True):
            await pressure.identical(gateway, engine, 200, stream=stream)


async def test_three_replicas_mix_nothing_up_and_hold_a_limit_before_and_after_redis_is_lost(tmp_path, redis_server):
    async with (
        engine_process(tmp_path, latency_s=0.01) as engine,
        gateway_processes(tmp_path, 3, engine.url, keys_file(tmp_path, 20), redis_url=redis_server.url) as gateways,
    ):
        await pressure.mixed(gateways, engine, 300, kinds=20)
        await pressure.limited(gateways, 60, 20)
        await pressure.without_redis(gateways, redis_server, 20, at_once=4)


async def test_a_burst_leaves_interactive_alone_and_what_cannot_wait_is_told(tmp_path):
    async with (
        engine_process(tmp_path, latency_s=0.2) as engine,
        gateway_processes(tmp_path, 1, engine.url, keys_file(tmp_path), engine_max_in_flight=8, queue_max=320) as (
            gateway,
        ),
    ):
        await pressure.burst(gateway, engine, capacity=8, bulk_s=0.4, asks=20, pause_s=0.15)
        await pressure.refused(gateway, 8, 400)
