"""The composition root: settings to a pipeline. Each step is put together here and nowhere else."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from secrets import token_bytes
from typing import TYPE_CHECKING

from gateway import __version__
from gateway.address import parse_networks
from gateway.admission import Admission
from gateway.audit import Audit, sink_of
from gateway.audit_stream import RedisStream
from gateway.auth import AddressGate, KeyGate
from gateway.body import BodyReader
from gateway.cache import ResponseCache
from gateway.flights import Flights
from gateway.generations import Generation, SharedGenerations
from gateway.images import ContentCache, ImageFetcher, MemoryGate, let_decoders_yield
from gateway.keys import KeyFile
from gateway.limit_redis import RedisLimitStore
from gateway.limit_stores import Limits, MemoryLimitStore
from gateway.limits import Limiter
from gateway.loop_lag import watch_loop_lag
from gateway.metering import Metering
from gateway.metric_kinds import publish
from gateway.pipeline import Pipeline
from gateway.prepare import ImageStep
from gateway.sampling import Sampler, cache_sample, keys_sample
from gateway.stores import ANSWERS, PICTURES, MemoryStore, RedisStore, TieredStore
from gateway.telemetry import (
    BUILD_INFO,
    CACHE_ERRORS,
    IMAGE_DECODE_BYTES,
    IMAGE_FETCH_SECONDS,
    IMAGE_FETCHES,
    KEYS_RELOADED,
    LIMITS_LOST,
    TENANT,
    UNLIMITED,
)
from gateway.tracing import Tracing, is_wanted
from gateway.upstream.assembly import endpoints_of, upstream_of

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from concurrent.futures import Executor
    from contextlib import AsyncExitStack
    from logging import Handler
    from typing import Any

    from gateway.images.addresses import AddressPolicy
    from gateway.images.content import Outcome
    from gateway.limit_stores import LimitStore
    from gateway.settings import Settings
    from gateway.stores import Store
    from gateway.upstream.client import EngineClient
    from gateway.upstream.discovery import Resolve
    from gateway.upstream.dispatch import Upstream

IMAGE_CACHE_LARGEST_SHARE = 8
"""A fetched picture above 1/8 of the memory for them would push out too many others."""


async def assemble(
    settings: Settings,
    client: EngineClient | None,
    address_allowed: AddressPolicy,
    look_up: Resolve,
    held: AsyncExitStack,
) -> Pipeline:
    """The pipeline of one worker; `held` ends what it holds: tasks, threads, connections. The seams: create_app's.

    Raises KeyFileError when the key file cannot be read, ValueError for a URL that is none.
    """
    held.callback(publish)  # What this process has counted since the last second.
    keys = KeyFile(settings.keys_file, on_reload=lambda outcome: KEYS_RELOADED.labels(outcome).inc())
    _background(keys.watch(), held)
    _background(watch_loop_lag(), held)
    admission, upstream = _engines(settings, client, look_up, held)
    memory = MemoryStore(settings.cache_max_bytes)
    memories = [memory]
    generation = await _generation(settings, memories, held)
    BUILD_INFO.labels(__version__, settings.build_revision, settings.model_revision).set(1)
    TENANT.limit = settings.metrics_max_tenants
    sampler = Sampler()
    sampler.add(keys_sample(keys))
    sampler.add(cache_sample("answers", memory))
    store = _shared(settings, memory)
    held.push_async_callback(store.aclose)
    cache = ResponseCache(
        store, generation, policy=settings.cache_policy, ttl_s=settings.cache_ttl_s, revision=settings.model_revision
    )
    flights = Flights(cache.keep, keeps_far=settings.redis_url is not None)
    held.push_async_callback(flights.aclose)
    # One thread: parsing holds the GIL, so more of them would only make the event loop wait for each other's. Pictures
    # are unpacked there too: behind decoders, the bodies they came in would wait for their turn, in memory.
    bodies = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bodies")
    held.callback(bodies.shutdown, cancel_futures=True)
    images = _images(bodies, settings, address_allowed, generation, memories, sampler, held)
    _background(sampler.run(), held)
    return Pipeline(
        AddressGate(parse_networks(settings.allowed_cidrs), parse_networks(settings.trusted_proxies)),
        KeyGate(keys),
        BodyReader(
            bodies,
            max_bytes=settings.max_body_bytes,
            timeout_s=settings.body_timeout_s,
            budgets={
                "low": min(settings.image_low_pixels, settings.image_max_pixels),
                "auto": settings.image_max_pixels,
                "high": settings.image_high_pixels or settings.image_max_pixels,
            },
            max_images=settings.image_max_count,
        ),
        images,
        cache,
        flights,
        _metering(settings, held),
        admission,
        upstream,
        _audit(settings, held),
        _tracing(settings, held),
    )


def _engines(
    settings: Settings, client: EngineClient | None, look_up: Resolve, held: AsyncExitStack
) -> tuple[Admission, Upstream]:
    endpoints = endpoints_of(settings)
    fewest = 0 if settings.hold_without_engine and settings.engine_probe_interval_s > 0 else 1
    admission = Admission(
        lambda: settings.engine_max_in_flight * max(fewest, endpoints.well()),
        holds=not fewest,
        max_waiting=settings.queue_max,
        deadlines_s={
            "interactive": settings.queue_interactive_s,
            "default": settings.queue_default_s,
            "bulk": settings.queue_bulk_s,
        },
    )
    return admission, upstream_of(settings, client, endpoints, admission.wake, look_up, held)


def _metering(settings: Settings, held: AsyncExitStack) -> Metering:
    store: LimitStore = MemoryLimitStore()
    if settings.redis_url is not None:
        store = RedisLimitStore(settings.redis_url.get_secret_value(), LIMITS_LOST.inc)
    metering = Metering(
        Limiter(store, UNLIMITED.inc),
        Limits(
            settings.requests_per_minute,
            settings.tokens_per_minute,
            settings.concurrent_requests,
            settings.tokens_per_day,
        ),
        default_output_tokens=settings.default_output_tokens,
        max_output_tokens=settings.max_output_tokens,
    )
    held.push_async_callback(metering.aclose)
    return metering


def _audit(settings: Settings, held: AsyncExitStack) -> Audit | None:
    if settings.audit == "off":
        return None
    if settings.audit_stream and settings.redis_url:
        url = settings.redis_url.get_secret_value()
        sink: Handler = RedisStream(url, settings.audit_stream, settings.audit_stream_max_records)
    else:
        sink = sink_of(settings.audit_file, max_bytes=settings.audit_max_bytes, backups=settings.audit_backups)
    audit = Audit(sink, policy=settings.audit, secret=_secret(settings))
    held.callback(audit.close)
    return audit


def _tracing(settings: Settings, held: AsyncExitStack) -> Tracing | None:
    if not is_wanted(settings.otlp_endpoint, os.environ):
        return None
    tracing = Tracing(settings.otlp_endpoint, trusts_clients=settings.trust_traceparent)
    held.push_async_callback(tracing.aclose)
    return tracing


def _secret(settings: Settings) -> bytes:
    return settings.tenant_secret.get_secret_value().encode() if settings.tenant_secret else token_bytes()


def _background(work: Coroutine[Any, Any, None], held: AsyncExitStack) -> None:
    held.push_async_callback(_ended, asyncio.get_running_loop().create_task(work))


async def _generation(settings: Settings, memories: list[MemoryStore], held: AsyncExitStack) -> Generation:
    if settings.redis_url is None:
        return Generation()
    shared = SharedGenerations(settings.redis_url.get_secret_value(), memories)
    await shared.start()
    held.push_async_callback(shared.aclose)
    return shared


def _images(
    unpacking: Executor,
    settings: Settings,
    address_allowed: AddressPolicy,
    generation: Generation,
    memories: list[MemoryStore],
    sampler: Sampler,
    held: AsyncExitStack,
) -> ImageStep:
    # One decoder a core: more would only add memory, fewer would leave cores idle.
    pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="images")
    held.callback(pool.shutdown, cancel_futures=True)
    fetcher = ImageFetcher(
        settings.image_allowed_hosts,
        settings.image_max_bytes,
        total_timeout_s=settings.image_fetch_timeout_s,
        address_allowed=address_allowed,
    )
    held.push_async_callback(fetcher.aclose)
    memory = MemoryStore(settings.image_cache_max_bytes)
    sampler.add(cache_sample("pictures", memory))
    # A picture takes longer over the network than an answer does: hence the longer timeout.
    store = _shared(settings, memory, PICTURES, timeout_s=0.5) if settings.image_cache_max_bytes else memory
    held.push_async_callback(store.aclose)
    content = ContentCache(
        fetcher,
        store,
        max_entry_bytes=settings.image_cache_max_bytes // IMAGE_CACHE_LARGEST_SHARE,
        generation=generation,
        on_outcome=_count_fetch,
    )
    held.push_async_callback(content.aclose)
    gate = MemoryGate(settings.image_memory_bytes)
    sampler.add(lambda: IMAGE_DECODE_BYTES.set(gate.held_bytes))
    sampler.add(let_decoders_yield)
    shrunk = MemoryStore(settings.image_shrunk_max_bytes)
    memories += [memory, shrunk]
    sampler.add(cache_sample("shrunk", shrunk))
    return ImageStep(
        content,
        unpacking,
        pool,
        gate,
        shrunk,
        generation,
        max_bytes=settings.image_max_bytes,
        max_request_bytes=settings.image_max_request_bytes,
        max_source_pixels=settings.image_max_source_pixels,
        max_decode_bytes=settings.image_max_decode_bytes,
        secret=_secret(settings),
        by_name=settings.engine_pictures_by_name,
    )


def _count_fetch(outcome: Outcome, spent_s: float) -> None:
    IMAGE_FETCHES.labels(outcome).inc()
    if outcome != "fresh":
        IMAGE_FETCH_SECONDS.observe(spent_s)


def _shared(settings: Settings, memory: MemoryStore, prefix: str = ANSWERS, timeout_s: float = 0.1) -> Store:
    """`memory`, with Redis behind it where there is one; `prefix` keeps different things apart there."""
    if settings.redis_url is None:
        return memory
    return TieredStore(
        memory,
        RedisStore(settings.redis_url.get_secret_value(), prefix, timeout_s),
        on_error=lambda operation: CACHE_ERRORS.labels(operation).inc(),
    )


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
