"""Which of the things kept may still be given: a purge begins a new generation of names, under which nothing is kept.

Every name in a store begins with `space(tenant)`: the tenant and its generation. Redis holds the generations in a hash,
one token for everybody and one for each tenant that was ever purged; each process looks twice a second. An answer that
was begun before a purge has a name of the old generation, so it is neither given nor kept after it.

Which way it fails: towards the engine. A process that has not heard from Redis for `STALE_S` cannot know of a purge
and gives nothing that it kept before: it goes on in a generation of its own until Redis answers. Tokens are random and
never used twice, so that a Redis that has lost its data begins a new generation, too.

A thread looks, not a task: an event loop that is busy for a second must not be taken for a lost Redis.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import Counter
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Protocol

from gateway.redis_link import BlockingLink, LinkError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

GENERATIONS = "qwen3vl:generations"
"""The hash of tokens, by tenant; `EVERYBODY` is the one that all names hold."""
HITS = "qwen3vl:hits"
"""A hash: answers given from what was kept, by tenant, since its last purge."""
EVERYBODY = "*"
"""No tenant's name."""
LOOK_INTERVAL_S = 0.5
LOOK_TIMEOUT_S = 0.5
STALE_S = 1.5
"""Two looks that fail in a row fit in; what was asked just before ends within EFFECTIVE_S."""
EFFECTIVE_S = 2.0
"""After this, no process gives anything of the generation before."""

log = logging.getLogger(__name__)


class Forgetful(Protocol):
    """A store in this process."""

    def forget(self, prefix: bytes) -> None:
        """Let go of everything whose name begins so; of everything at all with none."""


class Generation:
    """Names where nothing is shared: one generation, as long as the process. A restart is what purges it."""

    def space(self, tenant: str) -> bytes:
        """How every name of the tenant's begins; no other tenant's name does."""
        return tenant.encode() + b":"

    def is_current(self, name: bytes) -> bool:
        """Whether a name is of its tenant's present generation; what is not must not be kept any more."""
        return name.startswith(self.space(name.partition(b":")[0].decode()))

    def hit(self, tenant: str) -> None:
        """Count an answer that was given from what is kept."""


class SharedGenerations(Generation):
    """The generations that all processes with one Redis share."""

    def __init__(
        self,
        url: str,
        memories: Sequence[Forgetful],
        *,
        interval_s: float = LOOK_INTERVAL_S,
        stale_s: float = STALE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is sent yet. What a purge is about leaves `memories` (more may be added), too.

        `clock` is monotonic, in seconds. ValueError when the URL is none.
        """
        self._link = BlockingLink(url, timeout_s=LOOK_TIMEOUT_S)
        self._memories = memories
        self._interval_s = interval_s
        self._stale_s = stale_s
        self._clock = clock
        self._tokens, self._heard_s = _alone()
        self._last: Mapping[str, str] = {}
        """What Redis said last."""
        self._hits: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="generations", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Look once, so that the first request's name is the one that others use, then go on looking."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self.look)
        self._thread.start()

    async def aclose(self) -> None:
        """End the looking."""
        self._closing.set()
        await asyncio.to_thread(self._thread.join)
        self._link.close()

    def space(self, tenant: str) -> bytes:
        """See Generation."""
        if self._clock() - self._heard_s > self._stale_s:
            with self._lock:
                self._tokens, self._heard_s = _alone()
            log.warning("Redis is away, and a purge would not be heard of: nothing kept before is given for now")
        tokens = self._tokens
        return f"{tenant}:{tokens[EVERYBODY]}.{tokens.get(tenant, '')}:".encode()

    def hit(self, tenant: str) -> None:
        """See Generation. Told with the next look."""
        with self._lock:
            self._hits[tenant] += 1

    def look(self) -> None:
        """Ask Redis which generations there are, and tell it the hits. Blocks; never raises."""
        asked_s = self._clock()
        with self._lock:
            hits, self._hits = self._hits, Counter()
        try:
            tokens = self._link.call("generations", lambda client: _exchange(client, hits))
        except LinkError:
            with self._lock:
                self._hits += hits
            return
        with self._lock:
            self._tokens, self._heard_s = tokens, asked_s
        last, self._last = self._last, tokens
        if last.get(EVERYBODY) != tokens[EVERYBODY]:
            self._forget(b"")
        else:
            for tenant in {tenant for tenant, _ in last.items() ^ tokens.items()}:
                self._forget(tenant.encode() + b":")

    def _watch(self) -> None:
        while not self._closing.wait(self._interval_s):
            self.look()

    def _forget(self, prefix: bytes) -> None:
        # The names alone keep it from being given; this frees the memory, in the event loop, as stores ask for.
        if self._loop is not None and not self._loop.is_closed():
            for memory in self._memories:
                self._loop.call_soon_threadsafe(memory.forget, prefix)


def begin_generation(link: BlockingLink, tenant: str | None) -> None:
    """Begin a new generation of the tenant's names, or of everybody's. Raises LinkError: then nothing is certain."""

    def write(client: Any) -> None:  # noqa: ANN401 - see RedisLink
        with client.pipeline(transaction=True) as pipeline:
            if tenant is None:
                pipeline.delete(GENERATIONS, HITS)
            else:
                pipeline.hdel(HITS, tenant)
            pipeline.hset(GENERATIONS, tenant or EVERYBODY, token_hex(6))
            pipeline.execute()

    link.call("purge", write)


def _exchange(client: Any, hits: Mapping[str, int]) -> dict[str, str]:  # noqa: ANN401 - see RedisLink
    with client.pipeline(transaction=True) as pipeline:
        # Only where there is none: a Redis that is new, or has lost its data.
        pipeline.hsetnx(GENERATIONS, EVERYBODY, token_hex(6))
        pipeline.hgetall(GENERATIONS)
        for tenant, number in hits.items():
            pipeline.hincrby(HITS, tenant, number)
        _, tokens, *_ = pipeline.execute()
    return {tenant.decode(): token.decode() for tenant, token in tokens.items()}


def _alone() -> tuple[dict[str, str], float]:
    """Tokens of this process's own, which never grow stale."""
    return {EVERYBODY: "alone-" + token_hex(6)}, math.inf
