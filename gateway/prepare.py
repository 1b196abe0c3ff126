"""Pictures found and named (`locate`), then shrunk and inlined (`shrink`), so that the engine never fetches anything.

Split in two so that the cache can answer in between: a kept answer costs no decoding.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import pybase64

from gateway.apis import api_of
from gateway.encoding import encode
from gateway.errors import InvalidRequest
from gateway.images import ImageRefused, KnownPictures, decode_data_url, digest, inspect, shrink, tenant_uuid
from gateway.stages import Keyed, Located, Operation, Picture, Prepared
from gateway.telemetry import IMAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Executor
    from typing import Any

    from gateway.generations import Generation
    from gateway.images import ContentCache, Encoded, MemoryGate
    from gateway.images.content import Store
    from gateway.stages import ImagePart, Parsed

T = TypeVar("T")

INLINE_BYTES = 256 * 1024
"""Up to this, decoding base64, hashing and a look at the header (0.3 ms) cost less than handing them to a thread."""

UUID_CHARS = 64
KNOWN_PICTURES = 4096
"""Looking into the header again takes libvips 0.25 ms, a sixth of what a small picture costs."""
SHRUNK_TTL_S = 3600.0
"""A conversation's length: whoever asks about a picture again does so soon."""


class ImageStep:
    """Does the work on pictures; what is heavy runs in threads, never on the event loop."""

    def __init__(
        self,
        content: ContentCache,
        unpacking: Executor,
        pool: Executor,
        gate: MemoryGate,
        shrunk: Store,
        generation: Generation,
        *,
        max_bytes: int,
        max_request_bytes: int,
        max_source_pixels: int,
        max_decode_bytes: int,
        secret: bytes,
        by_name: bool,
    ) -> None:
        """`max_bytes` and `max_source_pixels` bound one picture as sent, `max_request_bytes` what one request fetches.

        `max_decode_bytes` bounds what one decoder holds, `gate` what all hold, and `pool` how many there are. Large
        pictures are unpacked and named in `unpacking`. `shrunk` keeps what came of it, so that another question about a
        picture costs no decoding, under names of the tenant's `generation`. `secret` makes the names under which
        engines keep pictures and prefixes, so that no tenant can guess another's. `by_name` says that an engine may be
        asked about a picture by that name alone.
        """
        self._content = content
        self._unpacking = unpacking
        self._pool = pool
        self._gate = gate
        self._shrunk = shrunk
        self._generation = generation
        self._max_bytes = max_bytes
        self._max_request_bytes = max_request_bytes
        self._max_source_pixels = max_source_pixels
        self._max_decode_bytes = max_decode_bytes
        self._secret = secret
        self._by_name = by_name
        self._known = KnownPictures(KNOWN_PICTURES)

    async def locate(self, parsed: Parsed) -> Located:
        """Fetch or unpack every picture, check its header, name it. Raises InvalidRequest that names the part."""
        if not parsed.images:
            return Located(parsed, ())
        # All are fetched at once and nobody knows their sizes beforehand: each gets an equal share of what is allowed.
        fetched = sum(not is_data(part.url) for part in parsed.images)
        share_bytes = min(self._max_bytes, self._max_request_bytes // max(1, fetched))
        tenant = parsed.identified.key.tenant
        return Located(parsed, await together([self._locate(part, tenant, share_bytes) for part in parsed.images]))

    async def _locate(self, part: ImagePart, tenant: str, share_bytes: int) -> Picture:
        try:
            if is_data(part.url):
                size = len(part.url if part.base64 is None else part.base64)
                return await self._off_loop(size, lambda: self._examine(part, self._unpack(part)))
            data = await self._fetch(part, tenant, share_bytes)
            return await self._off_loop(len(data), lambda: self._examine(part, data))
        except ImageRefused as exc:
            raise refused(part, exc) from exc

    async def _fetch(self, part: ImagePart, tenant: str, share_bytes: int) -> bytes:
        try:
            return await self._content.get(tenant, part.url, max_bytes=share_bytes)
        except ImageRefused as exc:
            if exc.reason != "image_too_large" or share_bytes == self._max_bytes:
                raise
            message = f"{exc}, or fewer by URL (those of a request share {self._max_request_bytes} bytes)"
            raise ImageRefused(exc.reason, message) from exc

    def _unpack(self, part: ImagePart) -> bytes:
        try:
            return decode_data_url(part.url, part.base64, max_bytes=self._max_bytes)
        finally:
            if part.base64 is not None:
                part.base64.release()  # Not needed again, and with it goes the client's whole body.

    def _examine(self, part: ImagePart, data: bytes) -> Picture:
        name = digest(data)
        key = (name, part.max_pixels)
        if (info := self._known.get(key)) is None:
            info = inspect(
                data,
                max_pixels=self._max_source_pixels,
                budget_pixels=part.max_pixels,
                max_decode_bytes=self._max_decode_bytes,
            )
            self._known.put(key, info)
        return Picture(part, data, info, name)

    async def _off_loop(self, size: int, work: Callable[[], Picture]) -> Picture:
        if size <= INLINE_BYTES:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._unpacking, work)

    async def shrink(self, keyed: Keyed) -> Prepared:
        """Bring every picture to its pixel budget and write the engine's request."""
        located = keyed.located
        tenant = located.parsed.identified.key.tenant
        salt = tenant_salt(self._secret, tenant)
        if not located.pictures:
            return Prepared(keyed, engine_body(located.parsed, salt))
        names = await self._inline_all(located, tenant)
        payload = engine_body(located.parsed, salt)
        named = api_of(located.parsed.identified.allowed.raw.operation).named
        if not self._by_name or named is None:
            return Prepared(keyed, payload)
        for picture, name in zip(located.pictures, names, strict=True):
            picture.part.slot.update(named(name))
        return Prepared(keyed, payload, engine_body(located.parsed, salt), names)

    async def _inline_all(self, located: Located, tenant: str) -> tuple[str, ...]:
        """Put the pictures into the body; their names for the engine."""
        inlined = await together([self._inline(picture, tenant) for picture in located.pictures])
        if encode_s := max((one[2] for one in inlined), default=0.0):
            # Pictures of a request are worked on at once: the longest is what the caller waited for.
            located.parsed.identified.allowed.raw.timer.part("encode", encode_s)
        for picture, (url, uuid, _) in zip(located.pictures, inlined, strict=True):
            picture.part.slot.update(picture.part.fields(url, uuid))
        return tuple(uuid for _, uuid, _ in inlined)

    async def _inline(self, picture: Picture, tenant: str) -> tuple[str, str, float]:
        """The picture's data URL, its name for the engine, and the seconds that encoding took."""
        # Per tenant: an answer's time must not tell who sent a picture before.
        name = b"%s%s@%d" % (self._generation.space(tenant), picture.digest, picture.part.max_pixels)
        if kept := await self._shrunk.get(name):
            IMAGES.labels("kept").inc()
            return kept[UUID_CHARS:].decode("ascii"), kept[:UUID_CHARS].decode("ascii"), 0.0
        url, uuid, encode_s = await self._decode(picture, tenant)
        await self._shrunk.put(name, (uuid + url).encode("ascii"), SHRUNK_TTL_S)
        return url, uuid, encode_s

    async def _decode(self, picture: Picture, tenant: str) -> tuple[str, str, float]:
        def work() -> tuple[str, str, float]:
            encoded = shrink(picture.data, picture.info, max_pixels=picture.part.max_pixels)
            untouched = encoded.data is picture.data
            IMAGES.labels("passed_through" if untouched else "shrunk").inc()
            content = picture.digest if untouched else digest(encoded.data)
            # The engine knows the picture by this name: it is not preprocessed again, and nobody else can name it.
            return data_url_of(encoded, picture), tenant_uuid(self._secret, tenant, content), encoded.encode_s

        loop = asyncio.get_running_loop()
        held_bytes = await self._gate.take(picture.info.decode_bytes)
        job = self._pool.submit(work)
        # When the thread is through and not when the client has left: a decoder that runs cannot be stopped.
        job.add_done_callback(lambda _: loop.call_soon_threadsafe(self._gate.give_back, held_bytes))
        try:
            return await asyncio.wrap_future(job)
        except ImageRefused as exc:
            raise refused(picture.part, exc) from exc


def is_data(url: str) -> bool:
    """Whether the picture is in the URL itself."""
    return url[:5].lower() == "data:"


def refused(part: ImagePart, exc: ImageRefused) -> InvalidRequest:
    """The refusal as an answer that names the part at fault."""
    IMAGES.labels("refused").inc()
    return InvalidRequest(str(exc), param=part.param, code=exc.reason)


def data_url_of(encoded: Encoded, picture: Picture) -> str:
    """The picture for the engine; the client's own text is used again when it is already right."""
    head = f"data:{encoded.media_type};base64,"
    if encoded.data is picture.data and picture.part.base64 is None and picture.part.url.startswith(head):
        return picture.part.url
    return head + pybase64.b64encode_as_string(encoded.data)


@lru_cache(maxsize=4096)
def tenant_salt(secret: bytes, tenant: str) -> str:
    """vLLM's `cache_salt`: keeps one tenant's cached prefixes from answering, or timing, another's. 64 hex digits."""
    return hmac.new(secret, b"prefix-cache\0" + tenant.encode(), hashlib.sha256).hexdigest()


def engine_body(parsed: Parsed, salt: str) -> bytes:
    """The request as the engine gets it; `salt` isolates the tenant's prefixes. Nothing for what has no body."""
    if parsed.identified.allowed.raw.operation is Operation.MODELS:
        return b""
    body = {**parsed.body, "cache_salt": salt}
    if parsed.hides_usage:
        given = parsed.body.get("stream_options") or {}
        # Without `include_usage` the client would not have got the continuous ones either.
        body["stream_options"] = {**given, "include_usage": True, "continuous_usage_stats": False}
    return encode(body)


async def together(jobs: list[Coroutine[Any, Any, T]]) -> tuple[T, ...]:
    """All results in order; the first failure ends the others and is raised as it is."""
    if len(jobs) < 2:  # noqa: PLR2004 - a task group costs more than one small picture
        return tuple([await job for job in jobs])
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(job) for job in jobs]
    except ExceptionGroup as exc:
        raise exc.exceptions[0] from None
    return tuple(task.result() for task in tasks)
