"""What the gateway's soak makes of its samples; a run of it: tests/integration/test_bench_gateway.py."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from loadtest import soak_gateway
from loadtest.gateway_bench.processes import MIB
from loadtest.soak_gateway import Sample, Soak


def samples(bytes_a_request, *, noise_mib=0.0, many=200, filled_mib=0.0):
    """5,000 requests between two; the first tenth fills something of that size."""
    dice = random.Random(3)
    return [
        Sample(
            number * 5_000,
            number * 2.0,
            100
            + filled_mib * min(1, number / many * 10)
            + number * 5_000 * bytes_a_request / MIB
            + dice.uniform(-noise_mib, noise_mib),
        )
        for number in range(many + 1)
    ]


@pytest.mark.parametrize("leak", [0, 16, 64, -16])
def test_growth_is_found_through_the_noise_of_an_allocator(leak):
    found = soak_gateway.growth_mib(samples(leak, noise_mib=4), 200_000)
    assert found == pytest.approx(leak * 100_000 / MIB, abs=0.4)


def test_what_fills_while_it_warms_up_is_no_growth():
    assert soak_gateway.growth_mib(samples(0, filled_mib=50), 200_000) == 0
    assert soak_gateway.growth_mib(samples(0, filled_mib=50), 0) >= 0
    assert math.isnan(soak_gateway.growth_mib(samples(0)[:3], 0))


def run(bytes_a_request, **more):
    found = Soak(None, None, None, None, 0, None, samples(bytes_a_request, **more), {"miss": 3}, [0.8, 0.9, 1.0])
    found.requests = found.samples[-1].requests
    return found


def test_one_forgotten_object_a_request_is_a_miss(capsys):
    assert soak_gateway.judge(run(0), 400, 1.0) == 0
    assert "flat: +0.00 MiB per 100,000" in capsys.readouterr().out
    assert soak_gateway.judge(run(16), 400, 1.0) == 1
    printed = capsys.readouterr().out
    assert "GROWS: +1.53 MiB per 100,000" in printed
    assert "+16.0 bytes a request" in printed
    assert "| 1,000,000 | 400 |" in printed
    assert "90% busy" in printed


def test_a_run_that_is_too_short_says_nothing(capsys):
    assert soak_gateway.judge(run(0, many=2), 4, 1.0) == 2
    assert "Too short" in capsys.readouterr().out


class Turns(Soak):
    """A gateway whose core is busy as the engine lets it: 4,000 µs of it for what an engine holds so long."""

    def _ask(self, workload):
        Turns.asked = [*getattr(Turns, "asked", []), round(self.engine_us)]
        return {"failed": Turns.failed, "first_failure": "status 500", "ok": 10}


@pytest.fixture
def turns(monkeypatch):
    soak = Turns(type("P", (), {"pid": 1}), None, None, None, 0, 0.8)
    soak.engine_us, Turns.failed = 20_000.0, 0
    clock, looks, spent = itertools.count(), itertools.count(), [0.0]
    monkeypatch.setattr(soak_gateway.time, "monotonic", lambda: float(next(clock)))

    def cpu_s(_):
        """Asked before a turn of a second and after it."""
        if next(looks) % 2:
            spent[0] += min(1.0, 4_000 / soak.engine_us)
        return spent[0]

    monkeypatch.setattr(soak_gateway.processes, "cpu_s", cpu_s)
    return soak


def test_the_engine_takes_as_long_as_keeps_the_core_so_busy(turns):
    for _ in range(30):
        turns.turn()
    assert turns.busy[-1] == pytest.approx(0.8, abs=0.01)
    assert turns.engine_us == pytest.approx(5_000, rel=0.02)
    assert turns.requests == 30 * 10 * len(soak_gateway.MIX)


def test_a_wrong_reply_ends_it(turns):
    Turns.failed = 2
    with pytest.raises(soak_gateway.BenchError, match="miss: 2 replies were wrong or missing: status 500"):
        turns.turn()
