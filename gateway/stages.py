"""The values a request becomes on its way. Each holds the one before it: having a later one proves the steps passed.

Frozen and without logic, so that the type checker stops anyone from sending an unauthenticated request to an engine.
Structs of msgspec, as ten of them are made for a request: a frozen dataclass takes eight times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from ipaddress import IPv4Address, IPv6Address

    from gateway.asgi import Head, Message
    from gateway.images import ImageInfo
    from gateway.keys import Key
    from gateway.steps import StepTimer
    from gateway.streams import Stream

EVENT_STREAM = b"text/event-stream"
JSON = b"application/json"

PictureFields = Callable[[str, str], dict[str, Any]]
"""A picture's URL and `uuid` as the fields of a part, in the form of one API."""


class Operation(StrEnum):
    """What the client asks for; the value is the engine's path."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    RESPONSES = "/v1/responses"
    MESSAGES = "/v1/messages"
    MODELS = "/v1/models"
    PREDICT = "/predict"


class RawRequest(msgspec.Struct, frozen=True, eq=False):
    """A request as it came, body unparsed."""

    id: str
    operation: Operation
    head: Head
    peer: str
    """Address at the other end of the connection: the client or the last proxy."""
    take_body: Callable[[], bytes | None]
    """All of the body where it came with the head, once: nobody holds it afterwards. Else it is to be received."""
    receive: Callable[[], Coroutine[Any, Any, Message]]
    timer: StepTimer
    trace_headers: Mapping[str, str]
    """W3C trace context for the engine; empty without tracing."""


class Allowed(msgspec.Struct, frozen=True, eq=False):
    """The client's address is on the allow-list."""

    raw: RawRequest
    client: IPv4Address | IPv6Address


class Identified(msgspec.Struct, frozen=True, eq=False):
    """The caller holds a valid key and may use it from this address."""

    allowed: Allowed
    key: Key


class ImagePart(msgspec.Struct, frozen=True, eq=False):
    """Where a picture stands in the request."""

    param: str
    """Path for error messages, such as `messages[0].content[1].image_url.url`."""
    slot: dict[str, Any]
    """The part in the body: what `fields` gives is the only thing of a body that is rewritten later."""
    url: str
    """Of a data URL whose text was taken out of the body, what stands before it: up to the comma."""
    max_pixels: int
    fields: PictureFields
    base64: memoryview | None = None
    """That text; a view of the body."""


class Parsed(msgspec.Struct, frozen=True, eq=False):
    """The body is a request of its operation; unknown fields are kept, dangerous ones are gone."""

    identified: Identified
    body: dict[str, Any]
    images: tuple[ImagePart, ...]
    stream: bool
    hides_usage: bool = False
    """The engine is asked to end its stream with the usage, which the client has not asked for."""


class Picture(msgspec.Struct, frozen=True, eq=False):
    """A picture's bytes as sent or fetched; its header is checked, no pixel is decoded yet."""

    part: ImagePart
    data: bytes
    info: ImageInfo
    digest: bytes


class Located(msgspec.Struct, frozen=True, eq=False):
    """Every picture is here and named by its content."""

    parsed: Parsed
    pictures: tuple[Picture, ...]


class Keyed(msgspec.Struct, frozen=True, eq=False):
    """The request has a name in the cache, or is none of the cache's business (`None`)."""

    located: Located
    cache_key: bytes | None
    oldest_s: float | None = None
    """A kept answer older than this may not be given; None: any age will do."""
    only_cached: bool = False
    """The client wants a kept answer or none."""


class Prepared(msgspec.Struct, frozen=True, eq=False):
    """What the engine gets: pictures shrunk and inlined, fields checked."""

    keyed: Keyed
    payload: bytes
    named: bytes = b""
    """The same with names in place of the pictures, for an engine that has them; empty where there are none to name."""
    names: tuple[str, ...] = ()
    """These names."""


class Scheduled(msgspec.Struct, frozen=True, eq=False):
    """It is this request's turn: it holds a slot at the engines."""

    prepared: Prepared
    release: Callable[[], None]
    """Gives the slot back; to be called when the last byte has come, whatever happened."""


def _nothing() -> None:
    """Nothing is held."""


class Reply(msgspec.Struct, frozen=True, eq=False):
    """What the client gets: whole, or a stream of bytes that are sent as they come."""

    body: bytes | Stream
    content_type: bytes
    cache: Literal["hit", "miss", "bypass"] = "bypass"
    age_s: int | None = None
    """How long ago a kept answer was made."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """More headers, such as x-ratelimit-*."""
    document: dict[str, Any] | None = None
    """A whole answer's JSON once somebody has read it: who comes later reads it there."""
    release: Callable[[], None] = _nothing
    """To be called after the last byte, whatever happened: gives back the engine's slot and connection."""
