"""The service under load: which model it serves, and how much memory the gateway has."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from loadtest.load import answers, wire

if TYPE_CHECKING:
    from loadtest.load.answers import Way
    from loadtest.load.settings import Run

TIMEOUT_S = 10.0
MEMORY_EVERY_S = 1.0
MEMORY = "gateway_resident_memory_bytes"


class TargetError(Exception):
    """The service cannot be tested; one line says why and what to do."""


@dataclass(frozen=True)
class Target:
    """What answers."""

    model: str
    answers: Way


def ask(run: Run, key: str) -> Target:
    """Ask the service for its model, unless the run names it. Raises TargetError."""
    model = run.model or first_model(run.url, key)
    return Target(model, run.answers or answers.way_for(model))


def first_model(url: str, key: str) -> str:
    """Name the first model that the service lists. Raises TargetError."""
    request = urllib.request.Request(url.rstrip("/") + "/v1/models", headers=wire.headers(key))
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return str(json.load(response)["data"][0]["id"])
    except urllib.error.HTTPError as exc:
        raise TargetError(f"{url} answered {exc.code} to /v1/models: is KEY right?") from exc
    except (OSError, ValueError, LookupError, TypeError) as exc:
        raise TargetError(f"{url} lists no model ({exc}): start it, or give --model") from exc


class Memory:
    """Looks at the gateway's memory once a second while the block runs; no answer is no sample."""

    def __init__(self, metrics_url: str) -> None:
        self._url = metrics_url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._begun = time.monotonic()
        self.timed: list[tuple[float, float]] = []
        """Seconds since the beginning, bytes of all workers of the gateway."""

    def __enter__(self) -> Self:
        if self._url:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._url:
            self._thread.join()

    def samples(self) -> list[float]:
        """Bytes, in order."""
        return [value for _, value in self.timed]

    def _look(self) -> None:
        while not self._stop.wait(MEMORY_EVERY_S):
            try:
                with urllib.request.urlopen(self._url, timeout=TIMEOUT_S) as response:
                    found = total(response.read().decode())
            except (OSError, ValueError):
                continue
            if found:
                self.timed.append((time.monotonic() - self._begun, found))


def total(metrics: str, name: str = MEMORY) -> float:
    """Add a metric's samples up, over all labels."""
    lines = (line.rpartition(" ") for line in metrics.splitlines() if line.startswith(name))
    return sum(float(value) for labelled, _, value in lines if labelled.partition("{")[0] == name)
