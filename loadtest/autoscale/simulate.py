"""The event loop: requests, engines and the autoscaler on one clock."""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import TYPE_CHECKING

from loadtest.autoscale.engine import Engine, EngineModel, Request, State
from loadtest.autoscale.policy import SYNC_PERIOD_S, Autoscaler, Policy, Signal
from loadtest.autoscale.workload import Phase, arrivals, lasts_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


@dataclass(frozen=True)
class Setup:
    """Everything but load and policy."""

    engine: EngineModel
    cold_start_s: float = 180.0
    """From the new replica to its first token: node, image, weights, start of vLLM."""
    max_in_flight: int = 32
    """GATEWAY_ENGINE_MAX_IN_FLIGHT, over all gateways."""
    deadline_s: float = 60.0
    """GATEWAY_QUEUE_*_S."""
    max_waiting: int = 1024
    """GATEWAY_QUEUE_MAX, over all gateways."""
    scrape_interval_s: float = 15.0
    cpu_cores: float = 2.0
    """The CPU request of an engine's pod."""


@dataclass(frozen=True)
class Sample:
    """What Prometheus would show at one moment."""

    at_s: float
    ready: int
    replicas: int
    in_flight: int
    queued: int


@dataclass
class Outcome:
    """What became of the requests, and what it cost."""

    arrived: int = 0
    served: int = 0
    refused: int = 0
    """The gateway's queue was full."""
    expired: int = 0
    """The queue's deadline was over."""
    remaining: int = 0
    """Still waiting or running when the clock stopped."""
    waits_s: list[float] = field(default_factory=list)
    """From the arrival until an engine ran it, of those served: the time to the first token, less the prefill."""
    engine_s: float = 0.0
    """Time of all replicas, cold starts included: what is paid for."""
    changes: int = 0
    """Times that the number of replicas was changed."""
    samples: list[Sample] = field(default_factory=list)

    @property
    def refused_share(self) -> float:
        """Of all that arrived, those that got no answer."""
        return (self.refused + self.expired) / max(1, self.arrived)

    def within(self, wait_s: float) -> float:
        """Share of all that arrived, and are not still on their way, whose wait was at most so long."""
        return sum(wait <= wait_s for wait in self.waits_s) / max(1, self.arrived - self.remaining)

    def wait_s(self, share: float) -> float:
        """Nearest-rank percentile of the waits of those served; 0 when nobody was."""
        ordered = sorted(self.waits_s)
        return ordered[math.ceil(share * len(ordered)) - 1] if ordered else 0.0


def simulate(phases: Sequence[Phase], setup: Setup, policy: Policy | None, *, seed: int, replicas: int = 1) -> Outcome:
    """Run the phases, with `replicas` engines up at the beginning. Without a policy their number stays."""
    return _World(phases, setup, policy, seed, replicas).run()


class _World:
    """Mutable state of one run. Events are (time, order, what to do)."""

    def __init__(self, phases: Sequence[Phase], setup: Setup, policy: Policy | None, seed: int, replicas: int) -> None:
        self.setup = setup
        self.outcome = Outcome()
        self._ends_s = lasts_s(phases)
        self._arrivals: Iterator[Request] = (
            Request(arrival.at_s, arrival.work)
            for arrival in arrivals(phases, Random(seed))  # noqa: S311
        )
        self._queue: deque[Request] = deque()
        self._now_s = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._engines = [Engine(setup.engine, 0.0, State.READY) for _ in range(replicas)]
        self._cpu_s: dict[Engine, float] = {}
        self._signals: Mapping[Signal, float] = dict.fromkeys(Signal, 0.0)
        self._at(0.0, self._scrape)
        if policy is not None:
            self._scaler = Autoscaler(policy)
            # HPA and KEDA keep time for themselves: neither waits for a scrape.
            self._at(SYNC_PERIOD_S / 3, self._sync)
            self._at(policy.polling_interval_s * 2 / 3, self._poll)
        self._next_arrival()

    def run(self) -> Outcome:
        while self._events and self._events[0][0] <= self._ends_s:
            self._now_s, _, happen = heapq.heappop(self._events)
            happen()
        self._now_s = self._ends_s
        for engine in self._engines:
            self._pay(engine)
        self.outcome.remaining = len(self._queue) + sum(engine.in_flight for engine in self._engines)
        return self.outcome

    def _at(self, at_s: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at_s, next(self._order), happen))

    # ---- requests ----

    def _next_arrival(self) -> None:
        if (request := next(self._arrivals, None)) is not None:
            self._at(request.arrived_s, lambda: self._arrive(request))

    def _arrive(self, request: Request) -> None:
        self._next_arrival()
        self.outcome.arrived += 1
        if len(self._queue) >= self.setup.max_waiting:
            self.outcome.refused += 1
            return
        self._queue.append(request)
        self._dispatch()
        if self._queue and self._queue[-1] is request:
            self._at(self._now_s + self.setup.deadline_s, self._expire)

    def _expire(self) -> None:
        # All have the same deadline, so those whose time is over stand in front.
        while self._queue and self._now_s >= self._queue[0].arrived_s + self.setup.deadline_s:
            self._queue.popleft()
            self.outcome.expired += 1

    def _dispatch(self) -> None:
        while self._queue:
            free = [e for e in self._engines if e.state is State.READY and e.in_flight < self.setup.max_in_flight]
            if not free:
                return
            engine = min(free, key=lambda e: e.in_flight)
            engine.advance(self._now_s)
            engine.accept(self._queue.popleft())
            self._plan(engine)

    def _plan(self, engine: Engine) -> None:
        version = engine.version
        if (at_s := engine.next_event_s()) < math.inf:
            self._at(at_s, lambda: self._progress(engine, version))

    def _progress(self, engine: Engine, version: int) -> None:
        if engine.version != version:
            return
        engine.advance(self._now_s)
        ended = engine.happen()
        self._plan(engine)
        if ended is not None:
            self.outcome.served += 1
            self.outcome.waits_s.append(ended.started_s - ended.arrived_s)
            if engine.state is State.DRAINING and engine.in_flight == 0:
                self._remove(engine)
            self._dispatch()

    # ---- engines ----

    @property
    def _replicas(self) -> list[Engine]:
        return [engine for engine in self._engines if engine.state is not State.DRAINING]

    def _scale(self, wanted: int) -> None:
        replicas = self._replicas
        self.outcome.changes += wanted != len(replicas)
        for _ in range(wanted - len(replicas)):
            engine = Engine(self.setup.engine, self._now_s)
            self._engines.append(engine)
            self._at(self._now_s + self.setup.cold_start_s, lambda engine=engine: self._ready(engine))  # type: ignore[misc]
        # Those not up yet go first, then the youngest, as a Deployment does.
        leaving = sorted(replicas, key=lambda engine: (engine.state is State.READY, -engine.born_s))
        for engine in leaving[: max(0, len(replicas) - wanted)]:
            engine.state = State.DRAINING
            if engine.in_flight == 0:
                self._remove(engine)

    def _ready(self, engine: Engine) -> None:
        if engine.state is State.STARTING:
            engine.state = State.READY
            engine.advance(self._now_s)
            self._dispatch()

    def _remove(self, engine: Engine) -> None:
        self._engines.remove(engine)
        self._pay(engine)

    def _pay(self, engine: Engine) -> None:
        self.outcome.engine_s += self._now_s - engine.born_s

    # ---- the autoscaler ----

    def _scrape(self) -> None:
        ready = [engine for engine in self._engines if engine.state is State.READY]
        in_flight = len(self._queue) + sum(engine.in_flight for engine in self._engines)
        self._signals = {
            Signal.IN_FLIGHT: float(in_flight),
            Signal.WAITING: float(sum(len(engine.waiting) for engine in ready)),
            Signal.CPU: self._cpu(ready),
        }
        self.outcome.samples.append(Sample(self._now_s, len(ready), len(self._replicas), in_flight, len(self._queue)))
        self._at(self._now_s + self.setup.scrape_interval_s, self._scrape)

    def _cpu(self, ready: Sequence[Engine]) -> float:
        """Add up the CPU since the last scrape: a core of the engine's loop while it has work, and one to prepare."""
        used = 0.0
        for engine in ready:
            engine.advance(self._now_s)
            total_s = engine.busy_s + engine.prepared_s
            used += (total_s - self._cpu_s.get(engine, 0.0)) / self.setup.scrape_interval_s
            self._cpu_s[engine] = total_s
        return used / self.setup.cpu_cores

    def _sync(self) -> None:
        replicas = len(self._replicas)
        self._scale(self._scaler.sync(self._now_s, replicas, self._signals))
        self._at(self._now_s + SYNC_PERIOD_S, self._sync)

    def _poll(self) -> None:
        replicas = len(self._replicas)
        self._scale(self._scaler.poll(self._now_s, replicas, self._signals))
        self._at(self._now_s + self._scaler.policy.polling_interval_s, self._poll)
