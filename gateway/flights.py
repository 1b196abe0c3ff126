"""Single flight: identical requests that are under way at once cost one answer by the engine.

Every client reads along, from the first byte, however late it joined, and none is special: whoever leaves, the others
go on. When the last one has left, the work is cancelled. It is done in the task of the request that was first, which
stays for the others when its client leaves; only what follows a stream's first event has a task of its own. Most
answers have one reader, and a task for each would be 8 % of a request.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.errors import GatewayError, InternalError, Stopping
from gateway.telemetry import REQUESTS_JOINED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from gateway.disconnect import CancelledWhenGone
    from gateway.stages import Reply
    from gateway.streams import Pause, Sink, Stream

    Start = Callable[[], Awaitable[Reply]]
    Keep = Callable[[bytes, Reply, bytes], Awaitable[None]]


log = logging.getLogger(__name__)


class _Live:
    """A reader that has got all there is, and takes the next piece as it comes."""

    __slots__ = ("at", "sink", "stopped")

    def __init__(self, at: int, sink: Sink) -> None:
        self.at = at
        """How many pieces it had got when it came, or stopped."""
        self.sink = sink
        self.stopped: asyncio.Future[Pause | None] = asyncio.get_running_loop().create_future()


class Flight:
    """One answer on its way to any number of readers. Its chunks stay until the last reader is through."""

    def __init__(self) -> None:
        """No readers and nothing there yet."""
        self.task: asyncio.Task[None] | None = None
        self._reply: Reply | None = None
        self._error: GatewayError | None = None
        self._chunks: list[bytes] = []
        self._complete = False
        self._readers = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._live: list[_Live] = []

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for reader in waiting:
            if not reader.done():  # It may have left.
                reader.set_result(None)

    def _news(self) -> asyncio.Future[None]:
        # Asked for in the same turn of the loop in which there was nothing new, so that no reader misses any.
        reader = asyncio.get_running_loop().create_future()
        self._waiting.append(reader)
        return reader

    def land(self, reply: Reply) -> None:
        """The answer's head is here."""
        self._reply = reply
        self._tell()

    def settle(self, reply: Reply) -> None:
        """All of an answer that comes whole is here."""
        self._reply = reply
        self._complete = True
        if self._waiting:
            self._tell()

    def add(self, chunk: bytes) -> None:
        """Another piece of a stream is here."""
        self._chunks.append(chunk)
        for reader in self._live.copy():
            stopped = reader.stopped
            if stopped.done():  # It has just left.
                continue
            try:
                pause = reader.sink(chunk)
            except Exception as exc:  # noqa: BLE001 - goes to that reader alone
                stopped.set_exception(exc)
            else:
                if pause is None:
                    continue
                stopped.set_result(pause)
            # It reads up again once it can take more.
            reader.at = len(self._chunks)
            self._live.remove(reader)

    def complete(self) -> None:
        """All of it is here."""
        self._complete = True
        self._tell()
        live, self._live = self._live, []
        for reader in live:
            reader.at = len(self._chunks)
            if not reader.stopped.done():
                reader.stopped.set_result(None)

    def fail(self, error: GatewayError) -> None:
        """There will be no answer; every reader is told so."""
        self._error = error
        self.complete()

    @property
    def whole(self) -> bytes:
        """What is here of the body."""
        return b"".join(self._chunks)

    async def head(self) -> Reply:
        """The reply's head, as soon as it is here. Raises what the work raised."""
        while self._reply is None and self._error is None:
            await self._news()
        if self._error is not None:
            raise self._error
        assert self._reply is not None  # noqa: S101 - the loop above
        return self._reply

    async def pour(self, sink: Sink) -> None:
        """See Stream: the body from its first byte."""
        at = 0
        while True:
            while at < len(self._chunks):
                pause = sink(self._chunks[at])
                at += 1
                if pause is not None:
                    await pause
            if self._complete:
                return
            reader = _Live(at, sink)
            self._live.append(reader)
            try:
                pause = await reader.stopped
            finally:
                if reader in self._live:
                    self._live.remove(reader)
            at = reader.at
            if pause is not None:
                await pause

    @property
    def is_wanted(self) -> bool:
        """Whether there is anybody to read it."""
        return self._readers > 0

    def enter(self) -> None:
        """Count a reader."""
        self._readers += 1

    def leave(self) -> bool:
        """Count a reader off; whether the work is now for nobody."""
        self._readers -= 1
        return self._readers == 0 and not self._complete


class Flights:
    """The answers under way in this process, by cache key."""

    def __init__(self, keep: Keep, *, keeps_far: bool = False) -> None:
        """`keep(key, reply, body)` is awaited with each complete answer, before its key is free again.

        `keeps_far` says that this takes a round trip, for which nobody waits.
        """
        self._keep = keep
        self._keeps_far = keeps_far
        self._under_way: dict[bytes, Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def join(self, key: bytes, start: Start, block: CancelledWhenGone) -> Reply:
        """The answer under way for `key`, or the one that `start` begins. Raises what the work raises.

        `block` is the request's own: what `start` begins is done in its task, up to a stream's first event.
        """
        flight = self._under_way.get(key)
        if flight is None:
            flight = self._under_way[key] = Flight()
            return await self._led(key, flight, start, block)
        REQUESTS_JOINED.inc()
        flight.enter()
        try:
            reply = await flight.head()
        except BaseException:
            self._leave(key, flight)
            raise
        if isinstance(reply.body, bytes):
            self._leave(key, flight)
            return replace(reply, cache="hit", release=nothing)
        return replace(reply, body=flight, cache="hit", release=lambda: self._leave(key, flight))

    async def _led(self, key: bytes, flight: Flight, start: Start, block: CancelledWhenGone) -> Reply:
        """The answer for who is first."""

        def stays() -> bool:
            if flight.leave():
                self._drop(key, flight)
            return flight.is_wanted

        flight.task = block.task
        flight.enter()
        block.stays = stays
        try:
            reply = await start()
        except GatewayError as exc:
            self._drop(key, flight)
            flight.fail(exc)
            raise
        except BaseException as exc:
            self._drop(key, flight)
            error = _told(exc)
            flight.fail(error)
            if isinstance(exc, Exception):
                raise error from exc
            raise
        finally:
            block.stays = None
        if isinstance(reply.body, bytes):
            reply.release()
            flight.settle(reply)
            kept = self._settled(key, flight, reply, reply.body)
            if self._keeps_far:
                self._in_task(kept)
            else:
                await kept
            block.check()
            return replace(reply, cache="miss", release=nothing)
        flight.task = self._in_task(self._poured(key, flight, reply, reply.body))
        flight.task.add_done_callback(lambda _: reply.release())  # It may be cancelled before it begins.
        flight.land(reply)
        if not flight.is_wanted:  # The client left in this very moment.
            flight.task.cancel()
        block.check()
        return replace(reply, body=flight, cache="miss", release=lambda: self._leave(key, flight))

    async def _poured(self, key: bytes, flight: Flight, reply: Reply, stream: Stream) -> None:
        try:
            try:
                await stream.pour(flight.add)
            finally:
                reply.release()
            flight.complete()
            await self._settled(key, flight, reply, flight.whole)
        except GatewayError as exc:
            flight.fail(exc)
        except Exception as exc:  # noqa: BLE001 - the outermost rescue of this task: else every reader would wait for ever
            flight.fail(_told(exc))
        finally:
            self._drop(key, flight)

    async def _settled(self, key: bytes, flight: Flight, reply: Reply, body: bytes) -> None:
        try:
            await self._keep(key, reply, body)
        except Exception:
            # The answer is given all the same.
            log.exception("an answer was not kept")
        finally:
            self._drop(key, flight)

    def _in_task(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _leave(self, key: bytes, flight: Flight) -> None:
        if flight.leave() and flight.task is not None:
            self._drop(key, flight)
            flight.task.cancel()

    def _drop(self, key: bytes, flight: Flight) -> None:
        if self._under_way.get(key) is flight:
            del self._under_way[key]

    async def aclose(self) -> None:
        """End what is still under way in tasks of its own."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _told(exc: BaseException) -> GatewayError:
    """What readers are told of a work that has ended with a defect, which is logged, or with its process."""
    if not isinstance(exc, Exception):
        return Stopping("The gateway is being stopped: try again.", retry_after_s=2)
    log.error("an answer failed", exc_info=exc)
    return InternalError("Something broke here; the gateway's log has the trace.")


def nothing() -> None:
    """Release nothing: the flight holds what is to be released."""
