"""Settings to running processes: the workers, and the metrics on a port of their own."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from gateway.settings import PREFIX

if TYPE_CHECKING:
    from gateway.settings import Settings

EX_CONFIG = 78
EX_BUSY = 3
"""What uvicorn ends with when the API's port is in use."""


def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; requests in flight then have `shutdown_grace_s` to finish."""
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
        KeyFile(settings.keys_file)
        if settings.redis_url is not None:
            RedisStore(settings.redis_url.get_secret_value())
    except (KeyFileError, ValueError) as exc:
        print(f"The gateway cannot start:\n{exc}", file=sys.stderr)
        return EX_CONFIG
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
        uvicorn.run(
            "gateway.app:from_environment",
            factory=True,
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=int(settings.shutdown_grace_s),
        )
    finally:
        metrics.shutdown()
    return 0
