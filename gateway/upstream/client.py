"""The seam to the engines' HTTP: one method, so that the client behind it can be exchanged.

aiohttp stands behind it for now: a tenth of httpx's CPU a request (docs/decisions/0002).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import aiohttp

from gateway.errors import EngineMisbehaved, EngineTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

KEEP_ALIVE_S = 4.0
"""Below the 5 s after which vLLM's uvicorn closes an idle connection, so that a pooled one is seldom stale."""


class EngineUnreachable(Exception):
    """The request did not reach the engine, or not whole: another engine may be asked."""

    def __init__(self, cause: str) -> None:
        """`cause` is a short word for the metric."""
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


class _AiohttpResponse:
    """aiohttp's response behind the seam."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.content_type = response.headers.get("content-type", "application/octet-stream").encode("latin-1")

    async def read(self) -> bytes:
        try:
            return await self._response.read()
        except TimeoutError as exc:
            raise _stalled() from exc
        except aiohttp.ClientError as exc:
            raise _broke_off() from exc

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except TimeoutError as exc:
            raise _stalled() from exc
        except aiohttp.ClientError as exc:
            raise _broke_off() from exc

    def close(self) -> None:
        # At the end of the body aiohttp has already put the connection back; before it, this closes it.
        self._response.close()


def _stalled() -> EngineTimeout:
    return EngineTimeout("The engine stopped answering.")


def _broke_off() -> EngineMisbehaved:
    return EngineMisbehaved("The engine broke off its answer.")


class AiohttpClient:
    """Pooled keep-alive connections; no cookies, no redirects, no proxies from the environment."""

    def __init__(self, *, connect_timeout_s: float, idle_timeout_s: float) -> None:
        """`idle_timeout_s` is the longest silence; a long answer may take as long as it likes."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s, sock_read=idle_timeout_s),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
        )

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> EngineResponse:
        """See EngineClient."""
        try:
            response = await self._session.request(method, url, headers=headers, data=body, allow_redirects=False)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as exc:
            raise EngineUnreachable("connect") from exc
        except TimeoutError as exc:
            raise _stalled() from exc
        except aiohttp.ClientError as exc:
            # Closed before the first byte of an answer: a stale pooled connection, or an engine that just died.
            raise EngineUnreachable("closed") from exc
        return _AiohttpResponse(response)

    async def aclose(self) -> None:
        """See EngineClient."""
        await self._session.close()
