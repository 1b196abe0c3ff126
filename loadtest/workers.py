"""What it costs that each worker of the gateway counts only its own requests at an engine: a discrete-event model.

Requests come as a Poisson process to workers at random. A worker sends to the engine at which it has the fewest of its
own, the longest unused of equals, as gateway.upstream.endpoints does without affinity. An engine runs so many at once,
the others wait inside it in order; times of service are exponential with a mean of 1, so waits are in times of service.
With one worker and one engine it is M/M/c, whose wait Erlang's formula gives: the tests compare.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class Waits:
    """Waits inside the engines, in mean times of service."""

    waiting_share: float
    """Of the requests that had to wait at all."""
    mean: float
    p99: float


def simulate(
    workers: int, engines: int, slots: int, utilization: float, *, requests: int, seed: int = 1, warm_up: float = 0.25
) -> Waits:
    """Send `requests` at `utilization` of what the engines can do; the first `warm_up` of them do not count."""
    dice = random.Random(seed)  # noqa: S311 - a simulation
    rate = utilization * engines * slots
    mine = [[0] * engines for _ in range(workers)]
    turn = [[0] * engines for _ in range(workers)]
    running = [0] * engines
    queues: list[deque[tuple[float, int]]] = [deque() for _ in range(engines)]
    ends: list[tuple[float, int, int]] = []
    waits: list[float] = []

    def start(engine: int, worker: int, now: float, came: float) -> None:
        running[engine] += 1
        waits.append(now - came)
        heapq.heappush(ends, (now + dice.expovariate(1.0), engine, worker))

    now = 0.0
    for number in range(requests):
        now += dice.expovariate(rate)
        while ends and ends[0][0] <= now:
            at, engine, worker = heapq.heappop(ends)
            running[engine] -= 1
            mine[worker][engine] -= 1
            if queues[engine]:
                came, waiting = queues[engine].popleft()
                start(engine, waiting, at, came)
        worker = dice.randrange(workers)
        counts, turns = mine[worker], turn[worker]
        least = min(counts)
        engine = min((index for index in range(engines) if counts[index] == least), key=turns.__getitem__)
        counts[engine] += 1
        turns[engine] = number + 1
        if running[engine] < slots:
            start(engine, worker, now, now)
        else:
            queues[engine].append((now, worker))
    counted = sorted(waits[int(len(waits) * warm_up) :])
    share = sum(wait > 0 for wait in counted) / len(counted)
    return Waits(share, sum(counted) / len(counted), counted[int(len(counted) * 0.99)])


def erlang_c(servers: int, utilization: float) -> float:
    """Share of requests that wait in M/M/c (Erlang's second formula), by the recursion of his first."""
    load = utilization * servers
    blocked = 1.0
    for count in range(1, servers + 1):
        blocked = load * blocked / (count + load * blocked)
    return blocked / (1 - utilization * (1 - blocked))
