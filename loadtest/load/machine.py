"""What else the machine did during a step: CPU that a hypervisor took away, and that of processes not ours.

A capacity that was found while something else ran is that of what was left. So a step that misses its objectives
meanwhile is asked again, and the report says how much it was.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from loadtest.load import processes

if TYPE_CHECKING:
    from collections.abc import Sequence

STOLEN, OTHERS = 0.05, 0.1
"""More than that of the machine's CPU time disturbs a step."""
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
STARTER = "serving"
"""The module that starts a stack: its children are the service, whichever of them listens."""


@dataclass(frozen=True)
class Use:
    """Shares of all cores' time."""

    busy: float
    stolen: float
    others: float
    """Of processes that are neither generators nor the service on this machine."""

    @property
    def disturbed(self) -> bool:
        """Whether a miss may be the machine's."""
        return self.stolen > STOLEN or self.others > OTHERS


@dataclass(frozen=True)
class Look:
    """Ticks since the machine's start; see `between`."""

    whole: int
    idle: int
    stolen: int
    working: int
    """User and system time of all processes."""
    ours: int


class Watch:
    """Looks at the machine; `roots` are processes whose families belong to the run."""

    def __init__(self, roots: Sequence[int]) -> None:
        self._roots = roots

    def look(self) -> Look | None:
        """Look now; None where there is no /proc."""
        try:
            lines = (processes.PROC / "stat").read_text().splitlines()
        except OSError:
            return None
        user, nice, system, idle, iowait, irq, softirq, steal = map(int, lines[0].split()[1:9])
        # Without a service here, what others do matters only when the generator is late, which is seen by itself.
        family = processes.families(self._roots, processes.everything()) if self._roots else []
        return Look(
            whole=user + nice + system + idle + iowait + irq + softirq + steal,
            idle=idle + iowait,
            stolen=steal,
            working=user + nice + system if self._roots else 0,
            ours=sum(one.cpu_ticks for one in family),
        )


def between(before: Look | None, after: Look | None) -> Use | None:
    """Say what the machine's time went into between two looks; None where nobody could look."""
    if before is None or after is None or after.whole <= before.whole:
        return None
    whole = after.whole - before.whole
    others = (after.working - before.working) - (after.ours - before.ours)
    return Use(
        busy=1 - (after.idle - before.idle) / whole,
        stolen=(after.stolen - before.stolen) / whole,
        others=max(0, others) / whole,
    )


def roots(url: str) -> list[int]:
    """Find the processes of a run whose service is on this machine: the command that started this one, and the service.

    None for a service elsewhere.
    """
    parts = urlsplit(url)
    if parts.hostname not in LOOPBACK:
        return []
    service = processes.listener(parts.port or (443 if parts.scheme == "https" else 80))
    if service is None:
        return [os.getppid()]
    # Its starter, where we started it, is of the command's family anyway; of a `make demo` elsewhere it is the root.
    parent = processes.everything()[service].parent
    return [os.getppid(), service] + ([parent] if STARTER in processes.command_of(parent) else [])
