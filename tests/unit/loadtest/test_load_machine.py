"""What /proc says about this test's own processes, and what a step makes of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest

from loadtest.load import machine, processes
from loadtest.load.machine import Look, Use

SPIN = "while True: pass"
NESTED = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SPIN!r}])"


def test_use_is_what_happened_between_two_looks():
    before = Look(whole=1000, idle=500, stolen=10, working=400, ours=100)
    after = Look(whole=2000, idle=900, stolen=110, working=800, ours=350)
    use = machine.between(before, after)
    assert use == Use(busy=pytest.approx(0.6), stolen=pytest.approx(0.1), others=pytest.approx(0.15))
    assert use.disturbed
    assert not Use(busy=1.0, stolen=0.04, others=0.09).disturbed


def test_nothing_is_said_where_nobody_could_look(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "PROC", tmp_path / "none")
    assert machine.Watch([1]).look() is None
    assert processes.everything() == {}
    assert processes.listener(80) is None
    look = Look(1, 1, 1, 1, 1)
    assert machine.between(None, look) is machine.between(look, None) is machine.between(look, look) is None


def spun(pid_of_family):
    watch = machine.Watch([pid_of_family])
    before = watch.look()
    time.sleep(0.5)
    after = watch.look()
    return after.ours - before.ours, after.working - before.working


def test_a_family_is_a_process_and_all_that_descend_from_it():
    child = subprocess.Popen([sys.executable, "-c", NESTED], process_group=0)
    try:
        deadline = time.monotonic() + 20
        while len(family := processes.families([child.pid], processes.everything())) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert all(one.resident_bytes > 1e6 for one in family)
        ours, working = spun(child.pid)
        assert 0 < ours <= working + 2
        assert spun(2**22)[0] == 0
    finally:
        os.killpg(child.pid, 9)
        child.wait()


def test_who_listens_on_a_port_is_found():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert processes.listener(port) == os.getpid()
        assert os.getpid() in machine.roots(f"http://127.0.0.1:{port}")
        assert os.getppid() in machine.roots(f"http://localhost:{port}/")
    assert processes.listener(port) is None
    assert machine.roots(f"http://127.0.0.1:{port}") == [os.getppid()]
    assert machine.roots("https://elsewhere.example") == []


def test_a_service_elsewhere_is_not_disturbed_by_what_runs_here():
    look = machine.Watch([]).look()
    assert look.working == look.ours == 0
    assert look.whole > look.idle > 0
