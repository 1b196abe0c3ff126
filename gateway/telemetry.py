"""Every metric and the log format. Labels are bounded; no prompt, key or address becomes one."""

from __future__ import annotations

import logging
import logging.config
import math
import os
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from gateway.log_lines import BatchHandler
from gateway.metric_kinds import BoundedLabel, Count, Level

LATENCY_BUCKETS_S = (0.005, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 20, 30, 60, 120)
"""Dense from 50 ms to 60 s, where generations lie; below are cache hits. 2.5 s is the objective of the first token."""
TOKEN_BUCKETS_S = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Between two tokens: people read about 20 a second; seconds are a stall."""
LAG_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
"""50 ms is where a client would notice."""
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR" in os.environ
"""Several workers count in files; prometheus-client decides that at its import."""
STEP_BUCKETS_S = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60)
"""From a key lookup to a generation."""
MAX_TENANT_LABELS = 50
"""Until GATEWAY_METRICS_MAX_TENANTS says otherwise."""

REQUESTS = Counter("gateway_requests", "Requests answered.", ("operation", "status", "cache"))
ERRORS = Counter(
    "gateway_request_errors",
    "Requests that ended with an error, by whose fault it is and what it was.",
    ("operation", "error_class", "error_type"),
)
STREAMS_BROKEN = Counter(
    "gateway_streams_broken", "Streams that an engine broke off after their status had gone out.", ("error_type",)
)
# Names, units and meanings of OpenTelemetry's semantic conventions for generative AI (model server metrics).
LATENCY = Histogram(
    "gen_ai_server_request_duration_seconds",
    "From the first byte in to the last byte out; error_type is empty for what went well.",
    ("gen_ai_operation_name", "error_type"),
    buckets=LATENCY_BUCKETS_S,
)
FIRST_TOKEN = Histogram(
    "gen_ai_server_time_to_first_token_seconds",
    "From the first byte in to the first event out, of streams.",
    ("gen_ai_operation_name", "cache"),
    buckets=LATENCY_BUCKETS_S,
)
PER_TOKEN = Histogram(
    "gen_ai_server_time_per_output_token_seconds",
    "Mean time between two events of a stream by an engine, which are tokens unless the engine sends several at once.",
    ("gen_ai_operation_name",),
    buckets=TOKEN_BUCKETS_S,
)
LONGEST_GAP = Histogram(
    "gateway_stream_longest_gap_seconds",
    "The longest silence within a stream by an engine, after its first event: a stall that a mean hides.",
    ("gen_ai_operation_name",),
    buckets=TOKEN_BUCKETS_S,
)
STEPS = Histogram(
    "gateway_step_duration_seconds", "Time of one step of the pipeline.", ("step",), buckets=STEP_BUCKETS_S
)
IN_FLIGHT = Gauge("gateway_in_flight_requests", "Requests being answered.", multiprocess_mode="livesum")
TENANT_REQUESTS = Counter("gateway_tenant_requests", "Requests by tenant.", ("tenant", "outcome", "cache"))
TOKENS = Counter(
    "gateway_tokens",
    "Tokens by tenant: input (pictures included) and output as the engine counted them, image as the gateway did.",
    ("tenant", "gen_ai_token_type"),
)
TENANT_IMAGES = Counter("gateway_tenant_images", "Pictures of requests that an engine was asked about.", ("tenant",))
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
ENGINE_EJECTIONS = Counter("gateway_engine_ejections", "Times that an engine was taken out.", ("engine",))
DISCONNECTS = Counter(
    "gateway_client_disconnects", "Clients that left before their answer was complete.", ("operation",)
)
CACHE_ERRORS = Counter(
    "gateway_cache_errors", "Shared cache operations that failed; the request went on.", ("operation",)
)
JOINED = Counter("gateway_cache_joined_requests", "Requests that shared an answer that was already under way.")
CACHE_BYTES = Gauge(
    "gateway_cache_bytes",
    "Memory that the caches take: answers, pictures as fetched, pictures as shrunk.",
    ("cache",),
    multiprocess_mode="livesum",
)
CACHE_ENTRIES = Gauge(
    "gateway_cache_entries", "Entries of the caches in memory.", ("cache",), multiprocess_mode="livesum"
)
CACHE_EVICTIONS = Counter("gateway_cache_evictions", "Entries pushed out of memory to make room.", ("cache",))
IMAGES = Counter("gateway_images", "Pictures taken in, by what became of them.", ("outcome",))
ENGINE_PICTURES = Counter(
    "gateway_engine_pictures",
    "Pictures that engines were asked about: sent, or only named, as the engine has them; forgotten: named in vain.",
    ("outcome",),
)
IMAGE_FETCHES = Counter("gateway_image_fetches", "Pictures by URL, by what became of them.", ("outcome",))
IMAGE_FETCH_SECONDS = Histogram(
    "gateway_image_fetch_seconds",
    "Time of one picture's download, or of asking whether it has changed; kept pictures do not count.",
    buckets=LATENCY_BUCKETS_S,
)
IMAGE_DECODE_BYTES = Gauge(
    "gateway_image_decode_bytes", "Memory that decoders hold, as estimated.", multiprocess_mode="livesum"
)
LOOP_LAG = Histogram(
    "gateway_event_loop_lag_seconds",
    "How late the event loop runs what is due: the longest time that nothing else could run.",
    buckets=LAG_BUCKETS_S,
)
LOOP_OWN_LAG = Histogram(
    "gateway_event_loop_own_lag_seconds",
    "The same without the time in which the loop could have run and the kernel had no core for it.",
    buckets=LAG_BUCKETS_S,
)
LOOP_LAG_MAX = Gauge(
    "gateway_event_loop_lag_max_seconds",
    "The longest lag of the last 15 to 30 seconds: the whole of it, and the gateway's own part.",
    ("part",),
    multiprocess_mode="livemax",
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
KEY_NEXT_EXPIRY = Gauge(
    "gateway_key_next_expiry_timestamp_seconds",
    "When the next key expires that is still valid, since the epoch; +Inf when none does.",
    multiprocess_mode="livemax",  # the workers agree; the parent process has never looked
)
BUILD_INFO = Gauge(
    "gateway_build_info",
    "1, with what runs: the gateway's version and commit, and the weights' revision.",
    ("version", "revision", "model_revision"),
    multiprocess_mode="livemax",
)
STARTED = Gauge(
    "gateway_start_time_seconds", "When the youngest worker started, since the epoch.", multiprocess_mode="livemax"
)
WORKERS = Gauge("gateway_workers", "Worker processes that answer.", multiprocess_mode="livesum")
RESIDENT_BYTES = Gauge("gateway_resident_memory_bytes", "Memory of all workers.", multiprocess_mode="livesum")
CPU_SECONDS = Counter("gateway_cpu_seconds", "Processor time of all workers.")

for _counter, _series in (
    # There from the start: `rate` sees no increase in a series' first value, so a first error would go unnoticed.
    (STREAMS_BROKEN, (("engine_error",), ("engine_timeout",))),
    (CACHE_ERRORS, (("get",), ("put",))),
    (ENGINE_PICTURES, (("sent",), ("named",), ("forgotten",))),
    (IMAGE_FETCHES, (("fetched",), ("fresh",), ("revalidated",), ("failed",))),
    (AUDIT_DROPPED, (("queue_full",), ("error",))),
    (LIMITS_REFUSED, (("requests",), ("tokens",), ("concurrency",), ("daily_tokens",))),
    (QUEUE_REFUSED, tuple((p, r) for p in ("interactive", "default", "bulk") for r in ("full", "deadline"))),
):
    for _values in _series:
        _counter.labels(*_values)
for _priority in ("interactive", "default", "bulk"):
    QUEUE_DEPTH.labels(_priority)

TENANT = BoundedLabel(MAX_TENANT_LABELS)
"""A tenant's label."""
REQUESTS_UNDER_WAY = Level(IN_FLIGHT)
REQUESTS_JOINED = Count(JOINED)

ACCESS = logging.getLogger("gateway.access")


def log_request(facts: dict[str, Any]) -> None:
    """The one line of a request, past the logging module where its handler is known: half of the cost was there."""
    if ACCESS.isEnabledFor(logging.INFO):
        handlers = logging.root.handlers
        if len(handlers) == 1 and isinstance(handler := handlers[0], BatchHandler):
            handler.write(ACCESS.name, "request", facts)
        else:
            ACCESS.info("request", extra=facts)


def forget_engine(url: str) -> None:
    """Drop the gauges of an engine whose address is gone for good."""
    for gauge in (ENGINE_UP, ENGINE_IN_FLIGHT):
        if MULTIPROCESS:
            gauge.labels(url).set(math.nan)  # From the files that workers share nothing can be removed.
        else:
            gauge.remove(url)


def configure_logging(level: str) -> None:
    """Send every log line to standard error as one JSON object; call once per process."""
    # Found out for each record, and never shown: the stack is walked for the first of them.
    logging._srcfile = None  # noqa: SLF001 - as the logging HOWTO says under "Optimization"
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": {"()": "gateway.log_lines.JsonFormatter"}},
            "handlers": {"stderr": {"class": "gateway.log_lines.BatchHandler", "formatter": "json"}},
            "root": {"level": level.upper(), "handlers": ["stderr"]},
            "loggers": {
                # One line a request is written by the gateway itself, with more in it.
                "uvicorn.access": {"handlers": [], "propagate": False}
            },
        }
    )
