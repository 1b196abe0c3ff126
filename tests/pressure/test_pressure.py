"""What the gateway must show at scale, over sockets, between processes: `make pressure`.

Smaller sizes of the same scenarios run in tests/integration/test_pressure.py.
"""

from __future__ import annotations

import pytest

from tests.support import pressure
from tests.support.pressure import keys_file
from tests.support.processes import engine_process, gateway_processes

pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_1000_identical_requests_at_once_are_one_engine_request(tmp_path, figures, stream):
    async with (
        engine_process(tmp_path, latency_s=3) as engine,
        gateway_processes(tmp_path, 1, engine.url, keys_file(tmp_path)) as (gateway,),
    ):
        figures(await pressure.identical(gateway, engine, 1000, stream=stream))


async def test_2000_mixed_requests_each_get_their_own_picture_s_answer(tmp_path, figures, redis_server):
    async with (
        engine_process(tmp_path, latency_s=0.02) as engine,
        gateway_processes(tmp_path, 2, engine.url, keys_file(tmp_path), redis_url=redis_server.url) as gateways,
    ):
        figures(await pressure.mixed(gateways, engine, 2000, kinds=50))


async def test_100_requests_a_minute_over_three_gateways_are_exactly_100(tmp_path, figures, redis_server):
    async with (
        engine_process(tmp_path) as engine,
        gateway_processes(tmp_path, 3, engine.url, keys_file(tmp_path), redis_url=redis_server.url) as gateways,
    ):
        figures(await pressure.limited(gateways, 300, 100))


async def test_redis_killed_under_load_costs_no_request_and_comes_back(tmp_path, figures, redis_server):
    async with (
        engine_process(tmp_path, latency_s=0.01) as engine,
        gateway_processes(tmp_path, 2, engine.url, keys_file(tmp_path), redis_url=redis_server.url) as gateways,
    ):
        figures(await pressure.without_redis(gateways, redis_server, 100, at_once=20))


async def test_a_burst_of_20_times_the_capacity_leaves_interactive_alone(tmp_path, figures):
    async with (
        engine_process(tmp_path, latency_s=0.25) as engine,
        gateway_processes(tmp_path, 1, engine.url, keys_file(tmp_path), engine_max_in_flight=16) as (gateway,),
    ):
        figures(await pressure.burst(gateway, engine, capacity=16, bulk_s=0.6, asks=100, pause_s=0.1))


async def test_more_than_can_wait_is_answered_or_refused_and_nothing_is_lost(tmp_path, figures):
    async with (
        engine_process(tmp_path, latency_s=0.05) as engine,
        gateway_processes(tmp_path, 1, engine.url, keys_file(tmp_path), engine_max_in_flight=16, queue_max=500) as (
            gateway,
        ),
    ):
        figures(await pressure.refused(gateway, 16, 1500))
