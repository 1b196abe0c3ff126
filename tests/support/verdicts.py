"""What a client makes of an answer, such that two clients can be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from gateway.errors import EngineMisbehaved, EngineTimeout
from gateway.upstream.client import EngineUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.upstream.client import EngineClient

Way = Literal["read", "chunks", "poured"]
WAYS = get_args(Way)
"""How a body can be had."""
UNREACHABLE = "unreachable"
BROKE_OFF = "broke off"
STALLED = "stalled"


async def verdict(
    client: EngineClient, url: str, *, method: str = "POST", body: bytes | None = b"{}", way: Way = "chunks"
) -> tuple[int, bytes, bytes] | str | tuple[int, str]:
    """Status, content type and body; or what went wrong, after the status if that had come."""
    try:
        response = await client.send(method, url, {}, body)
    except EngineUnreachable:
        return UNREACHABLE
    except EngineTimeout:
        return STALLED
    try:
        if way == "read":
            got = await response.read()
        elif way == "poured":
            pieces: list[bytes] = []
            await response.pour(pieces.append)
            got = b"".join(pieces)
        else:
            got = b"".join([chunk async for chunk in response.chunks()])
    except EngineMisbehaved:
        return response.status, BROKE_OFF
    except EngineTimeout:
        return response.status, STALLED
    finally:
        response.close()
    return response.status, response.content_type, got


async def verdict_of_one(make_client: Callable[[], EngineClient], url: str, *, way: Way = "chunks") -> object:
    """The verdict of a client that has no connection yet: the reference has no second try for one that was stale."""
    client = make_client()
    try:
        return await verdict(client, url, way=way)
    finally:
        await client.aclose()
