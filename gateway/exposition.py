"""The registry behind `/metrics`: this process's own, or the sum over worker processes."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from prometheus_client import Metric

_LIVE = re.compile(r"gauge_live\w+_(\d+)\.db")


class LivingWorkers:
    """Adds up what the workers count in `folder`; the gauges of a worker that died no longer count."""

    def __init__(self, folder: Path) -> None:
        """`folder` is PROMETHEUS_MULTIPROC_DIR."""
        self._folder = folder
        self._collector = MultiProcessCollector(None, str(folder))  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client's Collector."""
        for path in self._folder.iterdir():
            if (match := _LIVE.fullmatch(path.name)) and not alive(int(match[1])):
                mark_process_dead(int(match[1]), str(self._folder))  # type: ignore[no-untyped-call]
        collected: Iterable[Metric] = self._collector.collect()  # type: ignore[no-untyped-call]
        return collected


def alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def registry_for(folder: Path | None) -> CollectorRegistry:
    """What to serve; `folder` is where several workers count, None for a single one."""
    if folder is None:
        return REGISTRY
    registry = CollectorRegistry()
    registry.register(LivingWorkers(folder))
    return registry
