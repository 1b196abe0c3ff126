"""A gateway that may fetch pictures from this machine, which stands for the Internet in the proof."""

from __future__ import annotations

import signal
import sys
from ipaddress import ip_address

import uvicorn
from prometheus_client import start_http_server

from gateway.app import create_app
from gateway.images.addresses import is_public
from gateway.settings import load
from gateway.telemetry import configure_logging

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = load()
    configure_logging(settings.log_level)
    start_http_server(settings.metrics_port, "127.0.0.1")
    app = create_app(
        settings, image_address_allowed=lambda address: address == ip_address("127.0.0.1") or is_public(address)
    )
    uvicorn.run(app, port=settings.port, loop="uvloop", http="httptools", log_config=None, access_log=False)
