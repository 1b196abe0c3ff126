"""Which engine a request goes to: the one with the fewest requests in flight, leaving out those that just failed."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from gateway.telemetry import ENGINE_IN_FLIGHT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PAUSE_S = 1.0
"""How long an engine that could not be reached is left alone while others are there."""


@dataclass(slots=True)
class Endpoint:
    """One engine as this worker sees it."""

    url: str
    in_flight: int = 0
    paused_until: float = 0.0
    last_used: int = 0


class Endpoints:
    """The engines in the order of preference for the next request."""

    def __init__(self, urls: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        """`urls` are base URLs; `clock` gives seconds."""
        self._all = [Endpoint(url) for url in urls]
        self._clock = clock
        self._turn = count(1)

    def in_order(self) -> list[Endpoint]:
        """Every engine, best first: not paused, least in flight, longest unused. Paused ones are the last resort."""
        now = self._clock()
        return sorted(self._all, key=lambda e: (e.paused_until > now, e.in_flight, e.last_used))

    def pause(self, endpoint: Endpoint) -> None:
        """Leave the engine alone for a moment: it could not be reached."""
        endpoint.paused_until = self._clock() + PAUSE_S

    @contextmanager
    def lease(self, endpoint: Endpoint) -> Iterator[None]:
        """Count a request at the engine for as long as the block runs."""
        endpoint.last_used = next(self._turn)
        endpoint.in_flight += 1
        gauge = ENGINE_IN_FLIGHT.labels(endpoint.url)
        gauge.inc()
        try:
            yield
        finally:
            endpoint.in_flight -= 1
            gauge.dec()
