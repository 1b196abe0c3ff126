"""The limits' count that all replicas share, in Redis.

Everything goes through one queue to one connection: what has gathered while a round trip was under way is the next one.
A burst costs few round trips, a request that is alone costs one, and what is told in order arrives in order.

A request under way holds a lease, renewed for as long as it runs, so a gateway that dies frees its places by itself.
Which way it fails: `admit` raises LimitStoreError, at once while Redis is known to be away. `finish` keeps what could
not be told and tells it when Redis is back; once the lease has ended by itself there is nothing left to tell, and
`on_lost` is called. The charge then stays as it was booked.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError

from gateway.limit_scripts import SERVER_TIME, admit_script, finish_script, renew_script
from gateway.limit_stores import DIMENSIONS, Charge, LimitStoreError, Meter, Verdict
from gateway.redis_link import Breaker, LinkError, RedisLink

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.limit_stores import Limits

    Args = tuple[str | int | bytes, ...]

LEASE_TTL_S = 30.0
"""How long a dead gateway keeps its places."""
MAX_HOLD_S = 3_600.0
"""A lease is renewed no longer than this: a request that was forgotten must not keep its place for ever."""
MAX_BATCH = 128
"""Commands in one round trip: about 3 ms of Redis's time."""


@dataclass(frozen=True, slots=True)
class Script:
    """Lua and the name that Redis knows it by."""

    text: str
    sha1: str

    @classmethod
    def of(cls, text: str) -> Script:
        """EVALSHA wants SHA-1; nothing here depends on its strength."""
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    script: Script
    key_id: str
    args: Args
    answer: asyncio.Future[Any] | None = None
    """None: nobody waits."""
    unwanted: Callable[[list[Any]], None] | None = None
    """Takes the answer when whoever waited has left."""
    until_s: float = 0.0
    """Monotonic; until then it is worth another try."""


class RedisLimitStore:
    """See LimitStore."""

    def __init__(
        self,
        url: str,
        on_lost: Callable[[], None],
        *,
        prefix: str = "qwen3vl:limits:",
        timeout_s: float = 0.5,
        pause_s: float = 1.0,
        lease_ttl_s: float = LEASE_TTL_S,
        max_hold_s: float = MAX_HOLD_S,
        clock: Callable[[], float] = time.monotonic,
        server_time: str = SERVER_TIME,
    ) -> None:
        """Prepare; nothing is sent yet. ValueError when the URL is none.

        `timeout_s` bounds a round trip. It is longer than the cache's: a limit that times out lets a request through,
        so a busy moment must not look like a lost Redis. The breaker keeps a lost one from costing it more than once
        each `pause_s`. `clock` is monotonic, in seconds; `server_time` is a seam for tests.
        """
        # Two: `aclose` need not wait for a connection that hangs.
        self._link = RedisLink(url, timeout_s=timeout_s, max_connections=2)
        self._breaker = Breaker(pause_s, clock)
        self._on_lost = on_lost
        self._prefix = prefix
        self._lease_ttl_s = lease_ttl_s
        self._max_hold_s = max_hold_s
        self._clock = clock
        self._admit = Script.of(admit_script(server_time))
        self._finish = Script.of(finish_script(server_time))
        self._renew = Script.of(renew_script(server_time))
        self._lease_prefix = secrets.token_hex(6)
        self._lease_numbers = count()
        self._held: dict[str, tuple[str, float]] = {}
        """Lease: its key's id and when it began."""
        self._queue: list[_Job] = []
        self._postponed: list[_Job] = []
        self._sender: asyncio.Task[None] | None = None
        self._tick_s = min(pause_s, lease_ttl_s / 3)
        self._timer: asyncio.TimerHandle | None = None
        self._renewed_s = clock()
        self._closed = False

    def __repr__(self) -> str:
        return f"RedisLimitStore({self._link.where})"

    async def admit(self, key_id: str, limits: Limits, tokens: int) -> Verdict:
        """See LimitStore. Cancelled, it gives all back; failed, the place, should Redis have given it all the same."""
        if self._closed or not self._breaker.allows():
            raise LimitStoreError(f"Redis at {self._link.where} is left alone for a moment")
        lease = f"{self._lease_prefix}{next(self._lease_numbers):x}" if limits.need_an_end else ""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        args: Args = (lease, tokens, int(self._lease_ttl_s * 1000), *numbers_of(limits))

        def give_back(reply: list[Any]) -> None:
            charge = verdict_of(reply, key_id, lease, limits, tokens).charge
            if charge is not None:
                self.finish(charge, 0)

        self._post(_Job(self._admit, key_id, args, answer, give_back))
        try:
            reply = await answer
        except asyncio.CancelledError:
            if not answer.cancelled() and answer.exception() is None:  # The answer came in the very same moment.
                give_back(answer.result())
            raise
        verdict = verdict_of(reply, key_id, lease, limits, tokens)
        if verdict.charge is not None:
            self._held[lease] = (key_id, self._clock())
            self._arm()
        return verdict

    def finish(self, charge: Charge, actual_tokens: int) -> None:
        """See LimitStore."""
        self._held.pop(charge.lease, None)
        difference = actual_tokens - charge.tokens
        where = (int(charge.by_minute), int(charge.by_day), charge.second, charge.day, charge.epoch)
        self._end(charge.key_id, (charge.lease, difference, *where))

    async def aclose(self) -> None:
        """See LimitStore. Takes a round trip's deadline at most for each batch that is left."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._retry()
        if self._sender is not None:
            await self._sender
        for _ in range(len(self._postponed)):
            self._on_lost()
        self._postponed.clear()
        self._held.clear()
        await self._link.aclose()

    def _end(self, key_id: str, args: Args) -> None:
        job = _Job(self._finish, key_id, args, until_s=self._clock() + self._lease_ttl_s)
        if self._closed:
            self._on_lost()
        elif self._breaker.paused:
            self._failed(job, "")
        else:
            self._post(job)

    def _post(self, job: _Job) -> None:
        self._queue.append(job)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.get_running_loop().create_task(self._send_all())

    async def _send_all(self) -> None:
        while self._queue:
            # A request that has left while it stood in the queue was never asked for: nothing is charged.
            batch = [job for job in self._queue[:MAX_BATCH] if job.answer is None or not job.answer.done()]
            del self._queue[:MAX_BATCH]
            if not batch:
                continue
            try:
                replies = await self._link.call("limits", partial(self._run, batch))
            except LinkError as exc:
                self._breaker.failed()
                # Those behind would only wait for the same.
                failed, self._queue = batch + self._queue, []
                for job in failed:
                    self._failed(job, str(exc))
                continue
            except BaseException:
                # A defect, or the loop is ending: whoever waits goes on without limits rather than waiting for ever.
                for job in batch:
                    self._failed(job, "the sender has ended")
                raise
            self._breaker.worked()
            for job, reply in zip(batch, replies, strict=True):
                self._answered(job, reply)

    async def _run(self, jobs: list[_Job], client: Any) -> list[Any]:  # noqa: ANN401 - see RedisLink
        replies = await self._round_trip(client, jobs)
        unknown = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:  # A Redis that is new or was restarted.
            for script in (self._admit, self._finish, self._renew):
                await client.script_load(script.text)
            again = await self._round_trip(client, [jobs[number] for number in unknown])
            for number, reply in zip(unknown, again, strict=True):
                replies[number] = reply
        return replies

    async def _round_trip(self, client: Any, jobs: list[_Job]) -> list[Any]:  # noqa: ANN401 - see RedisLink
        async with client.pipeline(transaction=False) as pipeline:
            for job in jobs:
                # The braces put both keys into one slot of a cluster.
                name = f"{self._prefix}{{{job.key_id}}}"
                pipeline.evalsha(job.script.sha1, 2, f"{name}:book", f"{name}:leases", *job.args)
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
            return replies

    def _answered(self, job: _Job, reply: Any) -> None:  # noqa: ANN401 - a script's answer
        if isinstance(reply, Exception):
            # Read-only, out of memory, not a hash: an answer of the server's, of which only the kind may be shown.
            self._failed(job, f"limits at {self._link.where} failed: {type(reply).__name__}")
        elif job.answer is not None and not job.answer.done():
            job.answer.set_result(reply)
        elif job.unwanted is not None:
            job.unwanted(reply)

    def _failed(self, job: _Job, why: str) -> None:
        if job.answer is not None:
            if not job.answer.done():
                job.answer.set_exception(LimitStoreError(why))
            if lease := job.args[0]:
                # It may have been done all the same: the place is given back, the rest leaves with the window.
                self._end(job.key_id, (lease, 0, 0, 0, 0, 0, b""))
        elif job.script is self._finish:
            self._postponed.append(job)
            self._arm()

    def _arm(self) -> None:
        if self._timer is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(self._tick_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if (self._postponed or self._renewal_is_due()) and self._breaker.allows():
            self._retry()
            if self._renewal_is_due():
                self._renew_all()
        if self._held or self._postponed:
            self._arm()

    def _retry(self) -> None:
        jobs, self._postponed = self._postponed, []
        now_s = self._clock()
        for job in jobs:
            if now_s < job.until_s:
                self._post(job)
            else:
                self._on_lost()

    def _renewal_is_due(self) -> bool:
        return bool(self._held) and self._clock() - self._renewed_s >= self._lease_ttl_s / 3

    def _renew_all(self) -> None:
        now_s = self._renewed_s = self._clock()
        by_key: dict[str, list[str]] = {}
        for lease, (key_id, began_s) in self._held.items():
            if now_s - began_s < self._max_hold_s:
                by_key.setdefault(key_id, []).append(lease)
        for key_id, leases in by_key.items():
            self._post(_Job(self._renew, key_id, (int(self._lease_ttl_s * 1000), *leases)))


def numbers_of(limits: Limits) -> tuple[int, ...]:
    """The limits as `admit_script` takes them."""
    asked = (limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent_requests, limits.tokens_per_day)
    return tuple(-1 if limit is None else limit for limit in asked)


def verdict_of(reply: list[Any], key_id: str, lease: str, limits: Limits, tokens: int) -> Verdict:
    """The verdict in `admit_script`'s answer."""
    refuser, wait_ms, requests, requests_reset_ms, used, tokens_reset_ms, second, day, epoch = reply
    charge = None
    if not refuser and lease:
        by_minute, by_day = limits.tokens_per_minute is not None, limits.tokens_per_day is not None
        charge = Charge(key_id, lease, tokens, by_minute, by_day, second, day, epoch)
    return Verdict(
        DIMENSIONS[refuser - 1] if refuser else None,
        wait_ms,
        Meter.of(limits.requests_per_minute, requests, requests_reset_ms),
        Meter.of(limits.tokens_per_minute, used, tokens_reset_ms),
        charge,
    )
