"""The seam to the engines' HTTP: one method, so that the client behind it can be exchanged.

`http1` stands behind it; the tests compare that with one made of aiohttp (docs/decisions/0009).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.errors import EngineMisbehaved, EngineTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from gateway.streams import Sink

KEEP_ALIVE_S = 4.0
"""Below the 5 s after which vLLM's uvicorn closes an idle connection, so that a pooled one is seldom stale."""


class EngineUnreachable(Exception):
    """The request did not reach the engine, or not whole: another engine may be asked."""

    def __init__(self, cause: str) -> None:
        """`cause` is a short word for the metric: `connect`, `closed` before an answer, or `protocol`, no HTTP."""
        super().__init__(cause)
        self.cause = cause


class EngineResponse(Protocol):
    """An engine's answer whose headers are here; its body may still be on the way."""

    status: int
    content_type: bytes

    async def read(self) -> bytes:
        """The whole body; raises EngineMisbehaved if it breaks off, EngineTimeout if it stalls."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body piece by piece, as the socket gives it; raises as `read`."""

    async def pour(self, sink: Sink) -> None:
        """The rest of the body, each piece handed over as it comes (see Stream); raises as `read`."""

    def close(self) -> None:
        """Let go: a complete answer's connection is used again, an incomplete one's is closed."""


class EngineClient(Protocol):
    """Sends requests to engines."""

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> EngineResponse:
        """The answer's head. Raises EngineUnreachable before it, EngineTimeout when it does not come.

        A `host` among the headers stands instead of the URL's: the URL may be one of a name's addresses.
        """

    async def aclose(self) -> None:
        """Close every connection."""


def stalled() -> EngineTimeout:
    """An answer that has not come, or not gone on, for the longest allowed silence."""
    return EngineTimeout("The engine stopped answering.")


def broke_off() -> EngineMisbehaved:
    """An answer that ended before its end, or went on as no answer may."""
    return EngineMisbehaved("The engine broke off its answer.")
