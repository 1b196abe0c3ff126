"""The response cache: which answers may be kept, under which name, and finding them again.

The name begins with the tenant, so one tenant's answer can never be another's, and with its generation, so that a purge
is a new name. A store that fails is a miss, never an error.
"""

from __future__ import annotations

import hashlib
import struct
import time
import zlib
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.apis.answers import is_complete
from gateway.encoding import encode
from gateway.errors import NotCached
from gateway.stages import EVENT_STREAM, Keyed, Located, Operation, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.generations import Generation
    from gateway.key_ring import CachePolicy
    from gateway.stores import Store

MAX_ENTRY_BYTES = 4 * 1024 * 1024
"""A longer answer is passed on but not kept: one of them would push out thousands."""
PACK_BYTES = 2048
"""Shorter answers do not shrink enough to pay for it."""
NEVER_S = -1.0
"""An age that no answer is below."""
MAX_AGE_DIGITS = 9
KEY_VERSION = b"3"
"""Change it when the meaning of a key or an entry changes: old entries in Redis are then never found."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A kept answer: the bytes that the client got, and when (seconds since the epoch)."""

    made_at: float
    content_type: bytes
    packed: bool
    body: bytes

    def unpacked(self) -> bytes:
        """The body as the client got it."""
        return zlib.decompress(self.body) if self.packed else self.body


def entry_of(reply: Reply, body: bytes, made_at: float) -> Entry:
    """The answer to be kept, compressed if that is worth while."""
    packed = len(body) > PACK_BYTES
    return Entry(made_at, reply.content_type, packed, zlib.compress(body, 1) if packed else body)


HEAD_BYTES = 10
"""Of a kept answer, up to when it was made."""


def made_at(head: bytes) -> float | None:
    """When an answer was made, from its first HEAD_BYTES (msgpack: an array of four, a float); None for others."""
    is_entry = len(head) == HEAD_BYTES and head[:2] == b"\x94\xcb"
    return struct.unpack(">d", head[2:])[0] if is_entry else None


class Wish(msgspec.Struct, frozen=True):
    """What a client's `Cache-Control` asks for (RFC 9111, 5.2.1); unknown directives are ignored, as it says."""

    no_store: bool = False
    no_cache: bool = False
    max_age_s: int | None = None
    only_cached: bool = False


NO_WISH = Wish()


def wish_of(header: bytes | None) -> Wish:
    """Read the header; absent means no wish at all."""
    if header is None:
        return NO_WISH
    directives = dict(item.strip().lower().partition(b"=")[::2] for item in header.split(b","))
    age = directives.get(b"max-age", b"").strip(b'" ')
    return Wish(
        no_store=b"no-store" in directives,
        no_cache=b"no-cache" in directives,
        max_age_s=int(age) if age.isdigit() and len(age) <= MAX_AGE_DIGITS else None,
        only_cached=b"only-if-cached" in directives,
    )


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


def is_deterministic(body: dict[str, Any]) -> bool:
    """Whether the same request asks for the same answer: greedy decoding, asked for in so many words."""
    return body.get("temperature") == 0


def key_of(located: Located, revision: str) -> bytes:
    """The request's name: tenant, operation, weights' revision, every field, each picture by content and pixel budget.

    Two URLs of one picture give one name. Rewrites the pictures' parts, whose URLs nobody needs from here on.
    """
    for picture in located.pictures:
        picture.part.slot.update(picture.part.fields(f"{picture.digest.hex()}@{picture.part.max_pixels}", ""))
    identified = located.parsed.identified
    head = (KEY_VERSION, identified.allowed.raw.operation, revision, identified.key.tenant)
    name = hashlib.blake2b(_encode(head), digest_size=32)
    name.update(encode(located.parsed.body, sort_keys=True))
    return name.digest()


class ResponseCache:
    """Names, finds and keeps answers."""

    def __init__(
        self,
        store: Store,
        generation: Generation,
        *,
        policy: CachePolicy,
        ttl_s: float,
        revision: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`ttl_s` is how long an answer lives, `revision` names the weights that gave it, `clock` tells its age."""
        self._store = store
        self._generation = generation
        self._policy = policy
        self._ttl_s = ttl_s
        self._revision = revision
        self._clock = clock

    def key(self, located: Located) -> Keyed:
        """Name the request, or mark it as none of the cache's business."""
        identified = located.parsed.identified
        wish = wish_of(identified.allowed.raw.head.headers.get(b"cache-control"))
        policy = identified.key.cache_policy or self._policy
        eligible = (
            policy != "never"
            and not wish.no_store
            and identified.allowed.raw.operation is not Operation.MODELS
            and (policy == "always" or is_deterministic(located.parsed.body))
        )
        oldest_s = NEVER_S if wish.no_cache else wish.max_age_s
        name = None
        if eligible:
            name = self._generation.space(identified.key.tenant) + key_of(located, self._revision)
        return Keyed(located, name, oldest_s, wish.only_cached)

    async def find(self, keyed: Keyed) -> Reply | None:
        """The kept answer, a stream as one piece; None on a miss. Raises NotCached if the client wants nothing else."""
        value = None if keyed.cache_key is None else await self._store.get(keyed.cache_key)
        if value is not None:
            entry = _decode(value)
            age_s = max(0.0, self._clock() - entry.made_at)
            if keyed.oldest_s is None or age_s <= keyed.oldest_s:
                self._generation.hit(keyed.located.parsed.identified.key.tenant)
                return Reply(entry.unpacked(), entry.content_type, "hit", int(age_s))
        if keyed.only_cached:
            raise NotCached("No kept answer fits, and `Cache-Control: only-if-cached` allows no other.")
        return None

    async def keep(self, name: bytes, reply: Reply, body: bytes) -> None:
        """Keep a complete answer.

        Not kept: one that vLLM cut off, a stream that failed or has no end, a long one, one begun before a purge.
        """
        streamed = reply.content_type == EVENT_STREAM
        if len(body) > MAX_ENTRY_BYTES or not is_complete(body, reply.document, streamed=streamed):
            return
        if not self._generation.is_current(name):
            return
        await self._store.put(name, _encode(entry_of(reply, body, self._clock())), self._ttl_s)
