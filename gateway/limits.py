"""What a key may take: requests and tokens a minute, requests at once, tokens a day.

Decides nothing but that; `pricing.py` says what a request costs, a store counts. Which way it fails: open. A store
that is away lets the request through without limits, and `on_error` counts it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from gateway.errors import GatewayError
from gateway.limit_stores import Limits, LimitStoreError
from gateway.telemetry import LIMITS_REFUSED

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.limit_stores import Charge, Dimension, LimitStore, Meter, Verdict

    Headers = tuple[tuple[bytes, bytes], ...]

__all__ = ["BudgetSpent", "Grant", "LimitExceeded", "Limiter", "Limits", "RequestTooLarge", "duration"]

NO_LIMITS = Limits()
_OF_REQUESTS, _OF_TOKENS = (
    (b"x-ratelimit-limit-" + of, b"x-ratelimit-remaining-" + of, b"x-ratelimit-reset-" + of)
    for of in (b"requests", b"tokens")
)
_DO_NOT_RETRY = ((b"x-should-retry", b"false"),)
"""OpenAI's SDKs obey it: without it they would send what cannot succeed twice more."""


class LimitExceeded(GatewayError):
    """429: the key's limit has no room now; it will within `retry_after_s`."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    fault_of = "limit"
    more_headers: ClassVar[Headers] = ()

    def __init__(
        self, which: Dimension, message: str, *, retry_after_s: int | None = None, headers: Headers = ()
    ) -> None:
        """`which` limit; `headers` go with the answer."""
        super().__init__(message, retry_after_s=retry_after_s)
        self.which = which
        self.headers = headers + self.more_headers


class RequestTooLarge(LimitExceeded):
    """429: the request alone is more than the limit, so waiting does not help."""

    more_headers = _DO_NOT_RETRY


class BudgetSpent(LimitExceeded):
    """429: nothing is left for today."""

    code = "insufficient_quota"
    more_headers = _DO_NOT_RETRY


class Grant:
    """A request that was let in. Tell what it took with `settle`, then, when it is over, `release`; neither waits."""

    __slots__ = ("_actual_tokens", "_charge", "_requests", "_store", "_tokens")

    def __init__(self, store: LimitStore | None = None, verdict: Verdict | None = None) -> None:
        """Without a verdict: let in without limits, and nothing to give back."""
        self._store = store
        self._charge: Charge | None = verdict.charge if verdict else None
        self._requests = verdict.requests if verdict else None
        self._tokens = verdict.tokens if verdict else None
        self._actual_tokens: int | None = None

    def settle(self, actual_tokens: int) -> None:
        """Say what the request really took; 0 if no engine worked for it. The first word counts.

        The difference to what was charged is booked once, by `release`. Without a word the charge stays as it is.
        """
        if self._actual_tokens is None:
            self._actual_tokens = max(0, actual_tokens)

    def release(self) -> None:
        """Free the place and book the difference. May be called from a `finally`, and more than once."""
        charge, self._charge = self._charge, None
        if charge is not None and self._store is not None:
            actual_tokens = charge.tokens if self._actual_tokens is None else self._actual_tokens
            self._store.finish(charge, actual_tokens)

    def headers(self) -> Headers:
        """`x-ratelimit-*` as OpenAI names them; none for a key without limits by the minute."""
        return _headers(self._requests, self._tokens)


class Limiter:
    """Lets requests in, or says which limit is reached and for how long."""

    def __init__(self, store: LimitStore, on_error: Callable[[], None]) -> None:
        """`on_error` is called for each request that goes on without limits because the store is away."""
        self._store = store
        self._on_error = on_error

    async def admit(self, key_id: str, limits: Limits, tokens: int) -> Grant:
        """Take one request of `tokens` (estimated, at least 0) from every limit of the key, or from none.

        Raises LimitExceeded (BudgetSpent, RequestTooLarge). Cancelled, it takes nothing that stays.
        """
        if limits == NO_LIMITS:
            return Grant()
        _check_size(limits, tokens)
        try:
            verdict = await self._store.admit(key_id, limits, tokens)
        except LimitStoreError:
            self._on_error()
            return Grant()
        if verdict.refused_by is not None:
            LIMITS_REFUSED.labels(verdict.refused_by).inc()
            raise _refusal(verdict.refused_by, verdict, limits, tokens)
        return Grant(self._store, verdict)

    async def aclose(self) -> None:
        """Tell the store what is left to tell, and close it."""
        await self._store.aclose()


def _check_size(limits: Limits, tokens: int) -> None:
    a_minute, a_day = limits.tokens_per_minute, limits.tokens_per_day
    if a_minute is not None and tokens > a_minute:
        raise _too_large("tokens", tokens, a_minute, "minute")
    if a_day is not None and tokens > a_day:
        raise _too_large("daily_tokens", tokens, a_day, "day")


def _too_large(which: Dimension, tokens: int, limit: int, unit: str) -> RequestTooLarge:
    return RequestTooLarge(
        which,
        f"This request asks for up to {tokens} tokens, and the key may use {limit} a {unit}: "
        "set a lower `max_tokens`, or send less text or fewer pictures.",
    )


def _refusal(which: Dimension, verdict: Verdict, limits: Limits, tokens: int) -> LimitExceeded:
    seconds = max(1, math.ceil(verdict.wait_ms / 1000))
    again = f"Try again in {duration(verdict.wait_ms)}."
    kind = BudgetSpent if which == "daily_tokens" else LimitExceeded
    if which == "requests":
        message = f"The key's limit of {limits.requests_per_minute} requests a minute is reached. {again}"
    elif which == "tokens":
        left = verdict.tokens.remaining if verdict.tokens else 0
        message = (
            f"The key may use {limits.tokens_per_minute} tokens a minute, {left} are left, and this request asks for "
            f"up to {tokens}. {again}"
        )
    elif which == "concurrency":
        message = (
            f"The key may have {limits.concurrent_requests} requests under way at once, and has. "
            "Try again when one has ended."
        )
    else:
        message = f"The key's budget of {limits.tokens_per_day} tokens a day does not cover this request. {again}"
    return kind(which, message, retry_after_s=seconds, headers=_headers(verdict.requests, verdict.tokens))


def _headers(requests: Meter | None, tokens: Meter | None) -> Headers:
    of_requests = () if requests is None else _metered(_OF_REQUESTS, requests)
    return of_requests if tokens is None else of_requests + _metered(_OF_TOKENS, tokens)


def _metered(names: tuple[bytes, bytes, bytes], meter: Meter) -> Headers:
    limit, remaining, reset = names
    return (
        (limit, b"%d" % meter.limit),
        (remaining, b"%d" % meter.remaining),
        (reset, duration(meter.reset_ms).encode()),
    )


def duration(ms: int) -> str:
    """A duration as OpenAI writes it, which is Go's way: `120ms`, `1s`, `6m0s`, `1h0m0s`; seconds rounded up."""
    if 0 < ms < 1000:  # noqa: PLR2004 - a second
        return f"{ms}ms"
    return _duration_of_s(math.ceil(ms / 1000))


@lru_cache(maxsize=128)
def _duration_of_s(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
