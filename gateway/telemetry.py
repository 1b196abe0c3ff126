"""Every metric, the step timer and the log format. Labels are bounded; no prompt, key or address becomes one."""

from __future__ import annotations

import asyncio
import logging
import logging.config
import math
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120)
"""From a cache hit to a long generation."""
LAG_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
"""50 ms is where a client would notice."""
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR" in os.environ
"""Several workers count in files; prometheus-client decides that at its import."""
STEP_BUCKETS_S = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60)
"""From a key lookup to a generation."""

REQUESTS = Counter("gateway_requests", "Requests answered.", ("operation", "status", "cache"))
LATENCY = Histogram(
    "gateway_request_duration_seconds",
    "From the first byte in to the last byte out.",
    ("operation",),
    buckets=LATENCY_BUCKETS_S,
)
FIRST_BYTE = Histogram(
    "gateway_time_to_first_byte_seconds",
    "From the first byte in to the first byte out.",
    ("operation",),
    buckets=LATENCY_BUCKETS_S,
)
STEPS = Histogram(
    "gateway_step_duration_seconds", "Time of one step of the pipeline.", ("step",), buckets=STEP_BUCKETS_S
)
IN_FLIGHT = Gauge("gateway_in_flight_requests", "Requests being answered.", multiprocess_mode="livesum")
ENGINE_IN_FLIGHT = Gauge(
    "gateway_engine_in_flight_requests", "Requests at an engine.", ("engine",), multiprocess_mode="livesum"
)
ENGINE_UP = Gauge(
    "gateway_engine_up",
    "1 while an engine generates when asked to, 0 while it is taken out.",
    ("engine",),
    multiprocess_mode="livemin",
)
ENGINE_FAILURES = Counter("gateway_engine_failures", "Attempts that an engine failed.", ("engine", "cause"))
ENGINE_RETRIES = Counter("gateway_engine_retries", "Times another engine was asked, by why.", ("cause",))
RETRIES_REFUSED = Counter("gateway_engine_retries_refused", "Retries that the budget did not allow.")
DNS_FAILURES = Counter("gateway_engine_dns_failures", "Look-ups of engines' names that failed; the known ones stayed.")
DISCONNECTS = Counter(
    "gateway_client_disconnects", "Clients that left before their answer was complete.", ("operation",)
)
CACHE_ERRORS = Counter(
    "gateway_cache_errors", "Shared cache operations that failed; the request went on.", ("operation",)
)
JOINED = Counter("gateway_cache_joined_requests", "Requests that shared an answer that was already under way.")
CACHE_BYTES = Gauge("gateway_cache_bytes", "Memory that kept answers take.", multiprocess_mode="livesum")
IMAGES = Counter("gateway_images", "Pictures taken in, by what became of them.", ("outcome",))
IMAGE_FETCHES = Counter("gateway_image_fetches", "Pictures by URL, by what became of them.", ("outcome",))
IMAGE_FETCH_SECONDS = Histogram(
    "gateway_image_fetch_seconds",
    "Time of one picture's download, or of asking whether it has changed; kept pictures do not count.",
    buckets=LATENCY_BUCKETS_S,
)
IMAGE_CACHE_BYTES = Gauge(
    "gateway_image_cache_bytes", "Memory that fetched pictures take.", multiprocess_mode="livesum"
)
IMAGE_SHRUNK_BYTES = Gauge(
    "gateway_image_shrunk_bytes", "Memory that kept shrunk pictures take.", multiprocess_mode="livesum"
)
IMAGE_DECODE_BYTES = Gauge(
    "gateway_image_decode_bytes", "Memory that decoders hold, as estimated.", multiprocess_mode="livesum"
)
LOOP_LAG = Histogram(
    "gateway_event_loop_lag_seconds",
    "How late the event loop runs what is due: the longest time that nothing else could run.",
    buckets=LAG_BUCKETS_S,
)
UNLIMITED = Counter("gateway_limits_unavailable", "Requests let through without limits: Redis was away.")
LIMITS_LOST = Counter("gateway_limits_lost_ends", "Ends of requests that Redis was never told.")
LIMITS_REFUSED = Counter("gateway_limits_refused", "Requests over a limit of their key.", ("limit",))
AUDIT_WRITTEN = Counter("gateway_audit_records", "Audit records written.")
AUDIT_DROPPED = Counter("gateway_audit_dropped", "Audit records lost; the requests were answered.", ("cause",))
QUEUE_DEPTH = Gauge(
    "gateway_queue_depth", "Requests waiting for an engine.", ("priority",), multiprocess_mode="livesum"
)
QUEUE_WAIT = Histogram(
    "gateway_queue_wait_seconds", "Time from the queue's end to a slot.", ("priority",), buckets=LATENCY_BUCKETS_S
)
QUEUE_REFUSED = Counter(
    "gateway_queue_refused", "Requests that found no place or waited too long.", ("priority", "reason")
)
KEYS_RELOADED = Counter("gateway_keys_reloads", "Times the key file was read anew.", ("outcome",))

ACCESS = logging.getLogger("gateway.access")


class StepTimer:
    """Durations of the steps of one request, in the order they ran, and what the steps found out."""

    __slots__ = ("_clock", "facts", "started", "steps")

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """`clock` gives seconds; it is read at the start and around each step."""
        self._clock = clock
        self.started = clock()
        self.steps: list[tuple[str, float]] = []
        self.facts: dict[str, Any] = {}
        """For the log and the audit: `images` (content digests in hex), `engine`."""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time the block as step `name`, whether it succeeds or raises."""
        begun = self._clock()
        try:
            yield
        finally:
            spent = self._clock() - begun
            self.steps.append((name, spent))
            STEPS.labels(name).observe(spent)

    def elapsed_s(self) -> float:
        """Seconds since the request came in."""
        return self._clock() - self.started

    def server_timing(self) -> bytes:
        """The `Server-Timing` header (W3C): steps so far in milliseconds."""
        return ", ".join(f"{name};dur={spent * 1000:.2f}" for name, spent in self.steps).encode()


def forget_engine(url: str) -> None:
    """Drop the gauges of an engine whose address is gone for good."""
    for gauge in (ENGINE_UP, ENGINE_IN_FLIGHT):
        if MULTIPROCESS:
            gauge.labels(url).set(math.nan)  # From the files that workers share nothing can be removed.
        else:
            gauge.remove(url)


async def watch_loop_lag(interval_s: float = 0.05) -> None:
    """Measure the event loop's lag for ever: sleep, and see how much later than due one wakes."""
    clock = asyncio.get_running_loop().time
    while True:
        due = clock() + interval_s
        await asyncio.sleep(interval_s)
        LOOP_LAG.observe(max(0.0, clock() - due))


def configure_logging(level: str) -> None:
    """Send every log line to standard error as one JSON object; call once per process."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "json": {
                    "()": "pythonjsonlogger.json.JsonFormatter",
                    "fmt": "%(levelname)s %(name)s %(message)s",
                    "rename_fields": {"levelname": "level", "name": "logger"},
                    "timestamp": True,
                    "json_ensure_ascii": False,
                }
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
            "root": {"level": level.upper(), "handlers": ["stderr"]},
            "loggers": {
                # One line a request is written by the gateway itself, with more in it.
                "uvicorn.access": {"handlers": [], "propagate": False}
            },
        }
    )
