"""`python -m gateway serve` as a process."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

import httpx

from tests.support.gateway import KEY, key_record, write_keys


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    """`python -m gateway serve` with its log kept."""

    def __init__(self, tmp_path, engine_url, **settings):
        self.port, self.metrics_port = free_port(), free_port()
        self.log = tmp_path / "gateway.log"
        keys = write_keys(tmp_path / "keys.json", key_record(KEY, "one"))
        environ = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        environ |= {
            "GATEWAY_PORT": str(self.port),
            "GATEWAY_METRICS_PORT": str(self.metrics_port),
            "GATEWAY_ENGINES": engine_url,
            "GATEWAY_KEYS_FILE": str(keys),
        }
        environ |= {f"GATEWAY_{name.upper()}": str(value) for name, value in settings.items()}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "serve"], env=environ, stdout=log, stderr=log
            )
        self.http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}", headers={"authorization": f"Bearer {KEY}"}, timeout=10
        )

    async def __aenter__(self):
        async with asyncio.timeout(30):
            while True:
                assert self.process.poll() is None, self.log.read_text()
                try:
                    await self.http.get("/healthz")
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
                else:
                    return self

    async def __aexit__(self, *_):
        await self.http.aclose()
        if self.process.poll() is None:
            self.process.terminate()
        await asyncio.to_thread(self.process.wait, 20)

    async def metrics(self):
        async with httpx.AsyncClient() as http:
            return (await http.get(f"http://127.0.0.1:{self.metrics_port}/metrics")).text
