"""Does it stay as it is: memory over thousands of pictures, and the event loop under large bodies."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from gateway.malloc import keep_large_blocks
from loadtest.images.rates import body, rate
from loadtest.images.shrinkers import by_libvips, rss_mib
from loadtest.images.stack import free_port, gateway

if TYPE_CHECKING:
    from collections.abc import Iterator

LAG = "gateway_event_loop_lag_seconds_bucket"


def memory_growth(pictures: Iterator[bytes], *, count: int, step: int = 1000) -> list[float]:
    """Memory of a process after each `step` of `count` pictures, in MiB; threads and allocator as in the gateway."""
    keep_large_blocks()
    kept = list(islice(pictures, 60))
    found = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in range(count // step):
            for _ in pool.map(lambda n: len(by_libvips(kept[n % len(kept)])), range(step)):
                pass
            found.append(rss_mib())
    return found


class InstantEngine:
    """Answers at once, in a thread and on an event loop of its own: the gateway is all that is measured."""

    def __init__(self) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._run, args=(port,), daemon=True).start()

    def _run(self, port: int) -> None:
        async def answer(_: web.Request) -> web.Response:
            return web.json_response({"choices": [{"message": {"role": "assistant", "content": "ok"}}]})

        app = web.Application(client_max_size=1 << 28)
        app.router.add_post("/v1/chat/completions", answer)
        app.router.add_get("/health", lambda _: asyncio.sleep(0, web.Response()))
        runner = web.AppRunner(app, access_log=None)
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(runner.setup())
        self._loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", port).start())
        self._loop.run_forever()


def buckets(metrics_url: str) -> dict[float, float]:
    """How often the loop was at most so late (seconds), from the gateway's own metric."""
    with urllib.request.urlopen(metrics_url) as response:
        lines = response.read().decode().splitlines()
    return {
        float(line.split('le="')[1].split('"')[0]): float(line.split()[-1]) for line in lines if line.startswith(LAG)
    }


def loop_lag(pictures: list[bytes], *, at_once: int = 64, rounds: int = 3) -> tuple[dict[float, float], float]:
    """What the loop's lag was while `at_once` clients send large pictures, by bucket; and requests per second."""
    engine = InstantEngine()
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        gateway(Path(folder), engine.url) as (side, _, metrics_url),
    ):
        before = buckets(metrics_url)
        bodies = [body(picture, "What is this?") for picture in pictures]
        found = [asyncio.run(rate(side, bodies, clients=at_once)) for _ in range(rounds)]
        after = buckets(metrics_url)
    return {le: after[le] - before[le] for le in after}, sum(found) / rounds
