"""What a request takes of its key's limits: priced and charged before an engine works, then settled with its usage.

Kept answers are free: they come before this step. A follower of an answer under way is free too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import orjson

from gateway.limits import Limiter, Limits
from gateway.pricing import price
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

    def settled(self, reply: Reply, grant: Grant) -> Reply:
        """The reply, whose end settles and releases the grant."""
        if isinstance(reply.body, bytes):
            settle(grant, reply.body)
            grant.release()
            return replace(reply, headers=grant.headers())

        def release() -> None:
            reply.release()
            grant.release()

        return replace(reply, headers=grant.headers(), body=_metered(reply.body, grant), release=release)

    async def aclose(self) -> None:
        """Tell the store what is left to tell."""
        await self._limiter.aclose()


def limits_of(key: Key) -> Limits:
    """The key's own limits."""
    return Limits(key.requests_per_minute, key.tokens_per_minute, key.concurrent_requests, key.tokens_per_day)


def settle(grant: Grant, body: bytes) -> None:
    """Book what the engine counted; an answer that tells no usage stays at its price."""
    try:
        usage = orjson.loads(body).get("usage") or {}
    except (orjson.JSONDecodeError, AttributeError):
        return
    if isinstance(total := usage.get("total_tokens"), int):
        grant.settle(total)


async def _metered(chunks: AsyncIterator[bytes], grant: Grant) -> AsyncIterator[bytes]:
    """The chunks unchanged; a stream that ends with its usage (`stream_options.include_usage`) settles the grant."""
    tail = b""
    async for chunk in chunks:
        tail += chunk
        if len(tail) > MAX_TAIL_BYTES:
            tail = tail[-USAGE_TAIL_BYTES:]
        yield chunk
    if (total := usage_of(tail[-USAGE_TAIL_BYTES:])) is not None:
        grant.settle(total)


USAGE_TAIL_BYTES = 2048
"""The last event before `[DONE]` holds the usage and little else."""
MAX_TAIL_BYTES = 4 * USAGE_TAIL_BYTES
"""Cut only so often: most chunks are a few hundred bytes."""
