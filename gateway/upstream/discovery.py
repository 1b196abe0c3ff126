"""Engines behind a name: its addresses are looked up again and again, what appears is added, what vanishes leaves.

For a headless Service (`dns+http://name:port`): its name has one address for each ready pod.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING

from gateway.telemetry import DNS_FAILURES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.upstream.endpoints import Endpoint, Endpoints
    from gateway.upstream.names import Name

    Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

log = logging.getLogger(__name__)


async def resolve(host: str, port: int) -> list[str]:
    """The name's addresses, of one family, so that no engine is there twice. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = sorted({(family, str(address[0])) for family, *_, address in found})
    family = socket.AF_INET if any(family == socket.AF_INET for family, _ in addresses) else socket.AF_INET6
    return [address for of, address in addresses if of == family]


class Discovery:
    """Keeps the engines in step with their names."""

    def __init__(
        self,
        endpoints: Endpoints,
        names: Sequence[Name],
        *,
        interval_s: float,
        on_add: Callable[[Endpoint], None],
        proven_first: bool,
        look_up: Resolve = resolve,
    ) -> None:
        """`on_add` hears of each new engine; with `proven_first` it gets no requests before a probe has had a token."""
        self._endpoints = endpoints
        self._names = names
        self._interval_s = interval_s
        self._on_add = on_add
        self._proven_first = proven_first
        self._look_up = look_up
        self._known: dict[Name, dict[str, Endpoint]] = {name: {} for name in names}

    async def watch(self) -> None:
        """Look up, adjust, wait; ends when cancelled."""
        while True:
            for name in self._names:
                await self.refresh(name)
            await asyncio.sleep(self._interval_s)

    async def refresh(self, name: Name) -> None:
        """Look one name up. When that fails the last known addresses stay: a resolver's fault is not the engines'."""
        try:
            addresses = await self._look_up(name.host, name.port)
        except (OSError, UnicodeError) as exc:
            DNS_FAILURES.inc()
            log.warning("engines' name cannot be resolved", extra={"engine": name.host, "cause": str(exc)})
            return
        known = self._known[name]
        urls = {name.url(address) for address in addresses}
        for url in urls - known.keys():
            log.warning("engine appeared", extra={"engine": url})
            endpoint = self._endpoints.add(url, host=f"{name.host}:{name.port}", well=not self._proven_first)
            known[url] = endpoint
            self._on_add(endpoint)
        for url in known.keys() - urls:
            log.warning("engine's address is gone", extra={"engine": url})
            self._endpoints.remove(known.pop(url))
