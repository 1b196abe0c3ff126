"""The response cache: which answers may be kept, under which name, and their replay.

The name holds the tenant, so one tenant's answer can never be another's. A store that fails is a miss, never an error.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import orjson

from gateway.stages import Keyed, Located, Operation, Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.stores import Store

Policy = Literal["deterministic", "always", "never"]

STREAM_END = b"data: [DONE]"
ABORTED = b'"finish_reason":"abort"'
"""vLLM's word for an answer cut off while it drains; it comes with status 200."""
MAX_ENTRY_BYTES = 4 * 1024 * 1024
"""A stream longer than this is relayed but not kept: it would be held twice while it runs."""
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
    """Finds, keeps and replays answers."""

    def __init__(self, store: Store, *, policy: Policy, ttl_s: float, revision: str) -> None:
        """`ttl_s` is how long an answer lives; `revision` names the weights that gave it."""
        self._store = store
        self._policy = policy
        self._ttl_s = ttl_s
        self._revision = revision
        self._writes: set[asyncio.Task[None]] = set()

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

    def keep(self, keyed: Keyed, reply: Reply) -> Reply:
        """Keep a complete answer; a stream is kept once its end has passed by. The reply goes on unchanged."""
        if (name := keyed.cache_key) is None:
            return reply
        if isinstance(reply.body, bytes):
            if ABORTED not in reply.body:
                self._write(name, Entry(reply.content_type, reply.body))
            return replace(reply, cache="miss")
        return replace(reply, cache="miss", body=self._tee(name, reply.content_type, reply.body))

    async def _tee(self, name: bytes, content_type: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        kept: list[bytes] = []
        size = 0
        async for chunk in chunks:
            size += len(chunk)
            if size <= MAX_ENTRY_BYTES:
                kept.append(chunk)
            yield chunk
        if size > MAX_ENTRY_BYTES:
            return
        body = b"".join(kept)
        if body.rstrip().endswith(STREAM_END) and ABORTED not in body:
            self._write(name, Entry(content_type, body))

    def _write(self, name: bytes, entry: Entry) -> None:
        # Not awaited: the client need not wait for Redis.
        task = asyncio.get_running_loop().create_task(self._store.put(name, _encode(entry), self._ttl_s))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def aclose(self) -> None:
        """Finish the writes under way."""
        if self._writes:
            await asyncio.gather(*self._writes)
