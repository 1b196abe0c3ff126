"""The engines of one worker, put together: their addresses, the client, probes, names that are looked up."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from gateway.upstream.client import AiohttpClient
from gateway.upstream.discovery import Discovery
from gateway.upstream.dispatch import Patience, Upstream, engine_headers
from gateway.upstream.endpoints import Endpoints
from gateway.upstream.names import SCHEME, name_of
from gateway.upstream.probe import Prober
from gateway.upstream.retries import RetryBudget

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AsyncExitStack

    from gateway.settings import Settings
    from gateway.upstream.client import EngineClient
    from gateway.upstream.discovery import Resolve
    from gateway.upstream.endpoints import Endpoint


def endpoints_of(settings: Settings) -> Endpoints:
    """The engines whose addresses are given; those behind names are added when these are looked up."""
    return Endpoints(
        [url for url in settings.engines if not url.startswith(SCHEME)],
        affinity=settings.engine_choice == "affinity",
        load_factor=settings.engine_load_factor,
        max_in_flight=settings.engine_max_in_flight,
    )


def upstream_of(
    settings: Settings,
    client: EngineClient | None,
    endpoints: Endpoints,
    on_more: Callable[[], None],
    look_up: Resolve,
    held: AsyncExitStack,
) -> Upstream:
    """The engines as one; `on_more` hears when there is one more than before. `held` ends what runs for them."""
    patience = Patience(
        settings.engine_first_token_timeout_s, settings.engine_idle_timeout_s, settings.engine_answer_timeout_s
    )
    if client is None:
        # What an engine may take is measured where answers are understood; the socket's limit is only the last resort.
        longest_s = max(patience.first_token_s, patience.idle_s, patience.answer_s)
        client = AiohttpClient(connect_timeout_s=settings.engine_connect_timeout_s, idle_timeout_s=2 * longest_s)
    held.push_async_callback(client.aclose)
    headers = engine_headers(settings.engine_api_key.get_secret_value() if settings.engine_api_key else None)
    prober: Prober | None = None
    if settings.engine_probe_interval_s > 0:
        prober = Prober(
            client,
            headers,
            interval_s=settings.engine_probe_interval_s,
            timeout_s=settings.engine_probe_timeout_s,
            on_restore=on_more,
        )
        held.push_async_callback(prober.aclose)
        for endpoint in endpoints.all:
            prober.start(endpoint)

    def added(endpoint: Endpoint) -> None:
        if prober is not None:
            prober.start(endpoint)
        else:
            on_more()

    if names := [name_of(url) for url in settings.engines if url.startswith(SCHEME)]:
        discovery = Discovery(
            endpoints,
            names,
            interval_s=settings.engine_dns_interval_s,
            on_add=added,
            proven_first=prober is not None,
            look_up=look_up,
        )
        held.push_async_callback(_ended, asyncio.get_running_loop().create_task(discovery.watch()))
    budget = RetryBudget(settings.engine_retry_ratio)
    return Upstream(client, endpoints, headers, patience=patience, budget=budget, probed=prober is not None)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
