"""Ways to Redis that cost a bounded time: one deadline for each call, and a pause after a failure.

What is said through them is the caller's business. No error holds a password or what the server answered.
One event loop uses a link, one thread a blocking one; nothing here is safe between threads.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from redis import ConnectionPool as BlockingPool
from redis import Redis as BlockingRedis
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.connection import parse_url as parse_blocking_url
from redis.exceptions import RedisError
from redis.retry import Retry as BlockingRetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

T = TypeVar("T")

HELD_UP_S = 0.05
"""A timer that fires so late was due while the event loop was busy with something else."""
MAX_HELD_UP = 3
"""How often a deadline is put off for that."""


class LinkError(Exception):
    """Redis could not be asked. The text holds no password and no data."""


class RedisLink:
    """A pool of connections to one Redis. Connects when first used, and again after every loss."""

    def __init__(self, url: str, *, timeout_s: float, max_connections: int) -> None:
        """Prepare; nothing is sent yet. `timeout_s` bounds a whole call: a place, a connection, the round trip.

        Raises:
            ValueError: the URL is none. Its text is not repeated, since it may hold a password.

        """
        self._timeout_s = timeout_s
        self._places = asyncio.Semaphore(max_connections)
        with _told_without_its_url():
            # No socket timeouts: one deadline around the call does the same, and cheaper.
            options = _options(parse_url(url), max_connections=max_connections, retry=Retry(NoBackoff(), 0))
            self._pool = ConnectionPool(**options)
            # Refuses unknown options now, and not at the first request.
            self._pool.make_connection()  # type: ignore[no-untyped-call]
            self.where = _where(url)
        # Any: redis-py's annotations are those of the client for text as well, and of pipelines hardly any.
        self._client: Any = Redis(connection_pool=self._pool)

    def __repr__(self) -> str:
        return f"RedisLink({self.where})"

    async def call(self, operation: str, command: Callable[[Any], Awaitable[T]]) -> T:
        """What `command(client)` gives. Raises LinkError, at the latest after `timeout_s`."""
        try:
            async with _deadline(self._timeout_s), self._places:
                return await command(self._client)
        except (RedisError, OSError, TimeoutError) as exc:
            # `from None` and no text of the server's: "unknown command AUTH, with args beginning with: `password`".
            raise LinkError(f"{operation} at {self.where} failed: {type(exc).__name__}") from None

    async def aclose(self) -> None:
        """Close all connections, used ones too."""
        await self._pool.aclose()


@asynccontextmanager
async def _deadline(timeout_s: float) -> AsyncIterator[None]:
    """asyncio.timeout, but for an event loop that was itself held up: the answer may be there, still unread.

    Under a burst a loop can be busy for longer than the deadline. Without this, all its calls would fail at once, and
    requests go on without limits, although Redis is well.
    """
    loop = asyncio.get_running_loop()
    handle: asyncio.TimerHandle
    async with asyncio.timeout(None) as timeout:

        def expire(due_s: float, more: int) -> None:
            nonlocal handle
            if more and loop.time() - due_s > HELD_UP_S:
                handle = loop.call_later(timeout_s, expire, loop.time() + timeout_s, more - 1)
            else:
                timeout.reschedule(due_s)

        handle = loop.call_later(timeout_s, expire, loop.time() + timeout_s, MAX_HELD_UP)
        try:
            yield
        finally:
            handle.cancel()


class BlockingLink:
    """The same for a thread of its own or a command line: one connection, calls that block, for one thread."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        """Prepare; nothing is sent yet. `timeout_s` bounds connecting, and each wait for an answer.

        Raises:
            ValueError: the URL is none. Its text is not repeated.

        """
        with _told_without_its_url():
            retry = BlockingRetry(NoBackoff(), 0)
            parsed = parse_blocking_url(url)  # type: ignore[no-untyped-call]
            options = _options(parsed, max_connections=1, retry=retry, timeout_s=timeout_s)
            self._pool = BlockingPool(**options)
            # As above; the pool's own method would count it among the connections.
            self._pool.connection_class(**self._pool.connection_kwargs)
            self.where = _where(url)
        self._client: Any = BlockingRedis(connection_pool=self._pool)

    def __repr__(self) -> str:
        return f"BlockingLink({self.where})"

    def call(self, operation: str, command: Callable[[Any], T]) -> T:
        """What `command(client)` gives. Raises LinkError."""
        try:
            return command(self._client)
        except (RedisError, OSError) as exc:
            raise LinkError(f"{operation} at {self.where} failed: {type(exc).__name__}") from None

    def close(self) -> None:
        """Close the connection."""
        self._pool.disconnect()


def _options(url: Mapping[str, Any], *, max_connections: int, retry: object, timeout_s: float | None = None) -> Any:  # noqa: ANN401 - for redis-py
    """What the URL asks for, and ours, which win.

    RESP2 without CLIENT SETINFO connects in the fewest round trips and works with every server. No retries: a script
    whose answer was lost may have run, and must not run twice.
    """
    return {
        **url,
        "decode_responses": False,
        "driver_info": None,
        "max_connections": max_connections,
        "protocol": 2,
        "retry": retry,
        "socket_connect_timeout": timeout_s,
        "socket_timeout": timeout_s,
    }


@contextmanager
def _told_without_its_url() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, RedisError):
        raise ValueError(
            "the Redis URL cannot be used: write it like redis://user:password@host:6379/0 "
            "(rediss:// for TLS), with %-escapes for / # ? @ in the password"
        ) from None


def _where(url: str) -> str:
    """Return the part of the URL that may be shown; raise ValueError when an unescaped password may be in it."""
    parts = urlsplit(url)
    if parts.fragment or "@" in parts.path + parts.query:
        raise ValueError("the password is not escaped")
    return f"{parts.scheme}://{parts.hostname or ''}:{parts.port or 6379}" if parts.scheme != "unix" else parts.path


class Breaker:
    """Spares callers a server that has just failed: after a failure, one call each `pause_s` tries it again."""

    def __init__(self, pause_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is monotonic, in seconds."""
        self.pause_s = pause_s
        self._clock = clock
        self._paused_until_s: float | None = None

    @property
    def paused(self) -> bool:
        """Whether the last call failed."""
        return self._paused_until_s is not None

    def allows(self) -> bool:
        """Whether to try now. After a pause the first to ask probes; all others go on without until it has worked."""
        if self._paused_until_s is None:
            return True
        now_s = self._clock()
        if now_s < self._paused_until_s:
            return False
        self._paused_until_s = now_s + self.pause_s
        return True

    def worked(self) -> None:
        """A call succeeded: no pause."""
        self._paused_until_s = None

    def failed(self) -> None:
        """A call failed: pause from now."""
        self._paused_until_s = self._clock() + self.pause_s
