from __future__ import annotations

import errno
import os
import re
import socket

import psutil
import pytest

from serving.demo import launch_preflight
from serving.demo.launch_plan import Ports
from tests.support.ports import free_ports

MEMINFO = "MemTotal:  8000000 kB\nMemAvailable:  4000000 kB\n"


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_busy_port_is_told_with_its_owner_and_the_way_on(listener):
    (fault,) = launch_preflight.port_faults(Ports(listener, *free_ports(2)))
    assert re.fullmatch(
        rf"port {listener} is in use by .*\(pid {os.getpid()}\): stop it, or run `make demo PORT=\d+`", fault
    )


def test_the_port_offered_instead_is_neither_busy_nor_wanted(listener):
    offered = launch_preflight.free_port(listener, {listener + 1})
    assert listener + 1 < offered < listener + 100
    assert not launch_preflight.busy(offered)


def test_free_ports_are_no_fault():
    assert launch_preflight.port_faults(Ports(*free_ports(3))) == []


def test_ports_must_differ():
    (port,) = free_ports(1)
    assert launch_preflight.port_faults(Ports(port, port, *free_ports(1)))[-1].startswith(
        "the demo needs three different"
    )


def test_a_port_without_a_visible_owner_is_told_without_one():
    assert launch_preflight.owner(free_ports(1)[0]) is None
    assert launch_preflight.port_fault("PORT", 8080, None, 8081) == (
        "port 8080 is in use: stop it, or run `make demo PORT=8081`"
    )


def test_an_owner_that_hides_its_command_is_told_by_its_pid(listener, monkeypatch):
    def hidden(_):
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil.Process, "cmdline", hidden)
    assert launch_preflight.owner(listener) == f"pid {os.getpid()}"


def test_an_error_that_is_not_about_the_port_is_not_taken_for_one(monkeypatch):
    def fails(*_):
        raise OSError(errno.EADDRNOTAVAIL, "no loopback")

    monkeypatch.setattr(launch_preflight.socket.socket, "bind", fails)
    with pytest.raises(OSError, match="no loopback"):
        launch_preflight.busy(1)


@pytest.mark.parametrize(
    ("cgroup", "kib"),
    [
        ({}, 4_000_000),
        ({"memory.max": "max\n", "memory.current": "1\n"}, 4_000_000),
        ({"memory.max": str(2_000_000 * 1024), "memory.current": str(500_000 * 1024)}, 1_500_000),
        ({"memory.max": str(64_000_000 * 1024), "memory.current": "0"}, 4_000_000),
    ],
)
def test_a_containers_limit_counts_where_it_is_tighter(cgroup, kib):
    assert launch_preflight.available_bytes(MEMINFO, cgroup) == kib * 1024


def test_too_little_memory_is_told_with_both_figures():
    (fault,) = launch_preflight.memory_faults(2 * 2**30, needed=int(3.5 * 2**30))
    assert "needs 3.5 GiB of free memory and 2.0 GiB is available" in fault
    assert launch_preflight.memory_faults(4 * 2**30) == []


def test_the_whole_machine_is_checked(tmp_path, listener):
    (tmp_path / "meminfo").write_text("MemAvailable: 1000 kB\n")
    (tmp_path / "cpuinfo").write_text("flags : avx2\n")
    (tmp_path / "memory.max").write_text("max\n")
    faults = launch_preflight.faults(Ports(listener, *free_ports(2)), tmp_path, tmp_path)
    assert any("is in use" in fault for fault in faults)
    assert any("GiB of free memory" in fault for fault in faults)
