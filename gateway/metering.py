"""What a request takes of its key's limits: priced and charged before an engine works, then settled with its usage.

Kept answers are free: they come before this step. A follower of an answer under way is free too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import orjson

from gateway.counting import EVENT_END, count_tokens, tokens_of
from gateway.limits import Limiter, Limits
from gateway.pricing import image_tokens, price, prompt_text_tokens
from gateway.sse import usage_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.key_ring import Key
    from gateway.limits import Grant
    from gateway.stages import Keyed, Reply


class Metering:
    """Charges keys; a key without limits costs nothing."""

    def __init__(
        self, limiter: Limiter, defaults: Limits, *, default_output_tokens: int, max_output_tokens: int
    ) -> None:
        """`defaults` are the limits of keys without their own; the tokens are what an answer is priced at."""
        self._limiter = limiter
        self._defaults = defaults
        self._default_output_tokens = default_output_tokens
        self._max_output_tokens = max_output_tokens

    async def charge(self, keyed: Keyed) -> Grant:
        """Take the request's price from its key's limits. Raises LimitExceeded; to be released when it is over."""
        key = keyed.located.parsed.identified.key
        limits = limits_of(key).or_else(self._defaults)
        tokens = 0
        if limits.tokens_per_minute or limits.tokens_per_day:
            tokens = price(
                keyed.located,
                default_output_tokens=self._default_output_tokens,
                max_output_tokens=self._max_output_tokens,
            ).total
        return await self._limiter.admit(key.id, limits, tokens)

    def settled(self, reply: Reply, grant: Grant, keyed: Keyed) -> Reply:
        """The reply, whose end settles and releases the grant and counts the tokens."""
        if isinstance(reply.body, bytes):
            book(grant, keyed, usage_in(reply.body))
            grant.release()
            return replace(reply, headers=grant.headers())

        def release() -> None:
            reply.release()
            grant.release()

        return replace(reply, headers=grant.headers(), body=_metered(reply.body, grant, keyed), release=release)

    async def aclose(self) -> None:
        """Tell the store what is left to tell."""
        await self._limiter.aclose()


def limits_of(key: Key) -> Limits:
    """The key's own limits."""
    return Limits(key.requests_per_minute, key.tokens_per_minute, key.concurrent_requests, key.tokens_per_day)


def usage_in(body: bytes) -> object:
    """The `usage` of a whole answer, whatever it is."""
    try:
        return orjson.loads(body).get("usage")
    except (orjson.JSONDecodeError, AttributeError):
        return None


def book(grant: Grant, keyed: Keyed, usage: object, events: int | None = None) -> None:
    """Settle with what the engine counted, and count it; an answer that tells no usage stays at its price.

    A stream without usage is counted, and not settled: its `events` for its answer, its prompt by estimate.
    """
    located = keyed.located
    identified = located.parsed.identified
    sizes = [image_tokens(p.info.width, p.info.height, p.part.max_pixels) for p in located.pictures]
    if (counted := tokens_of(usage)) is not None:
        grant.settle(sum(counted))
    elif events is not None:
        counted = prompt_text_tokens(located.parsed.body) + sum(sizes), max(0, events - FRAME_EVENTS)
    else:
        return
    prompt, completion = counted
    count_tokens(identified.key.tenant, prompt=prompt, completion=completion, image=sum(sizes), images=len(sizes))
    identified.allowed.raw.timer.facts |= {"prompt_tokens": prompt, "completion_tokens": completion}


async def _metered(chunks: AsyncIterator[bytes], grant: Grant, keyed: Keyed) -> AsyncIterator[bytes]:
    """The chunks unchanged; a stream that ends with its usage (`stream_options.include_usage`) settles the grant."""
    tail, events = b"", 0
    async for chunk in chunks:
        tail = (tail + chunk)[-USAGE_TAIL_BYTES:]
        events += chunk.count(EVENT_END)
        yield chunk
    book(grant, keyed, usage_of(tail), events)


FRAME_EVENTS = 2
"""Of a stream's events, the one that opens it with the role and `[DONE]` hold no token."""


USAGE_TAIL_BYTES = 2048
"""The last event before `[DONE]` holds the usage and little else."""
