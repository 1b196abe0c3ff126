"""Parts of a core for processes, by the kernel's control groups: several workers beside each other on few cores.

On two cores, two workers cannot be told from one by their speed: the second would share its core with the load
generator. With a part of a core for each there is room for both.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path("/sys/fs/cgroup")
OURS = "bench-gateway"
PERIOD_US = 10_000
"""Of which a process runs its part: short, so that no request waits for long."""


def base() -> Path | None:
    """Where groups with a quota of CPU can be made; None where this process may not, or the kernel has none."""
    for folder in (ROOT / "cpu", ROOT):
        probe = folder / f"{OURS}-probe"
        with contextlib.suppress(OSError):
            probe.mkdir()
            try:
                if any((probe / name).exists() for name in ("cpu.cfs_quota_us", "cpu.max")):
                    return folder
            finally:
                probe.rmdir()
    return None


def workers_of(pid: int) -> list[int]:
    """The processes that answer: the children, or the process itself where it has none."""
    children = psutil.Process(pid).children(recursive=True)
    return [child.pid for child in children] or [pid]


@contextlib.contextmanager
def limited(pids: Sequence[int], share: float, folder: Path) -> Iterator[None]:
    """Let each of the processes have `share` of a core until the block ends; `folder` is `base`'s."""
    groups = []
    try:
        for pid in pids:
            group = folder / f"{OURS}-{pid}"
            group.mkdir()
            groups.append(group)
            quota_us = round(share * PERIOD_US)
            if (group / "cpu.max").exists():
                (group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
            else:
                (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
                (group / "cpu.cfs_quota_us").write_text(str(quota_us))
            (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for group in groups:
            for member in (group / "cgroup.procs").read_text().split():
                with contextlib.suppress(OSError):  # It has ended.
                    (folder / "cgroup.procs").write_text(member)
            group.rmdir()
