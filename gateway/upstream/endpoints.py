"""Which engine a request goes to: the one with the fewest requests in flight, leaving out those that are not well."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

from gateway.telemetry import ENGINE_EJECTIONS, ENGINE_IN_FLIGHT, ENGINE_UP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PAUSE_S = 1.0
"""How long an engine that could not be reached is left alone while others are there."""


class Ejected(Exception):
    """The engine was taken out while a request waited for its answer: ask another."""


class Endpoint:
    """One engine as this worker sees it."""

    def __init__(self, url: str) -> None:
        """Taken to be well until shown otherwise."""
        self.url = url
        self.in_flight = 0
        self.paused_until = 0.0
        self.last_used = 0
        self.answers = 0
        """Answers, or pieces of one, that have come: a growing number is a living engine."""
        self.ejected = False
        self.proven = False
        """It has generated a token since it was last out, or since the start."""
        self._awaiting: set[asyncio.Task[object]] = set()
        ENGINE_UP.labels(url).set(1)
        ENGINE_EJECTIONS.labels(url)  # There from the start, so that the first one is an increase.

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """The block waits for the first byte of an answer; raises Ejected in it when the engine is taken out."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - an answer is always awaited in a task
        self._awaiting.add(task)
        try:
            yield
        except asyncio.CancelledError:
            # Not in the set any more: it was `eject` that cancelled, and nobody else did.
            if task not in self._awaiting and task.uncancel() == 0:
                raise Ejected from None
            raise
        finally:
            self._awaiting.discard(task)

    def eject(self) -> None:
        """Take it out. Whatever has not got a first byte yet goes elsewhere; what has goes on."""
        if not self.ejected:
            ENGINE_EJECTIONS.labels(self.url).inc()
        self.ejected, self.proven = True, False
        ENGINE_UP.labels(self.url).set(0)
        while self._awaiting:
            self._awaiting.pop().cancel()

    def prove(self) -> None:
        """It has generated a token."""
        self.ejected, self.proven = False, True
        self.paused_until = 0.0
        ENGINE_UP.labels(self.url).set(1)


class Endpoints:
    """The engines in the order of preference for the next request."""

    def __init__(self, urls: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        """`urls` are base URLs; `clock` gives seconds."""
        self.all = [Endpoint(url) for url in urls]
        self._clock = clock
        self._turn = count(1)

    def in_order(self) -> list[Endpoint]:
        """The engines that are not out, best first: least in flight, longest unused; paused ones last."""
        now = self._clock()
        there = [endpoint for endpoint in self.all if not endpoint.ejected]
        return sorted(there, key=lambda e: (e.paused_until > now, e.in_flight, e.last_used))

    def well(self) -> int:
        """How many have not been taken out."""
        return sum(not endpoint.ejected for endpoint in self.all)

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
