from __future__ import annotations

import os
import subprocess
import sys

import pytest
from prometheus_client import REGISTRY

from gateway.exposition import LivingWorkers, alive, registry_for

COUNT = """
from prometheus_client import Counter, Gauge
Gauge("things", "Things.", multiprocess_mode="livesum").set(1)
Counter("turns", "Turns.").inc()
{then}
"""


def worker(folder, then):
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", COUNT.format(then=then)], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def collected(folder):
    return {sample.name: sample.value for metric in LivingWorkers(folder).collect() for sample in metric.samples}


def test_what_a_dead_worker_counted_stays_and_what_it_held_goes(tmp_path):
    with worker(tmp_path, "print(flush=True); input()") as living:
        living.stdout.readline()
        with worker(tmp_path, "") as dead:
            dead.wait(30)
        found = collected(tmp_path)
        living.communicate(b"\n", 30)
    assert (found["things"], found["turns_total"]) == (1, 2)


def test_a_single_worker_serves_its_own_registry(tmp_path):
    assert registry_for(None) is REGISTRY
    assert registry_for(tmp_path) is not REGISTRY


@pytest.mark.parametrize(("fault", "lives"), [(ProcessLookupError, False), (PermissionError, True)])
def test_a_process_of_somebody_else_is_a_process(monkeypatch, fault, lives):
    def kill(*_):
        raise fault

    monkeypatch.setattr(os, "kill", kill)
    assert alive(1) is lives
