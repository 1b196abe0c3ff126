"""What must be true before the demo starts: free ports, enough memory. Each fault is one line with the next step."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from serving.engine import preflight

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serving.demo.launch_plan import Ports

GIB = 2**30
NEEDED_BYTES = 3 * GIB
"""Measured: 2.2 GiB resident over all processes, at the peak too; the rest is room for the system."""

HOST = "127.0.0.1"


def busy(port: int) -> bool:
    """Say whether somebody listens on the loopback port already."""
    with socket.socket() as probe:
        # As servers do: a port in TIME_WAIT after an earlier demo is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as exc:
            if exc.errno in {errno.EADDRINUSE, errno.EACCES}:
                return True
            raise
    return False


def owner(port: int) -> str | None:
    """Describe who listens on a port, when the system lets us see it: `python3 -m http.server (pid 42)`."""
    for connection in psutil.net_connections(kind="tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            try:
                words = psutil.Process(connection.pid).cmdline()
            except psutil.Error:
                return f"pid {connection.pid}"
            return f"{' '.join(words)[:80]} (pid {connection.pid})"
    return None


def port_fault(variable: str, port: int, taken_by: str | None, instead: int) -> str:
    """Say that a port is taken, by whom, and the two ways on."""
    who = f" by {taken_by}" if taken_by else ""
    return f"port {port} is in use{who}: stop it, or run `make demo {variable}={instead}`"


def free_port(first: int, reserved: set[int]) -> int:
    """Return the first port from `first` on that nobody has or wants; `first` itself when there is none near."""
    return next(
        (port for port in range(first, min(first + 100, 65536)) if port not in reserved and not busy(port)), first
    )


def port_faults(ports: Ports) -> list[str]:
    """Check the demo's three ports: taken by others, or by each other."""
    wanted = {"PORT": ports.gateway, "METRICS_PORT": ports.metrics, "ENGINE_PORT": ports.engine}
    found = [
        port_fault(name, port, owner(port), free_port(port + 1, set(wanted.values())))
        for name, port in wanted.items()
        if busy(port)
    ]
    if len(set(wanted.values())) < len(wanted):
        named = ", ".join(f"{name}={port}" for name, port in wanted.items())
        found.append(f"the demo needs three different ports, not {named}")
    return found


def available_bytes(meminfo: str, cgroup: Mapping[str, str]) -> int:
    """Return the memory that can still be had: the system's, or what the container's limit leaves of it.

    `meminfo` is /proc/meminfo; `cgroup` holds the text of `memory.max` and `memory.current` (cgroup v2), where present.
    """
    kib = next(int(line.split()[1]) for line in meminfo.splitlines() if line.startswith("MemAvailable:"))
    limit = cgroup.get("memory.max", "max").strip()
    if limit == "max":
        return kib * 1024
    return min(kib * 1024, int(limit) - int(cgroup.get("memory.current", "0")))


def memory_faults(available: int, needed: int = NEEDED_BYTES) -> list[str]:
    """Say that memory is short, with both figures."""
    if available >= needed:
        return []
    figures = f"the demo needs {needed / GIB:.1f} GiB of free memory and {available / GIB:.1f} GiB is available"
    return [f"{figures}: close other programs or raise the container's memory limit"]


def faults(ports: Ports, proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> list[str]:
    """Check the machine; one line for each fault."""
    limits = {
        name: (cgroup / name).read_text() for name in ("memory.max", "memory.current") if (cgroup / name).is_file()
    }
    available = available_bytes((proc / "meminfo").read_text(), limits)
    return [*port_faults(ports), *memory_faults(available), *preflight.faults(proc / "cpuinfo")]
