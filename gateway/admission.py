"""The queue in front of the engines: bounded, by class, fair between tenants, with a deadline for each class.

One number orders all who wait: when a request would be served in a fair world. That is its arrival, plus the delay of
its class, plus a share for each request of the same tenant already waiting. So interactive requests pass bulk ones, but
a bulk request is never passed by one that arrives more than the delay later; and a tenant with a thousand requests in
the queue does not stand in the way of one with a single request.

Nothing that has begun is interrupted, so bulk never takes all places at the engines: the others would have to wait
until one of its requests, which may be long, has ended.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.errors import QueueFull, QueueTimeout
from gateway.metric_kinds import Children, Distribution
from gateway.stages import Operation, Scheduled
from gateway.telemetry import QUEUE_DEPTH, QUEUE_REFUSED, QUEUE_WAIT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.key_ring import Priority
    from gateway.stages import Prepared

CLASS_DELAY_S: Mapping[Priority, float] = {"interactive": 0.0, "default": 2.0, "bulk": 30.0}
"""How much later than an interactive request one of this class is due; the bound of its being passed."""
SHARE_S = 0.25
"""What each waiting request of a tenant adds to its next one: about the time an engine takes for one."""
QUEUE_SHARE: Mapping[Priority, float] = {"interactive": 1.0, "default": 0.9, "bulk": 0.5}
"""The part of the queue that a class may fill: bulk never locks the others out."""
BULK_SHARE = 0.75
"""The part of the places at the engines that bulk may take, one at least. An engine's throughput hardly grows over its
last quarter; an interactive request that finds no place free takes twice its time, or more."""
_waits = Children(QUEUE_WAIT, Distribution)


def priority_of(of_key: Priority, body: dict[str, Any]) -> Priority:
    """The key's class; a request may step back with OpenAI's `service_tier: "flex"`, never forward."""
    return "bulk" if body.get("service_tier") == "flex" else of_key


@dataclass(slots=True)
class Waiting:
    """A request in the queue; `granted` is set when its slot is there."""

    tenant: str
    priority: Priority
    granted: asyncio.Event = field(default_factory=asyncio.Event)
    left: bool = False

    @property
    def is_bulk(self) -> bool:
        """Whether it may take only some of the places."""
        return self.priority == "bulk"


class Slot:
    """A place at the engines. To be given back once; a second time changes nothing."""

    __slots__ = ("_admission", "_is_bulk")

    def __init__(self, admission: Admission, *, is_bulk: bool) -> None:
        """Held from the moment it exists."""
        self._admission: Admission | None = admission
        self._is_bulk = is_bulk

    def release(self) -> None:
        """Give the place to whoever is next."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.give_back(is_bulk=self._is_bulk)


class Admission:
    """At most `capacity()` requests at the engines; the others wait in order, or are refused when too many do."""

    def __init__(
        self,
        capacity: Callable[[], int],
        *,
        holds: bool = False,
        max_waiting: int,
        deadlines_s: Mapping[Priority, float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`capacity` is asked anew each time: engines come and go. `deadlines_s` is the longest wait of each class.

        `holds` says that the capacity may be 0 for a while, and that requests then wait for an engine to come.
        """
        self.holds = holds
        self._capacity = capacity
        self._max_waiting = max_waiting
        self._deadlines_s = deadlines_s
        self._clock = clock
        self._queues: dict[bool, list[tuple[float, int, Waiting]]] = {False: [], True: []}
        """By whether it is bulk, of which the first may have to wait while others have their turn."""
        self._turn = 0
        self._busy = 0
        self._busy_with_bulk = 0
        self._by_tenant: Counter[str] = Counter()
        self.waiting = 0
        """How many wait."""

    async def schedule(self, prepared: Prepared) -> Scheduled:
        """The request with its slot; raises as `enter`. The list of models needs no turn and takes no slot's time."""
        parsed = prepared.keyed.located.parsed
        if parsed.identified.allowed.raw.operation is Operation.MODELS:
            return Scheduled(prepared, lambda: None)
        key = parsed.identified.key
        priority = priority_of(key.priority, parsed.body)
        slot = self._at_once(priority) or await self._queued(key.tenant, priority)
        return Scheduled(prepared, slot.release)

    async def enter(self, tenant: str, priority: Priority) -> Slot:
        """A slot, as soon as it is this request's turn.

        Raises QueueFull at once when too many wait, QueueTimeout when the class's deadline is over. Being cancelled
        leaves the queue.
        """
        return self._at_once(priority) or await self._queued(tenant, priority)

    def _at_once(self, priority: Priority) -> Slot | None:
        """As most get it: nobody waits, and there is room."""
        is_bulk = priority == "bulk"
        if self.waiting or not self._room(is_bulk=is_bulk):
            return None
        self._take(is_bulk=is_bulk)
        _waits[priority,].observe(0.0)
        return Slot(self, is_bulk=is_bulk)

    async def _queued(self, tenant: str, priority: Priority) -> Slot:
        if self.waiting >= self._max_waiting * QUEUE_SHARE[priority]:
            QUEUE_REFUSED.labels(priority, "full").inc()
            raise QueueFull("Too many requests are waiting: try again shortly.", retry_after_s=self._retry_after_s())
        return await self._wait(tenant, priority)

    async def _wait(self, tenant: str, priority: Priority) -> Slot:
        began = self._clock()
        waiting = Waiting(tenant, priority)
        due = began + CLASS_DELAY_S[priority] + SHARE_S * self._by_tenant[tenant]
        self._turn += 1
        heapq.heappush(self._queues[waiting.is_bulk], (due, self._turn, waiting))
        self._count(waiting, 1)
        self.wake()
        deadline_s = self._deadlines_s[priority]
        try:
            async with asyncio.timeout(deadline_s):
                await waiting.granted.wait()
        except TimeoutError as exc:
            self._abandon(waiting)
            QUEUE_REFUSED.labels(priority, "deadline").inc()
            message = f"No engine was free within {deadline_s:g} s: try again later."
            raise QueueTimeout(message, retry_after_s=self._retry_after_s()) from exc
        except BaseException:
            self._abandon(waiting)
            raise
        _waits[priority,].observe(self._clock() - began)
        return Slot(self, is_bulk=waiting.is_bulk)

    def _room(self, *, is_bulk: bool) -> bool:
        capacity = self._capacity()
        if self._busy >= capacity:
            return False
        return not is_bulk or self._busy_with_bulk < max(1, int(capacity * BULK_SHARE))

    def _take(self, *, is_bulk: bool) -> None:
        self._busy += 1
        self._busy_with_bulk += is_bulk

    def _count(self, waiting: Waiting, by: int) -> None:
        self._by_tenant[waiting.tenant] += by
        if not self._by_tenant[waiting.tenant]:
            del self._by_tenant[waiting.tenant]
        self.waiting += by
        QUEUE_DEPTH.labels(waiting.priority).inc(by)

    def _abandon(self, waiting: Waiting) -> None:
        if waiting.granted.is_set():  # The slot came in the very moment that the client left.
            self.give_back(is_bulk=waiting.is_bulk)
        else:
            waiting.left = True  # Its entry is dropped when its turn comes.
            self._count(waiting, -1)

    def give_back(self, *, is_bulk: bool) -> None:
        """One slot less is taken."""
        self._busy -= 1
        self._busy_with_bulk -= is_bulk
        self.wake()

    def wake(self) -> None:
        """Give free slots to the next in the queue; also to be called when the capacity has grown."""
        while self.waiting and (waiting := self._next()) is not None:
            self._take(is_bulk=waiting.is_bulk)
            self._count(waiting, -1)
            waiting.granted.set()

    def _next(self) -> Waiting | None:
        """Whose turn it is, taken out of the queue; None while nobody who waits has room."""
        for queue in self._queues.values():
            while queue and queue[0][2].left:
                heapq.heappop(queue)
        ready = [queue for is_bulk, queue in self._queues.items() if queue and self._room(is_bulk=is_bulk)]
        return heapq.heappop(min(ready))[2] if ready else None

    def _retry_after_s(self) -> int:
        # A guess that spreads clients out: the more wait, the longer.
        return max(1, min(30, round(self.waiting * SHARE_S / max(1, self._capacity()))))
