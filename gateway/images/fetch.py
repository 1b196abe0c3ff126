"""http(s) URL → bytes, without becoming a way into the cluster (SSRF).

Each hop is parsed once, its host checked against the allow-list, its name resolved once, every address checked, and
the connection made to a checked address: a name that resolves to something else a moment later (rebinding) is never
asked again. Refuses to interpret what it downloads: no decompression, no content type, no cookies, no client headers.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from gateway.images.addresses import AddressPolicy, is_public
from gateway.images.freshness import Validators, fresh_s, name_of, validators_of
from gateway.images.hosts import HostAllowList
from gateway.images.refused import ImageRefused
from gateway.images.urls import Target, parse_url, redirect_target

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence
    from types import TracebackType

_HEADERS = {
    "Accept": "image/*",
    "Accept-Encoding": "identity",  # a compressed body could grow past the byte cap while it is inflated
    "User-Agent": "qwen3-vl-gateway",
}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LASTING_REDIRECTS = frozenset({301, 308})
_OK = 200
_NOT_MODIFIED = 304


@dataclass(frozen=True, slots=True)
class Fetched:
    """A picture server's answer, and how long it may be kept."""

    data: bytes | None
    """The body; None when the server says that it is still what the validators name."""
    validators: Validators
    fresh_s: float | None
    """Seconds for which it may be given again unasked; None: it must not be kept."""


class ImageFetcher:
    """Downloads pictures from allowed public hosts. One per process; safe for concurrent use on one event loop.

    `allowed_hosts`: see HostAllowList; empty allows none. `max_bytes` caps a body, by its announcement and while
    reading. `connect_timeout_s` covers DNS, TCP and TLS of one hop, `total_timeout_s` everything of one fetch.
    `resolver`, `address_allowed` and `ssl_context` are seams for tests and for private CAs; a resolver that is passed
    in is closed by whoever made it. Environment proxies and .netrc are never consulted.
    """

    def __init__(
        self,
        allowed_hosts: Sequence[str],
        max_bytes: int,
        connect_timeout_s: float = 2.0,
        total_timeout_s: float = 8.0,
        max_redirects: int = 3,
        *,
        resolver: AbstractResolver | None = None,
        address_allowed: AddressPolicy = is_public,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._hosts = HostAllowList(allowed_hosts)
        self._max_bytes = max_bytes
        self._connect_timeout_s = connect_timeout_s
        self._total_timeout_s = total_timeout_s
        self._max_redirects = max_redirects
        self._resolver = resolver
        self._address_allowed = address_allowed
        self._ssl: ssl.SSLContext | bool = True if ssl_context is None else ssl_context
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections. A later fetch opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def check(self, url: str) -> str:
        """The one spelling of `url`, if it might be fetched as far as can be told without the network.

        For a cache: what is kept is given only while its URL would still be fetched. Raises ImageRefused like `fetch`.
        """
        target = parse_url(url)
        self._check(target)
        return str(target.request)

    async def fetch(self, url: str) -> bytes:
        """The body behind `url`, 1 to `max_bytes` bytes, of whatever type: sniff before use.

        Raises ImageRefused: `invalid_url`, `host_not_allowed`, `private_address`, `too_many_redirects`,
        `image_too_large`, `fetch_timeout`, `fetch_failed`. Nothing else but cancellation leaves this method.
        """
        fetched = await self.fetch_response(url)
        assert fetched.data is not None  # noqa: S101 - without validators nothing is "not modified"
        return fetched.data

    async def fetch_response(
        self, url: str, validators: Validators | None = None, *, max_bytes: int | None = None
    ) -> Fetched:
        """Like `fetch`, with what a cache needs. `validators` ask whether a kept picture has changed.

        Asking takes the whole way of a download, redirects and checks included. `max_bytes` lowers the cap of the body.
        """
        cap = self._max_bytes if max_bytes is None else min(max_bytes, self._max_bytes)
        try:
            async with asyncio.timeout(self._total_timeout_s):
                return await self._follow(parse_url(url), validators, cap)
        except TimeoutError as exc:
            message = f"the picture did not arrive within {self._total_timeout_s:g} s: {_INSTEAD}"
            raise ImageRefused("fetch_timeout", message) from exc

    async def _follow(self, target: Target, validators: Validators | None, max_bytes: int) -> Fetched:
        way_fresh_s: float | None = None
        for _ in range(self._max_redirects + 1):
            self._check(target)
            answer = await self._get(target, validators, max_bytes)
            if isinstance(answer, Fetched):
                return _no_fresher_than(answer, way_fresh_s)
            target, hop_fresh_s = answer
            if hop_fresh_s is not None:
                way_fresh_s = hop_fresh_s if way_fresh_s is None else min(way_fresh_s, hop_fresh_s)
        message = f"the picture's URL redirects more than {self._max_redirects} times: send the final URL"
        raise ImageRefused("too_many_redirects", message)

    def _check(self, target: Target) -> None:
        """Everything that can be refused before a name is resolved."""
        if not self._hosts:
            message = "pictures by http(s) URL are switched off here: send the picture as a data: URL"
            raise ImageRefused("host_not_allowed", message)
        if not self._hosts.allows(target.host):
            message = f"{target.host} is not on this service's list of allowed picture hosts: {_INSTEAD}"
            raise ImageRefused("host_not_allowed", message)
        # The connector never asks its resolver about IP literals.
        if target.address is not None and not self._address_allowed(target.address):
            raise _private(target.host)

    async def _get(
        self, target: Target, validators: Validators | None, max_bytes: int
    ) -> Fetched | tuple[Target, float | None]:
        """The answer of one hop, or where it redirects to and for how long (seconds; None: for good)."""
        source = name_of(str(target.request))
        asked = validators if validators and validators.source == source else None
        try:
            async with self._open_session().get(
                target.request, allow_redirects=False, ssl=self._ssl, headers=asked.conditions if asked else {}
            ) as response:
                location = response.headers.get("Location")
                if response.status in _REDIRECTS and location is not None:
                    lasting = response.status in _LASTING_REDIRECTS and "Cache-Control" not in response.headers
                    return redirect_target(target, location), None if lasting else fresh_s(response.headers) or 0.0
                given = validators_of(source, response.headers)
                if response.status == _NOT_MODIFIED and asked:
                    return Fetched(None, given or asked, fresh_s(response.headers))
                if response.status != _OK:
                    message = f"{target.host} answered {response.status} instead of the picture: check its URL"
                    raise ImageRefused("fetch_failed", message)
                return Fetched(await self._read(target, response, max_bytes), given, fresh_s(response.headers))
        except aiohttp.ConnectionTimeoutError as exc:
            message = f"no connection to {target.host} within {self._connect_timeout_s:g} s: {_INSTEAD}"
            raise ImageRefused("fetch_timeout", message) from exc
        except aiohttp.ClientConnectorDNSError as exc:
            raise ImageRefused("fetch_failed", f"{target.host} does not resolve: check the picture's URL") from exc
        except (aiohttp.ClientSSLError, aiohttp.ClientConnectorCertificateError) as exc:
            raise ImageRefused("fetch_failed", f"no trusted TLS connection to {target.host}: {_INSTEAD}") from exc
        except aiohttp.ClientError as exc:
            message = f"the download from {target.host} failed ({type(exc).__name__}): {_INSTEAD}"
            raise ImageRefused("fetch_failed", message) from exc

    async def _read(self, target: Target, response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            message = f"{target.host} sent the picture compressed although it was asked not to: {_INSTEAD}"
            raise ImageRefused("fetch_failed", message)
        if (response.content_length or 0) > max_bytes:
            raise _too_large(target, max_bytes)
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > max_bytes:
                raise _too_large(target, max_bytes)
        if not body:
            raise ImageRefused("fetch_failed", f"{target.host} sent an empty picture: check its URL")
        return bytes(body)

    def _open_session(self) -> aiohttp.ClientSession:
        """The session; made at the first fetch, because it belongs to the running event loop."""
        if self._session is None:
            inner = aiohttp.ThreadedResolver() if self._resolver is None else self._resolver
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=_CheckedResolver(inner, self._address_allowed),
                    use_dns_cache=False,  # each new connection is checked; kept connections were
                    limit=0,  # the caller bounds concurrency; waiting for a place must not look like a slow host
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=_HEADERS,
                auto_decompress=False,
                trust_env=False,
                timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_timeout_s),
            )
        return self._session


class _CheckedResolver(AbstractResolver):
    """Another resolver's answer, if all of it is allowed.

    One private address among public ones is refused too: which one is connected to is not ours to choose
    (happy eyeballs), and no honest picture host resolves like that.
    """

    def __init__(self, inner: AbstractResolver, address_allowed: AddressPolicy) -> None:
        self._inner = inner
        self._address_allowed = address_allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        results = await self._inner.resolve(host, port, family)
        if not results:
            raise OSError(None, "no address")  # what aiohttp expects of a resolver; it reads the second argument
        if not all(self._address_allowed(ip_address(result["host"])) for result in results):
            raise _private(host)
        return results

    async def close(self) -> None:
        """Nothing: the inner resolver is closed by its owner, and a threaded one holds nothing."""


def _no_fresher_than(fetched: Fetched, way_fresh_s: float | None) -> Fetched:
    """An answer found by redirects may not be given unasked for longer than the shortest of them may be remembered."""
    if fetched.fresh_s is None or way_fresh_s is None:
        return fetched
    return replace(fetched, fresh_s=min(fetched.fresh_s, way_fresh_s))


def _too_large(target: Target, max_bytes: int) -> ImageRefused:
    message = f"the picture from {target.host} is larger than the {max_bytes} bytes accepted: send a smaller one"
    return ImageRefused("image_too_large", message)


def _private(host: str) -> ImageRefused:
    message = f"{host} is not on the public Internet: send the picture as a data: URL instead"
    return ImageRefused("private_address", message)


_INSTEAD = "try again, or send the picture as a data: URL"
