"""Does it stay as it is: memory over thousands of pictures, and the event loop under large bodies."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
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

    from loadtest.images.stack import Side

HISTOGRAMS = {"whole": "gateway_event_loop_lag_seconds", "own": "gateway_event_loop_own_lag_seconds"}
LATE_S = 0.05
QUIET_S = 0.02
NICENESS = 10


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
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)

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


@dataclass
class Lag:
    """How late the gateway's event loop was, by its own metrics; `own`: without what the kernel had no core for."""

    looks: int
    late: dict[str, int]
    """How many looks were later than LATE_S: whole, own."""
    longest_s: dict[str, float]
    rate: float
    """Requests per second meanwhile."""


def scraped(metrics_url: str) -> dict[str, float]:
    """Every sample by its name and labels."""
    with urllib.request.urlopen(metrics_url) as response:
        lines = response.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


def longest(samples: dict[str, float]) -> dict[str, float]:
    """The longest lags of the last 15 to 30 seconds."""
    return {part: samples[f'gateway_event_loop_lag_max_seconds{{part="{part}"}}'] for part in HISTOGRAMS}


def loop_lag(pictures: list[bytes], *, at_once: int = 64, rounds: int = 3) -> Lag:
    """What the loop's lag was while `at_once` clients send large pictures.

    Clients and engine have a lower priority than the gateway: they stand for other machines, and take its cores.
    """
    engine = InstantEngine()
    bodies = [body(picture, "What is this?") for picture in pictures]
    found: list[float] = []
    worst = dict.fromkeys(HISTOGRAMS, 0.0)

    def load(side: Side) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        found.extend(asyncio.run(rate(side, bodies, clients=at_once)) for _ in range(rounds))

    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        # The engine shares a process with the clients: that it answers late is no reason to take it out.
        gateway(Path(folder), engine.url, engine_probe_timeout_s="30") as (side, _, metrics_url),
        ThreadPoolExecutor(1) as clients,
    ):
        while max(longest(scraped(metrics_url)).values()) > QUIET_S:
            time.sleep(1)  # the start is not what is measured
        before = scraped(metrics_url)
        job = clients.submit(load, side)
        while not job.done():
            wait([job], timeout=5)
            worst = {part: max(worst[part], now) for part, now in longest(scraped(metrics_url)).items()}
        job.result()
        after = scraped(metrics_url)

    def counted(part: str, le: str) -> int:
        name = f'{HISTOGRAMS[part]}_bucket{{le="{le}"}}'
        return int(after[name] - before[name])

    late = {part: counted(part, "+Inf") - counted(part, str(LATE_S)) for part in HISTOGRAMS}
    return Lag(counted("whole", "+Inf"), late, worst, sum(found) / rounds)
