"""Where a key's limits are counted: what a store promises, and the store in this process.

The count is a sliding window of one-second buckets in a ring of 61: the current second, which is not over, and the 60
before it. So N of a cold key pass at once, and never more than N in any 60 s; what was taken comes back 60 to 61 s
later (never early, at most a second late). A key costs the same memory whatever its limits and its traffic.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW_S = 60
SLOTS = WINDOW_S + 1
DAY_S = 86_400
CONCURRENCY_WAIT_MS = 1_000
"""Nobody knows when a request under way will end: a guess that keeps clients from asking all the time."""
_FIRST_SWEEP = 1_024
NO_WAIT = (0, 0, 0, 0)
"""Every limit has room."""

Dimension = Literal["requests", "tokens", "concurrency", "daily_tokens"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)


class LimitStoreError(Exception):
    """The limits could not be asked. The text holds no password."""


class Limits(msgspec.Struct, frozen=True):
    """What a key may take; each at least 1, or None for no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    tokens_per_day: int | None = None
    """A day is one of UTC."""

    def or_else(self, defaults: Limits) -> Limits:
        """These limits, and `defaults` where there is none."""
        return Limits(
            self.requests_per_minute if self.requests_per_minute is not None else defaults.requests_per_minute,
            self.tokens_per_minute if self.tokens_per_minute is not None else defaults.tokens_per_minute,
            self.concurrent_requests if self.concurrent_requests is not None else defaults.concurrent_requests,
            self.tokens_per_day if self.tokens_per_day is not None else defaults.tokens_per_day,
        )

    @property
    def need_an_end(self) -> bool:
        """Whether the end of a request must be told: it frees a place or corrects a charge."""
        return not (self.tokens_per_minute is self.concurrent_requests is self.tokens_per_day is None)


class Meter(msgspec.Struct, frozen=True):
    """How far a limit by the minute is used."""

    limit: int
    remaining: int
    reset_ms: int
    """Until nothing counts any more."""

    @classmethod
    def of(cls, limit: int | None, used: int, reset_ms: int) -> Meter | None:
        """None where there is no limit. More than the limit may be used: it may have been lowered."""
        return None if limit is None else cls(limit, max(0, limit - used), reset_ms)


class Charge(msgspec.Struct, frozen=True):
    """Where a request was booked, to correct it by when it ends."""

    key_id: str
    lease: str
    tokens: int
    by_minute: bool
    by_day: bool
    second: int
    day: int
    epoch: bytes = b""


class Verdict(msgspec.Struct, frozen=True):
    """What a store says to a request."""

    refused_by: Dimension | None
    """The limit that takes longest to have room again, if any has none."""
    wait_ms: int
    requests: Meter | None
    tokens: Meter | None
    charge: Charge | None
    """None when refused, and when there is nothing to tell at the end."""


class LimitStore(Protocol):
    """Counts per key. A refusal takes nothing."""

    async def admit(self, key_id: str, limits: Limits, tokens: int) -> Verdict:
        """Take one request of `tokens` from every limit, or nothing. Raises LimitStoreError."""

    def finish(self, charge: Charge, actual_tokens: int) -> None:
        """Free the place and correct the charge; to be called once for each charge. Never raises, never waits."""

    async def aclose(self) -> None:
        """Send what is left to be sent, release connections. Never raises."""


class MemoryLimitStore:
    """Counts in this process. Exact for one process; several each allow the whole limit."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives Unix seconds, as days are those of the calendar. Steps back of it do no harm."""
        self._clock = clock
        self._books: dict[str, _Book] = {}
        self._sweep_at = _FIRST_SWEEP

    def __len__(self) -> int:
        return len(self._books)

    async def admit(self, key_id: str, limits: Limits, tokens: int) -> Verdict:
        """See LimitStore. Never raises."""
        now_s = self._clock()
        book = self._books.get(key_id) or self._new_book(key_id, now_s)
        return book.admit(key_id, limits, tokens, now_s)

    def finish(self, charge: Charge, actual_tokens: int) -> None:
        """See LimitStore."""
        book = self._books.get(charge.key_id)
        if book is not None:
            book.finish(charge, actual_tokens - charge.tokens, self._clock())

    async def aclose(self) -> None:
        """See LimitStore."""
        self._books.clear()

    def _new_book(self, key_id: str, now_s: float) -> _Book:
        if len(self._books) >= self._sweep_at:
            # Keys come and go; the books of those that are gone must not pile up.
            self._books = {name: book for name, book in self._books.items() if not book.idle(now_s)}
            self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._books))
        book = self._books[key_id] = _Book(int(now_s))
        return book


class _Ring:
    """Amounts by the second, and their sum over the window."""

    __slots__ = ("last", "slots", "total")

    def __init__(self) -> None:
        self.slots = [0] * SLOTS
        self.total = 0
        self.last = 0

    def add(self, second: int, amount: int) -> None:
        self.slots[second % SLOTS] += amount
        self.total += amount
        self.last = second

    def take_back(self, second: int, amount: int) -> None:
        back = min(amount, self.slots[second % SLOTS])
        self.slots[second % SLOTS] -= back
        self.total -= back

    def clear(self, second: int) -> None:
        self.total -= self.slots[second % SLOTS]
        self.slots[second % SLOTS] = 0

    def wait_ms(self, head: int, now_ms: int, missing: int) -> int:
        """When `missing` will have come back; a whole window for more than there is."""
        for old in range(head - SLOTS + 1, head + 1):
            missing -= self.slots[old % SLOTS]
            if missing <= 0:
                return (old + SLOTS) * 1000 - now_ms
        return SLOTS * 1000

    def meter(self, limit: int | None, now_ms: int) -> Meter | None:
        if limit is None:
            return None
        used = self.total
        return Meter(limit, max(0, limit - used), (self.last + SLOTS) * 1000 - now_ms if used else 0)


class _Book:
    """One key's counts."""

    __slots__ = ("day", "head", "requests", "running", "spent", "tokens")

    def __init__(self, second: int) -> None:
        self.head = second
        self.requests = _Ring()
        self.tokens = _Ring()
        self.day = second // DAY_S
        self.spent = 0
        self.running = 0

    def idle(self, now_s: float) -> bool:
        return not self.running and self.head < now_s - SLOTS and (not self.spent or self.day < now_s // DAY_S)

    def admit(self, key_id: str, limits: Limits, tokens: int, now_s: float) -> Verdict:
        now_ms = self._turn(now_s)
        waits = self._waits(limits, tokens, now_ms)
        refused_by: Dimension | None = None
        charge: Charge | None = None
        wait_ms = 0
        if waits == NO_WAIT:
            charge = self._take(key_id, limits, tokens)
        else:
            wait_ms = max(waits)
            refused_by = DIMENSIONS[waits.index(wait_ms)]
        return Verdict(
            refused_by,
            wait_ms,
            self.requests.meter(limits.requests_per_minute, now_ms),
            self.tokens.meter(limits.tokens_per_minute, now_ms),
            charge,
        )

    def _waits(self, limits: Limits, tokens: int, now_ms: int) -> tuple[int, int, int, int]:
        """Milliseconds until each limit has room, in the order of DIMENSIONS; 0 where it has."""
        by_request = by_token = by_place = by_day = 0
        limit = limits.requests_per_minute
        if limit is not None and self.requests.total >= limit:
            by_request = self.requests.wait_ms(self.head, now_ms, self.requests.total + 1 - limit)
        limit = limits.tokens_per_minute
        if limit is not None and tokens and self.tokens.total + tokens > limit:
            by_token = self.tokens.wait_ms(self.head, now_ms, self.tokens.total + tokens - limit)
        if limits.concurrent_requests is not None and self.running >= limits.concurrent_requests:
            by_place = CONCURRENCY_WAIT_MS
        if limits.tokens_per_day is not None and tokens and self.spent + tokens > limits.tokens_per_day:
            by_day = (self.day + 1) * DAY_S * 1000 - now_ms
        return by_request, by_token, by_place, by_day

    def _take(self, key_id: str, limits: Limits, tokens: int) -> Charge | None:
        by_minute, by_day = limits.tokens_per_minute is not None, limits.tokens_per_day is not None
        if limits.requests_per_minute is not None:
            self.requests.add(self.head, 1)
        if by_minute and tokens:
            self.tokens.add(self.head, tokens)
        if by_day:
            self.spent += tokens
        if not limits.need_an_end:
            return None
        self.running += 1
        return Charge(key_id, "", tokens, by_minute, by_day, self.head, self.day)

    def finish(self, charge: Charge, more: int, now_s: float) -> None:
        self._turn(now_s)
        self.running -= 1
        if more > 0:
            # Known only now, so it counts from now: a charge is never lost, whatever has passed since.
            if charge.by_minute:
                self.tokens.add(self.head, more)
            self.spent += more if charge.by_day else 0
        elif more < 0:
            if charge.by_minute and self.head - SLOTS < charge.second <= self.head:
                self.tokens.take_back(charge.second, -more)
            if charge.by_day and charge.day == self.day:
                self.spent = max(0, self.spent + more)

    def _turn(self, now_s: float) -> int:
        """Bring the rings and the day to this second; gives the time in ms, which never runs back."""
        second = int(now_s)
        if second == self.head:  # Mostly it is; and the day is that of the head.
            return int(now_s * 1000)
        steps = second - self.head
        if abs(steps) > SLOTS:  # A clock far off starts the rings anew; one a little back stands still.
            self.head, steps = second - SLOTS, SLOTS
        for old in range(self.head + 1, self.head + steps + 1):
            self.requests.clear(old)
            self.tokens.clear(old)
        self.head += max(0, steps)
        if self.day != self.head // DAY_S:
            self.day, self.spent = self.head // DAY_S, 0
        return max(self.head * 1000, int(now_s * 1000))
