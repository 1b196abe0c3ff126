"""Settings to running processes: the workers, and the metrics on a port of their own."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from gateway.settings import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable

    import uvicorn

    from gateway.key_ring import Key
    from gateway.settings import Settings

log = logging.getLogger(__name__)

EX_CONFIG = 78
LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests", "tokens_per_day")
"""Limits that are counted, by their names in the settings and of a key."""
EX_BUSY = 3
"""What uvicorn ends with when the API's port is in use."""
WORKERS_STOP_S = 0.5
"""From the end of a worker's delay until it listens no more, at most; uvicorn looks ten times a second."""


def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT: unready for `drain_delay_s`, then `drain_timeout_s` for requests in flight."""
    for stop in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again once it has drained: a clean end is exit code 0, not death by signal.
        signal.signal(stop, lambda *_: sys.exit(0))
    if settings.tenant_secret is None:
        # One for all workers: a picture that one of them has sent has the same name when another sends it.
        os.environ[f"{PREFIX}TENANT_SECRET"] = token_hex()
    if settings.workers == 1:
        return _run(settings)
    with tempfile.TemporaryDirectory(prefix="gateway-metrics-") as folder:
        # Read by prometheus_client when it is first imported: each worker then counts in files that /metrics adds up.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        return _run(settings)


def _run(settings: Settings) -> int:
    import uvicorn  # noqa: PLC0415 - after PROMETHEUS_MULTIPROC_DIR
    from prometheus_client import start_http_server  # noqa: PLC0415 - likewise

    from gateway.exposition import registry_for  # noqa: PLC0415 - likewise
    from gateway.keys import KeyFile, KeyFileError  # noqa: PLC0415
    from gateway.stores import RedisStore  # noqa: PLC0415
    from gateway.telemetry import configure_logging  # noqa: PLC0415

    configure_logging(settings.log_level)
    try:
        # What a worker would stumble over, said once and in plain words before there is any.
        keys = KeyFile(settings.keys_file)
        if settings.redis_url is not None:
            RedisStore(settings.redis_url.get_secret_value())
    except (KeyFileError, ValueError) as exc:
        print(f"The gateway cannot start:\n{exc}", file=sys.stderr)
        return EX_CONFIG
    if advice := limits_counted_apart(settings, keys.ring.keys):
        log.warning(advice)
    registry = registry_for(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]) if settings.workers > 1 else None)
    metrics_host = settings.metrics_host or settings.host
    try:
        metrics, _ = start_http_server(settings.metrics_port, metrics_host, registry)
    except OSError as exc:
        print(
            f"Metrics cannot listen on {metrics_host}:{settings.metrics_port} ({exc.strerror}): "
            "stop what uses the port or set GATEWAY_METRICS_PORT.",
            file=sys.stderr,
        )
        return EX_BUSY
    try:
        config = uvicorn.Config(
            "gateway.app:from_environment",
            factory=True,
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            loop="uvloop",
            http="gateway.http_server:ServerProtocol",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=math.ceil(settings.drain_timeout_s),
        )
        if settings.workers > 1:
            _run_workers(config, settings.drain_delay_s)
            return 0
        server = uvicorn.Server(config)
        server.run()
        return 0 if server.started else EX_BUSY
    finally:
        metrics.shutdown()


def _run_workers(config: uvicorn.Config, drain_delay_s: float) -> None:
    from uvicorn.supervisors import Multiprocess  # noqa: PLC0415 - after PROMETHEUS_MULTIPROC_DIR

    class Workers(Multiprocess):
        """uvicorn's, but that it stops listening with its workers."""

        def terminate_all(self) -> None:
            super().terminate_all()
            # The port is this process's as well: while it stays open here, the kernel accepts connections that no
            # worker will ever answer. It closes a moment after the workers have stopped to look at it.
            over = time.monotonic() + drain_delay_s + WORKERS_STOP_S
            while time.monotonic() < over and any(worker.exitcode is None for worker in self.processes):
                time.sleep(0.05)
            for listener in self.sockets:
                with suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)
                listener.close()

    Workers(config, sockets=[config.bind_socket()]).run()


def limits_counted_apart(settings: Settings, keys: Iterable[Key]) -> str | None:
    """What to tell an operator whose limits hold for each worker and not for all of them; None if there is nothing."""
    if settings.workers == 1 or settings.redis_url is not None:
        return None
    of_keys = any(getattr(key, name) for key in keys for name in LIMITS)
    if not of_keys and not any(getattr(settings, name) for name in LIMITS):
        return None
    return (
        f"Each of the {settings.workers} workers counts limits for itself, so that a key may use up to "
        f"{settings.workers} times what it is allowed: set GATEWAY_REDIS_URL, or GATEWAY_WORKERS=1."
    )
