"""What /proc says about processes of this machine: who listens on a port, whose children they are, what they take.

Linux only; elsewhere, and about what it may not read, it says nothing rather than something wrong.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

PROC = Path("/proc")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
LISTENING = "0A"
"""The state in /proc/net/tcp."""
_PARENT, _USER, _CHILDREN_SYSTEM, _RESIDENT = 1, 11, 14, 21
"""Fields of /proc/PID/stat, counted from the state, which follows the name."""


@dataclass(frozen=True)
class Process:
    """A process as it is now."""

    pid: int
    parent: int
    cpu_ticks: int
    """Of its own and of its children that have ended."""
    resident_bytes: int


def everything() -> dict[int, Process]:
    """Look at all processes; one that ends meanwhile is left out."""
    found = {}
    for entry in PROC.glob("[0-9]*") if PROC.is_dir() else ():
        try:
            # The name may hold anything, brackets too.
            rest = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(entry.name)
        ticks = sum(map(int, rest[_USER : _CHILDREN_SYSTEM + 1]))
        found[pid] = Process(pid, int(rest[_PARENT]), ticks, int(rest[_RESIDENT]) * PAGE_BYTES)
    return found


def families(roots: Iterable[int], among: dict[int, Process]) -> list[Process]:
    """Give the roots that are alive and all that descend from them."""
    wanted = set(roots)
    grown = True
    while grown:
        more = {one.pid for one in among.values() if one.parent in wanted} - wanted
        wanted |= more
        grown = bool(more)
    return [among[pid] for pid in wanted if pid in among]


def listener(port: int) -> int | None:
    """Find the process that listens on a port of this machine; of several workers, their parent."""
    inodes = {f"socket:[{inode}]" for inode in _listening(port)}
    holders = {
        int(entry.name)
        for entry in PROC.glob("[0-9]*")
        if inodes and any(_target(handle) in inodes for handle in _listed(entry / "fd"))
    }
    among = everything()
    outermost = [pid for pid in holders if pid in among and among[pid].parent not in holders]
    return min(outermost, default=None)


def command_of(pid: int) -> list[str]:
    """Say how it was started; empty when it is gone."""
    try:
        return (PROC / str(pid) / "cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []


def _listening(port: int) -> list[str]:
    lines = []
    for name in ("tcp", "tcp6"):
        try:
            lines += (PROC / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
    rows = [line.split() for line in lines]
    return [row[9] for row in rows if row[3] == LISTENING and int(row[1].rpartition(":")[2], 16) == port]


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""
