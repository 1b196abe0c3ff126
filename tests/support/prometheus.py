"""A real Prometheus that scrapes what a test runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import urllib.request
from typing import TYPE_CHECKING

from gateway.prometheus_api import Prometheus
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@contextlib.asynccontextmanager
async def scraping(folder: Path, targets: dict[str, int], **more: object) -> AsyncIterator[tuple[str, Prometheus]]:
    """URL and API of a server that scrapes each port on loopback; `more` goes into its configuration."""
    url = f"http://127.0.0.1:{free_port()}"
    jobs = [{"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]} for job, port in targets.items()]
    timing = {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "200ms"}
    config = folder / "prometheus.yaml"
    config.write_text(json.dumps({"global": timing, "scrape_configs": jobs, **more}))
    argv = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address={url[7:]}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(["prometheus", *argv], stdout=log, stderr=log)  # noqa: ASYNC220 - a test may wait
    try:
        async with asyncio.timeout(30):
            while not await asyncio.to_thread(_ready, url):
                assert process.poll() is None, (folder / "prometheus.log").read_text()
                await asyncio.sleep(0.05)
        yield url, Prometheus(url)
    finally:
        process.kill()
        await asyncio.to_thread(process.wait, 20)


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=2):
            return True
    except OSError:
        return False
