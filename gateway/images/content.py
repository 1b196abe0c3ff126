"""Pictures that were fetched before: given again while their server allows it, else asked about instead of downloaded.

Kept per tenant: who knows a signed URL may see its picture, another tenant has to show that he can fetch it himself.
What is kept is two entries: a small one under tenant and URL, which a "not modified" rewrites, and the bytes. Never
gives anything stale: a server that does not answer is a refusal, as without a cache.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass, field
from secrets import token_hex
from typing import TYPE_CHECKING, Literal, Protocol

import orjson

from gateway.images.freshness import Validators
from gateway.images.refused import ImageRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from gateway.generations import Generation
    from gateway.images.fetch import Fetched, ImageFetcher

Outcome = Literal["fetched", "fresh", "revalidated", "failed"]
KEEP_STALE_S = 3_600.0
"""How long a picture outlives its freshness: asking whether it has changed costs a round trip, not a download."""
_VERSION = b"2"
"""Change it when an entry's form changes: old entries in Redis are then never found."""


class Store(Protocol):
    """Keeps bytes for a while and may forget them at any moment; never raises."""

    async def get(self, key: bytes) -> bytes | None:
        """The value, or None."""

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        """Keep `value` for `ttl_s` seconds at most; with 0 or less, forget it."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A picture that was fetched before. `fresh_until_s` is seconds since the epoch: replicas share entries."""

    data: bytes
    body_key: bytes
    fresh_until_s: float
    validators: Validators


@dataclass(slots=True)
class _Flight:
    """A picture on its way, and how many wait for it."""

    task: asyncio.Task[bytes]
    waiting: int = field(default=0)


class ContentCache:
    """Pictures by URL. One per process; for one event loop."""

    def __init__(
        self,
        fetcher: ImageFetcher,
        store: Store,
        *,
        max_entry_bytes: int,
        generation: Generation,
        on_outcome: Callable[[Outcome, float], None] = lambda _outcome, _spent_s: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`store` bounds the total; a picture above `max_entry_bytes` is not kept. `generation` begins the names.

        `on_outcome` is told what became of each picture, and the seconds it took; those who joined are not counted.
        """
        self._fetcher = fetcher
        self._store = store
        self._max_entry_bytes = max_entry_bytes
        self._generation = generation
        self._on_outcome = on_outcome
        self._clock = clock
        self._flights: dict[tuple[bytes, int], _Flight] = {}
        self._writes: set[asyncio.Task[None]] = set()

    async def get(self, tenant: str, url: str, *, max_bytes: int) -> bytes:
        """The picture behind `url`, 1 to `max_bytes` bytes: kept, found unchanged, or downloaded.

        Those of a tenant who ask for the same URL at once share one download, which ends when the last of them leaves.
        Raises ImageRefused like ImageFetcher.fetch. The list of allowed hosts is asked for kept pictures too.
        """
        key = self._generation.space(tenant) + _name(self._fetcher.check(url))
        flight = self._flights.get((key, max_bytes))
        if flight is None:
            flight = self._start((key, max_bytes), self._load(key, url, max_bytes))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._drop((key, max_bytes), flight)
                flight.task.cancel()

    async def aclose(self) -> None:
        """End what is under way; the store and the fetcher belong to whoever made them."""
        tasks = [*(flight.task for flight in self._flights.values()), *self._writes]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, name: tuple[bytes, int], load: Coroutine[None, None, bytes]) -> _Flight:
        flight = self._flights[name] = _Flight(asyncio.get_running_loop().create_task(load))
        flight.task.add_done_callback(lambda _: self._drop(name, flight))
        return flight

    def _drop(self, name: tuple[bytes, int], flight: _Flight) -> None:
        if self._flights.get(name) is flight:
            del self._flights[name]

    async def _load(self, key: bytes, url: str, max_bytes: int) -> bytes:
        begun_s = time.perf_counter()
        try:
            outcome, data = await self._obtain(key, url, max_bytes)
        except ImageRefused:
            self._on_outcome("failed", time.perf_counter() - begun_s)
            raise
        self._on_outcome(outcome, time.perf_counter() - begun_s)
        return data

    async def _obtain(self, key: bytes, url: str, max_bytes: int) -> tuple[Outcome, bytes]:
        kept = await self._find(key, max_bytes)
        if kept is not None and kept.fresh_until_s > self._clock():
            return "fresh", kept.data
        fetched = await self._fetcher.fetch_response(url, kept.validators if kept else None, max_bytes=max_bytes)
        if fetched.data is None and kept is not None:
            self._keep(key, kept.data, kept, fetched)
            return "revalidated", kept.data
        assert fetched.data is not None  # noqa: S101 - "not modified" answers a question about what is kept
        self._keep(key, fetched.data, kept, fetched)
        return "fetched", fetched.data

    async def _find(self, key: bytes, max_bytes: int) -> _Kept | None:
        """What is kept, if all of it is there and not above `max_bytes` (the fetcher says that better)."""
        entry = await self._store.get(key)
        if entry is None:
            return None
        body_key, fresh_until_s, *validators = orjson.loads(entry)
        data = await self._store.get(body_key.encode())
        if data is None or len(data) > max_bytes:
            return None
        return _Kept(data, body_key.encode(), fresh_until_s, Validators(*validators))

    def _keep(self, key: bytes, data: bytes, kept: _Kept | None, fetched: Fetched) -> None:
        """Write in the background what the answer allows; what it forbids is forgotten."""
        validators, fresh_s = fetched.validators, fetched.fresh_s
        if fresh_s is None or not (fresh_s or validators) or len(data) > self._max_entry_bytes:
            if kept is not None:
                self._write(key, b"", 0)
            return
        ttl_s = fresh_s + (KEEP_STALE_S if validators else 0)
        if kept is not None and fetched.data is None:
            body_key = kept.body_key
        else:
            body_key = key + b"/" + token_hex(8).encode()
            self._write(body_key, data, ttl_s)
        entry = (body_key.decode(), self._clock() + fresh_s, validators.source, validators.etag)
        self._write(key, orjson.dumps((*entry, validators.last_modified)), ttl_s)

    def _write(self, key: bytes, value: bytes, ttl_s: float) -> None:
        if not self._generation.is_current(key):  # A purge came in between.
            return
        # A task of its own: a shared store takes a round trip, which no client need wait for.
        task = asyncio.get_running_loop().create_task(self._store.put(key, value, ttl_s))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)


def _name(url: str) -> bytes:
    """A picture's name within its tenant's. A digest: URLs are long, and signed ones are secrets."""
    return b"picture:" + hashlib.blake2b(url.encode(), digest_size=32, person=_VERSION).hexdigest().encode()
