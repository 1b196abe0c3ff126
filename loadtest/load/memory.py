"""Memory of the service while a run goes on: of the gateway by its metrics, of an engine on this machine by /proc."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections import defaultdict
from typing import TYPE_CHECKING, Self

from loadtest.load import processes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Source = Callable[[], dict[str, float]]
    """Bytes by name now; nothing when they cannot be seen."""
    Timed = dict[str, list[tuple[float, float]]]
    """By name: seconds since the beginning, bytes."""

TIMEOUT_S = 10.0
EVERY_S = 2.0
RESIDENT, CACHED = "gateway_resident_memory_bytes", "gateway_cache_bytes"
GATEWAY, WITHOUT_CACHES, ENGINE = "gateway", "gateway without its caches", "engine"


class Memory:
    """Asks the sources now and then while the block runs."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._begun = time.monotonic()
        self.timed: Timed = defaultdict(list)

    def __enter__(self) -> Self:
        if self._sources:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._sources:
            self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(EVERY_S):
            for source in self._sources:
                at_s = time.monotonic() - self._begun
                for name, value in source().items():
                    self.timed[name].append((at_s, value))


def gateway(metrics_url: str) -> Source:
    """Ask a gateway's metrics. Its caches fill up to their bound, which is no leak: so it is also told without them."""

    def look() -> dict[str, float]:
        try:
            with urllib.request.urlopen(metrics_url, timeout=TIMEOUT_S) as response:
                text = response.read().decode()
        except (OSError, ValueError):
            return {}
        resident = total(text, RESIDENT)
        return {GATEWAY: resident, WITHOUT_CACHES: resident - total(text, CACHED)} if resident else {}

    return look


def engine(port: int) -> Source:
    """Add up the processes of the engine that listens on a port of this machine."""
    root = processes.listener(port)

    def look() -> dict[str, float]:
        family = processes.families([root] if root else [], processes.everything())
        return {ENGINE: float(sum(one.resident_bytes for one in family))} if family else {}

    return look


def total(metrics: str, name: str) -> float:
    """Add a metric's samples up, over all labels."""
    lines = (line.rpartition(" ") for line in metrics.splitlines() if line.startswith(name))
    return sum(float(value) for labelled, _, value in lines if labelled.partition("{")[0] == name)
