"""What a request takes of its key's limits: priced and charged before an engine works, then settled with its usage.

Kept answers are free: they come before this step. A follower of an answer under way is free too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.apis import api_of
from gateway.apis.answers import document_of, usage_of
from gateway.counting import count_tokens
from gateway.limits import Limiter, Limits
from gateway.pricing import image_tokens, price
from gateway.sse import Watched

if TYPE_CHECKING:
    from gateway.apis.answers import Usage
    from gateway.key_ring import Key
    from gateway.limits import Grant
    from gateway.stages import Keyed, Reply


MOST_REMEMBERED = 10_000
"""Keys whose limits are at hand; beyond, those of keys that are gone would pile up."""


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
        self._limits: dict[str, tuple[Key, Limits]] = {}
        """By the key's id."""

    async def charge(self, keyed: Keyed) -> Grant:
        """Take the request's price from its key's limits. Raises LimitExceeded; to be released when it is over."""
        key = keyed.located.parsed.identified.key
        limits = self._limits_of(key)
        tokens = 0
        if limits.tokens_per_minute or limits.tokens_per_day:
            tokens = price(
                keyed.located,
                default_output_tokens=self._default_output_tokens,
                max_output_tokens=self._max_output_tokens,
            ).total
        return await self._limiter.admit(key.id, limits, tokens)

    def _limits_of(self, key: Key) -> Limits:
        known = self._limits.get(key.id)
        if known is None or known[0] is not key:  # A key file that was read anew holds keys of its own.
            if len(self._limits) >= MOST_REMEMBERED:
                self._limits.clear()
            known = self._limits[key.id] = key, limits_of(key).or_else(self._defaults)
        return known[1]

    def settled(self, keyed: Keyed, reply: Reply, grant: Grant) -> Reply:
        """The reply, whose end settles and releases the grant and counts the tokens.

        An answer that tells no usage stays at its price.
        """
        parsed = keyed.located.parsed
        raw = parsed.identified.allowed.raw

        def settle(usage: Usage) -> None:
            raw.timer.facts["prompt_tokens"] = usage.prompt
            raw.timer.facts["completion_tokens"] = usage.output
            grant.settle(usage.prompt + usage.output)
            pictures = keyed.located.pictures
            image = 0
            for one in pictures:
                image += image_tokens(one.info.width, one.info.height, one.part.max_pixels)
            count_tokens(
                parsed.identified.key.tenant,
                prompt=usage.prompt,
                completion=usage.output,
                image=image,
                images=len(pictures),
            )

        if isinstance(reply.body, bytes):
            document = document_of(reply.body)
            if (usage := usage_of(document)) is not None:
                settle(usage)
            grant.release()
            return replace(reply, headers=grant.headers(), document=document)

        def release() -> None:
            reply.release()
            grant.release()

        body = Watched(reply.body, api_of(raw.operation), settle, hides_usage=parsed.hides_usage)
        return replace(reply, headers=grant.headers(), body=body, release=release)

    async def aclose(self) -> None:
        """Tell the store what is left to tell."""
        await self._limiter.aclose()


def limits_of(key: Key) -> Limits:
    """The key's own limits."""
    return Limits(key.requests_per_minute, key.tokens_per_minute, key.concurrent_requests, key.tokens_per_day)
