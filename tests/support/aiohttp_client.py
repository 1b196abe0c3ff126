"""The seam's client made of aiohttp: what the gateway's own is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp

from gateway.streams import Pieces
from gateway.upstream.client import KEEP_ALIVE_S, EngineUnreachable, broke_off, stalled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from gateway.streams import Sink
    from gateway.upstream.client import EngineResponse


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
            raise stalled() from exc
        except aiohttp.ClientError as exc:
            raise broke_off() from exc

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except TimeoutError as exc:
            raise stalled() from exc
        except aiohttp.ClientError as exc:
            raise broke_off() from exc

    async def pour(self, sink: Sink) -> None:
        await Pieces(self.chunks()).pour(sink)

    def close(self) -> None:
        # At the end of the body aiohttp has already put the connection back; before it, this closes it.
        self._response.close()


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
            raise stalled() from exc
        except aiohttp.ClientResponseError as exc:
            raise EngineUnreachable("protocol") from exc
        except aiohttp.ClientError as exc:
            # Closed before the first byte of an answer: a stale pooled connection, or an engine that just died.
            raise EngineUnreachable("closed") from exc
        return _AiohttpResponse(response)

    async def aclose(self) -> None:
        """See EngineClient."""
        await self._session.close()
