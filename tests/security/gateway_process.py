"""A gateway process that may fetch from 127.0.0.1, which stands for the Internet. Settings come from the environment.

`python -m tests.security.gateway_process` listens on GATEWAY_PORT; nothing but the address policy differs from `serve`.
"""

from __future__ import annotations

import signal
import sys
from ipaddress import ip_address

import uvicorn

from gateway.app import create_app
from gateway.images.addresses import is_public
from gateway.settings import load
from gateway.telemetry import configure_logging

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # as in serve: uvicorn raises it again once it has drained
    settings = load()
    configure_logging(settings.log_level)
    app = create_app(
        settings, image_address_allowed=lambda address: address == ip_address("127.0.0.1") or is_public(address)
    )
    # Idle connections live as long as in `serve`: a pooled one that closes just when it is used again looks like a crash.
    uvicorn.run(
        app,
        port=settings.port,
        loop="uvloop",
        http="gateway.http_server:ServerProtocol",
        log_config=None,
        access_log=False,
        timeout_keep_alive=75,
    )
