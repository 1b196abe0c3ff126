"""The response cache: which answers may be kept, under which name, and finding them again.

The name holds the tenant, so one tenant's answer can never be another's. A store that fails is a miss, never an error.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import orjson

from gateway.stages import EVENT_STREAM, Keyed, Located, Operation, Reply

if TYPE_CHECKING:
    from gateway.stores import Store

Policy = Literal["deterministic", "always", "never"]

STREAM_END = b"data: [DONE]"
ABORTED = b'"finish_reason":"abort"'
"""vLLM's word for an answer cut off while it drains; it comes with status 200."""
MAX_ENTRY_BYTES = 4 * 1024 * 1024
"""A longer answer is passed on but not kept: one of them would push out thousands."""
KEY_VERSION = b"1"
"""Change it when the meaning of a key or an entry changes: old entries in Redis are then never found."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A kept answer: the bytes that the client got."""

    content_type: bytes
    body: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


def is_deterministic(body: dict[str, Any]) -> bool:
    """Whether the same request asks for the same answer: greedy decoding, asked for in so many words."""
    return body.get("temperature") == 0


def key_of(located: Located, revision: str) -> bytes:
    """The request's name: tenant, operation, weights' revision, every field, each picture by content and pixel budget.

    Two URLs of one picture give one name. Rewrites the pictures' `image_url`, which nobody needs from here on.
    """
    for picture in located.pictures:
        picture.part.slot["image_url"] = f"{picture.digest.hex()}@{picture.part.max_pixels}"
    identified = located.parsed.identified
    head = (KEY_VERSION, identified.allowed.raw.operation.value, revision, identified.key.tenant)
    name = hashlib.blake2b(_encode(head), digest_size=32)
    name.update(orjson.dumps(located.parsed.body, option=orjson.OPT_SORT_KEYS))
    return name.digest()


class ResponseCache:
    """Names, finds and keeps answers."""

    def __init__(self, store: Store, *, policy: Policy, ttl_s: float, revision: str) -> None:
        """`ttl_s` is how long an answer lives; `revision` names the weights that gave it."""
        self._store = store
        self._policy = policy
        self._ttl_s = ttl_s
        self._revision = revision

    def key(self, located: Located) -> Keyed:
        """Name the request, or mark it as none of the cache's business."""
        parsed = located.parsed
        eligible = parsed.identified.allowed.raw.operation is not Operation.MODELS and (
            self._policy == "always" or (self._policy == "deterministic" and is_deterministic(parsed.body))
        )
        return Keyed(located, key_of(located, self._revision) if eligible else None)

    async def find(self, keyed: Keyed) -> Reply | None:
        """The kept answer, a stream as one piece; None on a miss."""
        if keyed.cache_key is None:
            return None
        value = await self._store.get(keyed.cache_key)
        if value is None:
            return None
        entry = _decode(value)
        return Reply(entry.body, entry.content_type, "hit")

    async def keep(self, name: bytes, reply: Reply, body: bytes) -> None:
        """Keep a complete answer. Not kept: one that vLLM cut off, a stream without its end, one that is too long."""
        if len(body) > MAX_ENTRY_BYTES or ABORTED in body:
            return
        if reply.content_type == EVENT_STREAM and not body.rstrip().endswith(STREAM_END):
            return
        await self._store.put(name, _encode(Entry(reply.content_type, body)), self._ttl_s)
