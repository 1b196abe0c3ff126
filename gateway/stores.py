"""Where the cache keeps answers: memory, Redis, and memory in front of Redis. Bytes in, bytes out; no keys of its own.

Which way it fails: memory never does. Redis raises `StoreError`. The two together fail open: a Redis that is away
means misses, counted by `on_error`, and costs one request per second its timeout rather than every request.

One event loop uses a store; nothing here is safe between threads.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from gateway.redis_link import Breaker, LinkError, RedisLink

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

Operation = Literal["get", "put"]

ANSWERS = "qwen3vl:cache:"
PICTURES = "qwen3vl:image:"
"""What names begin with in Redis, which may be used for other things, too."""

ENTRY_OVERHEAD_BYTES = 320
"""What an entry costs beside the bytes of its key and value: their headers, a tuple, a float, its node in the
OrderedDict and its share of the table. At most 262 measured with tracemalloc (CPython 3.11, x86-64, 10 to 175,000
entries), and some room for the allocator."""

CUT_BYTES = 64 * 1024
"""From here on, what is cut off does not matter, and a copy would."""
_LARGEST_SHARE = 8
"""A value larger than 1/8 of a store would push out more answers than it is worth."""

_LONGEST_TTL_S = 10 * 365 * 86_400.0
"""Ten years: keeps infinity within what Redis takes as milliseconds."""


class StoreError(Exception):
    """A store could not answer. The text holds no password and no data."""


class Store(Protocol):
    """Keeps values for a while. It may forget any of them at any moment."""

    async def get(self, key: bytes) -> bytes | None:
        """Return the value last put, or None when there is none or its time is over. May raise StoreError."""

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        """Keep the value for `ttl_s` seconds at most; with 0 or less, forget the key. May raise StoreError."""

    async def aclose(self) -> None:
        """Release connections. The store is not used afterwards."""


class FarStore(Store, Protocol):
    """A store that also tells how long a value has left, so that a nearer copy does not outlive it."""

    async def get_with_ttl(self, key: bytes) -> tuple[bytes, float] | None:
        """Return the value and the seconds that it has left, or None. May raise StoreError."""


class MemoryStore:
    """A least-recently-used store in this process, bounded by bytes: keys, values and the overhead of entries."""

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is monotonic, in seconds."""
        self._max_bytes = max_bytes
        self._largest_entry_bytes = max_bytes // _LARGEST_SHARE
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()
        self.bytes_used = 0
        """Bytes of all entries, those whose time is over but that nobody asked for included."""
        self.evictions = 0
        """Entries pushed out to make room since the start; expiry does not count."""

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, key: bytes) -> bytes | None:
        """See Store."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, expires_s = entry
        if expires_s <= self._clock():
            self._forget(key)
            return None
        self._entries.move_to_end(key)
        return value

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        """See Store. A value that is too large is forgotten at once."""
        # First, so that a new value that is not kept does not leave an old one in its place.
        self._forget(key)
        size_bytes = _size_bytes(key, value)
        if ttl_s <= 0 or size_bytes > self._largest_entry_bytes:
            return
        while self.bytes_used + size_bytes > self._max_bytes:
            self._forget(next(iter(self._entries)))
            self.evictions += 1
        self._entries[key] = (_exact(value), self._clock() + ttl_s)
        self.bytes_used += size_bytes

    def forget(self, prefix: bytes) -> None:
        """Let go of every entry whose key begins so. Looks at each, which takes 10 ms for 100,000 of them."""
        for key in [key for key in self._entries if key.startswith(prefix)]:
            self._forget(key)

    async def aclose(self) -> None:
        """Let go of everything."""
        self._entries.clear()
        self.bytes_used = 0

    def _forget(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes_used -= _size_bytes(key, entry[0])


def _exact(value: bytes) -> bytes:
    """The value in a block of just its size.

    An encoder makes its result in a larger block and cuts it: what is cut off lies between two kept values for as long
    as they are kept, and is too small for anything that Python asks the allocator for (215 bytes of memory an entry).
    """
    return bytes(memoryview(value)) if len(value) < CUT_BYTES else value


def _size_bytes(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + ENTRY_OVERHEAD_BYTES


class RedisStore:
    """A store that all replicas share. Connects when first used, and again after every loss."""

    def __init__(self, url: str, prefix: str = ANSWERS, timeout_s: float = 0.1, max_connections: int = 32) -> None:
        """Prepare; nothing is sent yet.

        `timeout_s` bounds a whole call: waiting for a connection, making it, and the round trip. 0.05 suits a Redis in
        the same zone, 0.25 one with TLS in another. It is far below the seconds of an inference, which a cache is
        there to save, and what every request of a moment pays when Redis hangs.

        Raises:
            ValueError: the URL is none. Its text is not repeated, since it may hold a password.

        """
        self._prefix = prefix.encode()
        self._link = RedisLink(url, timeout_s=timeout_s, max_connections=max_connections)

    def __repr__(self) -> str:
        return f"RedisStore({self._link.where})"

    async def get(self, key: bytes) -> bytes | None:
        """See Store."""
        value: bytes | None = await self._call("get", lambda client: client.get(self._prefix + key))
        return value

    async def get_with_ttl(self, key: bytes) -> tuple[bytes, float] | None:
        """See FarStore. One round trip."""
        name = self._prefix + key

        async def ask(client: Any) -> tuple[bytes | None, int]:  # noqa: ANN401 - see RedisLink
            async with client.pipeline(transaction=False) as pipeline:
                value, ttl_ms = await pipeline.get(name).pttl(name).execute()
                return value, ttl_ms

        value, ttl_ms = await self._call("get", ask)
        # Not positive: it ended between the two commands, or somebody else put it there without an end.
        return None if value is None or ttl_ms <= 0 else (value, ttl_ms / 1000)

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        """See Store."""
        name = self._prefix + key
        if ttl_s <= 0:
            await self._call("put", lambda client: client.delete(name))
        else:
            ttl_ms = max(1, int(min(ttl_s, _LONGEST_TTL_S) * 1000))
            await self._call("put", lambda client: client.set(name, value, px=ttl_ms))

    async def aclose(self) -> None:
        """Close all connections, used ones too."""
        await self._link.aclose()

    async def _call(self, operation: Operation, command: Callable[[Any], Awaitable[T]]) -> T:
        try:
            return await self._link.call(operation, command)
        except LinkError as exc:
            raise StoreError(str(exc)) from None


class TieredStore:
    """A near store in front of a far one that others share. Fails open: a far store that is away holds nothing."""

    def __init__(
        self,
        near: Store,
        far: FarStore,
        on_error: Callable[[Operation], None],
        pause_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Call `on_error("get" | "put")` for each failed call, then leave the far store alone for `pause_s`."""
        self._near = near
        self._far = far
        self._on_error = on_error
        self._breaker = Breaker(pause_s, clock)

    async def get(self, key: bytes) -> bytes | None:
        """Return the near value, else the far one, which is kept near for as long as it has left. Never raises."""
        value = await self._near.get(key)
        if value is not None or not self._breaker.allows():
            return value
        try:
            found = await self._far.get_with_ttl(key)
        except StoreError:
            self._failed("get")
            return None
        self._breaker.worked()
        if found is None:
            return None
        value, ttl_s = found
        await self._near.put(key, value, ttl_s)
        return value

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        """Keep the value near and far. Never raises. The far write takes a round trip: no client need wait for it."""
        await self._near.put(key, value, ttl_s)
        if not self._breaker.allows():
            return
        try:
            await self._far.put(key, value, ttl_s)
        except StoreError:
            self._failed("put")
        else:
            self._breaker.worked()

    async def aclose(self) -> None:
        """Close both."""
        await self._near.aclose()
        await self._far.aclose()

    def _failed(self, operation: Operation) -> None:
        self._breaker.failed()
        self._on_error(operation)
