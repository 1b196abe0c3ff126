"""One engine: a single thread that prepares pictures, then a batch whose members share the GPU.

vLLM prepares pictures (decode, resize, tokenize) in one thread of its API process and counts a request as waiting only
after that. Then at most `max_running` requests run at once; others wait in order. The more run, the slower each is.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class EngineModel:
    """How fast engines are."""

    rate: Callable[[int], float]
    """Requests a second that an engine completes while so many run, each of work 1."""
    max_running: int
    """--max-num-seqs."""
    preparing_s: float = 0.0
    """Time of the one thread for one request."""


class State(Enum):
    """Of an engine's pod."""

    STARTING = auto()
    READY = auto()
    DRAINING = auto()


@dataclass(slots=True)
class Request:
    """A request on its way."""

    arrived_s: float
    work: float
    started_s: float = math.inf
    """When an engine began to run it."""


@dataclass(slots=True, eq=False)
class Engine:
    """Requests at one engine. Every method needs `advance(now)` before it."""

    model: EngineModel
    born_s: float
    state: State = State.STARTING
    preparing: deque[Request] = field(default_factory=deque)
    waiting: deque[Request] = field(default_factory=deque)
    version: int = 0
    """Counts changes: an event that was planned before the last one is void."""
    busy_s: float = 0.0
    """Time with at least one request running."""
    prepared_s: float = 0.0
    """Time of the thread that prepares."""
    in_flight: int = 0
    """All requests here."""
    _running: list[tuple[float, int, Request]] = field(default_factory=list)
    _turn: int = 0
    _served: float = 0.0
    """Work done for a request that has run since the beginning: the batch's own clock (processor sharing)."""
    _now_s: float = 0.0
    _prepared_at_s: float = math.inf

    def __post_init__(self) -> None:
        """An engine is born when its pod is."""
        self._now_s = self.born_s

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return len(self._running)

    def advance(self, now_s: float) -> None:
        """Let time pass, without any event in it."""
        passed_s = now_s - self._now_s
        if self._running:
            self._served += passed_s * self._share()
            self.busy_s += passed_s
        if self.preparing:
            self.prepared_s += passed_s
        self._now_s = now_s

    def accept(self, request: Request) -> None:
        """Take a request from the gateway."""
        self.version += 1
        self.in_flight += 1
        if self.model.preparing_s == 0:
            self._enqueue(request)
            return
        if not self.preparing:
            self._prepared_at_s = self._now_s + self.model.preparing_s
        self.preparing.append(request)

    def next_event_s(self) -> float:
        """When something happens here by itself: a picture is prepared, or a request ends."""
        ends_s = math.inf
        if self._running:
            ends_s = self._now_s + (self._running[0][0] - self._served) / self._share()
        return max(self._now_s, min(ends_s, self._prepared_at_s))

    def happen(self) -> Request | None:
        """Do what was due now; return the request that ended, if one did."""
        self.version += 1
        if self._prepared_at_s <= self._now_s:
            self._enqueue(self.preparing.popleft())
            self._prepared_at_s = self._now_s + self.model.preparing_s if self.preparing else math.inf
            return None
        _, _, ended = heapq.heappop(self._running)
        self.in_flight -= 1
        if self.waiting:
            self._run(self.waiting.popleft())
        return ended

    def _enqueue(self, request: Request) -> None:
        if self.running < self.model.max_running:
            self._run(request)
        else:
            self.waiting.append(request)

    def _run(self, request: Request) -> None:
        request.started_s = self._now_s
        self._turn += 1
        heapq.heappush(self._running, (self._served + request.work, self._turn, request))

    def _share(self) -> float:
        return self.model.rate(self.running) / self.running
