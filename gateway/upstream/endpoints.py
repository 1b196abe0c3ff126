"""The engines as this worker sees them, and which of them a request goes to."""

from __future__ import annotations

import asyncio
import hashlib
import time
from heapq import nlargest
from itertools import count
from typing import TYPE_CHECKING, Self

from gateway.metric_kinds import Level
from gateway.telemetry import ENGINE_EJECTIONS, ENGINE_IN_FLIGHT, ENGINE_UP, forget_engine
from gateway.upstream.affinity import load_bound, salt_of, score
from gateway.upstream.pictures import SeenPictures

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from gateway.upstream.client import EngineResponse

MANY = 8
"""From so many engines on, a key's order is remembered; below, hashing is as quick."""
FIRST_CHOICES = 4
"""Of a key's order that are remembered; whoever needs a later one hashes again."""
ORDERS_KEPT = 4096
"""Keys, some 0.3 KB each: the pictures and conversations that came last."""
LONG_BYTES = 64
"""A longer key, the beginning of a conversation, is remembered by its hash."""
PAUSE_S = 1.0
"""How long an engine that could not be reached is left alone while others are there."""


class Ejected(Exception):
    """The engine was taken out while a request waited for its answer: ask another."""


class Endpoint:
    """One engine as this worker sees it."""

    def __init__(
        self, url: str, *, host: str | None = None, well: bool = True, out: set[Endpoint] | None = None
    ) -> None:
        """`host` is the Host header when `url` is one of a name's addresses; `well` until shown otherwise.

        `out` is where it stands while it is ejected.
        """
        self.url = url
        self._out = set() if out is None else out
        self.headers = {"host": host} if host else {}
        self.salt = salt_of(url)
        self.in_flight = 0
        self.paused_until = 0.0
        self.last_used = 0
        self.answers = 0
        """Answers, or pieces of one, that have come: a growing number is a living engine."""
        self.ejected = not well
        """It gets no new requests."""
        self.proven = False
        """It has generated a token since it was last out, or since the start."""
        self.leaving = False
        """Its address is gone: it finishes what it has, and is forgotten."""
        self.seen = SeenPictures()
        self.awaiting: set[asyncio.Task[object]] = set()
        """Who may be sent elsewhere."""
        self.stand()
        self._level = Level(ENGINE_IN_FLIGHT.labels(url))
        ENGINE_UP.labels(url).set(int(well))
        ENGINE_EJECTIONS.labels(url)  # There from the start, so that the first one is an increase.

    def awaited(self) -> Awaited:
        """A `with` block that waits for an answer of which nothing has been passed on; Ejected when the engine is out.

        To be used once, in a task.
        """
        return Awaited(self.awaiting)

    def count(self, by: int) -> None:
        """So many more requests are at it."""
        self.in_flight += by
        self._level.value = self.in_flight

    def stand(self) -> None:
        """Stand among those that are out, or not; one that is leaving is no matter of theirs."""
        if self.ejected and not self.leaving:
            self._out.add(self)
        else:
            self._out.discard(self)

    def close(self) -> None:
        """Send it nothing new until it generates again. What it has been sent goes on: it may be draining."""
        if not self.ejected:
            ENGINE_EJECTIONS.labels(self.url).inc()
        self.ejected, self.proven = True, False
        self.seen.forget()
        self.stand()
        ENGINE_UP.labels(self.url).set(0)

    def eject(self) -> None:
        """Take it out: it hangs. Whatever has not got a first token yet goes elsewhere; what has goes on."""
        self.close()
        while self.awaiting:
            self.awaiting.pop().cancel()

    def prove(self) -> None:
        """It has generated a token."""
        self.ejected, self.proven = False, True
        self.stand()
        self.paused_until = 0.0
        ENGINE_UP.labels(self.url).set(1)


class Awaited:
    """See Endpoint.awaited."""

    __slots__ = ("_awaiting", "_task")

    def __init__(self, awaiting: set[asyncio.Task[object]]) -> None:
        """`awaiting` is where the engine finds whom to send elsewhere."""
        self._awaiting = awaiting

    def __enter__(self) -> asyncio.Task[object]:
        """The task that waits."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - an answer is always awaited in a task
        self._task = task
        self._awaiting.add(task)
        return task

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._task in self._awaiting:
            self._awaiting.remove(self._task)
        elif kind is asyncio.CancelledError and self._task.uncancel() == 0:
            # Not in the set any more: it was `eject` that cancelled, and nobody else did.
            raise Ejected from None


class Lease:
    """A request at an engine: its place in the count and, once there is one, its response."""

    __slots__ = ("_endpoints", "endpoint", "response")

    def __init__(self, endpoints: Endpoints, endpoint: Endpoint) -> None:
        """Counted from now on."""
        self.response: EngineResponse | None = None
        self._endpoints: Endpoints | None = endpoints
        self.endpoint = endpoint
        endpoint.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give both back; a second time changes nothing."""
        endpoints, self._endpoints = self._endpoints, None
        if endpoints is not None:
            if self.response is not None:
                self.response.close()
            endpoints.end(self.endpoint)


class Endpoints:
    """Chooses the engine for each request."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        affinity: bool = True,
        load_factor: float = 1.25,
        max_in_flight: int = 64,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`urls` are base URLs that stay; `clock` gives seconds.

        With `affinity` no engine gets more than `load_factor` times the mean load because of it. `max_in_flight` is
        what one engine gets at most while others are below it.
        """
        self._out: set[Endpoint] = set()
        """Of `all`, those that are ejected: mostly none, so that nobody need look at each for every request."""
        self._paused_until = 0.0
        """When the last pause of any of them ends."""
        self.all = [Endpoint(url, out=self._out) for url in urls]
        self._leaving: dict[str, Endpoint] = {}
        self._affinity = affinity
        self._load_factor = load_factor
        self._max_in_flight = max_in_flight
        self._clock = clock
        self._turn = count(1)
        self._orders: dict[bytes, tuple[Endpoint, ...]] = {}
        """What `_first_choices` found, of the keys that came last; of the engines that there are now."""

    def choose(self, key: bytes | None = None, but: Collection[Endpoint] = ()) -> Endpoint | None:
        """The engine for a request with this affinity key, none of `but`; None when none is left.

        One that is within the bound and comes first for the key; without a key, the one with the fewest requests in
        flight, the longest unused of equals. Engines that are paused are the last resort.
        """
        there = self.all
        if self._out or but:
            there = [endpoint for endpoint in there if not endpoint.ejected and endpoint not in but]
        if len(there) < 2:  # noqa: PLR2004 - a choice
            return there[0] if there else None
        if (now := self._clock()) < self._paused_until:
            there = [endpoint for endpoint in there if endpoint.paused_until <= now] or there
        if self._affinity and key is not None and len(there) > 1:
            bound = load_bound(sum(endpoint.in_flight for endpoint in there), len(there), self._load_factor)
            bound = min(bound, self._max_in_flight)
            if len(self.all) >= MANY:
                for endpoint in self._first_choices(key):
                    if endpoint.in_flight < bound and (there is self.all or endpoint in there):
                        return endpoint
            if within := [endpoint for endpoint in there if endpoint.in_flight < bound]:
                return max(within, key=lambda endpoint: score(key, endpoint.salt))
        return min(there, key=lambda endpoint: (endpoint.in_flight, endpoint.last_used), default=None)

    def _first_choices(self, key: bytes) -> tuple[Endpoint, ...]:
        """The first few engines in the key's own order, well or not: a hash for each engine, once for a key."""
        name = key if len(key) <= LONG_BYTES else hashlib.blake2b(key, digest_size=LONG_BYTES).digest()
        found = self._orders.get(name)
        if found is None:
            found = tuple(nlargest(FIRST_CHOICES, self.all, key=lambda endpoint: score(key, endpoint.salt)))
            if len(self._orders) >= ORDERS_KEPT:
                del self._orders[next(iter(self._orders))]
            self._orders[name] = found
        return found

    def well(self) -> int:
        """How many have not been taken out."""
        return len(self.all) - len(self._out)

    def pause(self, endpoint: Endpoint) -> None:
        """Leave the engine alone for a moment: it could not be reached."""
        self._paused_until = endpoint.paused_until = self._clock() + PAUSE_S

    def add(self, url: str, *, host: str, well: bool) -> Endpoint:
        """An address has appeared; one that is still finishing comes back as it is."""
        endpoint = self._leaving.pop(url, None) or Endpoint(url, host=host, well=well, out=self._out)
        endpoint.leaving = False
        endpoint.stand()
        self.all.append(endpoint)
        self._orders.clear()
        return endpoint

    def remove(self, endpoint: Endpoint) -> None:
        """Its address has vanished: nothing new goes there, what is under way ends."""
        self.all.remove(endpoint)
        self._orders.clear()
        endpoint.leaving = True
        endpoint.stand()
        self._leaving[endpoint.url] = endpoint
        self._forget_if_idle(endpoint)

    def _forget_if_idle(self, endpoint: Endpoint) -> None:
        if endpoint.leaving and not endpoint.in_flight:
            del self._leaving[endpoint.url]
            forget_engine(endpoint.url)

    def lease(self, endpoint: Endpoint) -> Lease:
        """A request is at the engine from now on, until the lease is released."""
        endpoint.last_used = next(self._turn)
        return Lease(self, endpoint)

    def end(self, endpoint: Endpoint) -> None:
        """A request is over."""
        endpoint.count(-1)
        if endpoint.leaving:
            self._forget_if_idle(endpoint)
