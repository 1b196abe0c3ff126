"""Ports for processes that have to be told theirs before they listen."""

from __future__ import annotations

import random
import socket
from pathlib import Path

LOWEST = 10_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, each given once in this process.

    Not the kernel's choice (port 0): that comes from the range of outgoing connections, of which the next one, anybody's,
    may take the port before the process listens. Below that range only listeners are in the way, and two runs of tests
    at once hardly ever draw the same one of 20,000 in the same moment.
    """
    return [free_port() for _ in range(count)]


def free_port(neighbours: int = 0) -> int:
    """One of them, with so many free ones behind it."""
    highest = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32_768
    while True:
        first = random.SystemRandom().randrange(LOWEST, highest - neighbours)  # tests seed the other generator
        wanted = range(first, first + neighbours + 1)
        if _given.isdisjoint(wanted) and all(map(_is_free, wanted)):
            _given.update(wanted)
            return first


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
