"""Gateways and a simulated engine as processes of their own: for start and end, for scale, for several replicas."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

import httpx

from tests.support.demo import die_with_parent
from tests.support.gateway import KEY, key_record, write_keys
from tests.support.ports import free_port, free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 60.0


class Child:
    """`python -m …` with its output in a file; stopped at the end, and when the tests die."""

    def __init__(self, argv: list[str], log: Path, **environ: str) -> None:
        self.argv, self.log, self.environ = argv, log, environ
        self.start()

    def start(self) -> None:
        """Start it; again, after it has ended: the log goes on."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.argv],
                env=clean | self.environ,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one call into libc, no locks
            )

    async def answers(self, url: str) -> None:
        """Wait until something answers at `url`; fail with the output when the process has ended."""
        end = time.monotonic() + START_DEADLINE_S
        async with httpx.AsyncClient(timeout=5) as http:
            while True:
                assert self.process.poll() is None, self.log.read_text()[-4000:]
                assert time.monotonic() < end, self.log.read_text()[-4000:]
                with contextlib.suppress(httpx.TransportError):
                    await http.get(url)
                    return
                await asyncio.sleep(0.02)

    async def ended(self, timeout_s: float = STOP_DEADLINE_S) -> int:
        """The exit code; one that does not end in time is killed, and that is a failure."""
        try:
            return await asyncio.to_thread(self.process.wait, timeout_s)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                await asyncio.to_thread(self.process.wait, STOP_DEADLINE_S)

    async def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        await self.ended()


class SimulatedEngine(Child):
    """See simulated_engine.py; `latency_s` can be changed while it runs."""

    def __init__(self, folder: Path, *, latency_s: float = 0.0) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        argv = ["tests.support.simulated_engine", "--port", str(self.port), "--latency-s", str(latency_s)]
        super().__init__(argv, folder / f"engine-{self.port}.log")

    async def asked(self) -> dict[str, Any]:
        """What it was asked since the last time."""
        async with httpx.AsyncClient(timeout=20) as http:
            response = await http.post(self.url + "/asked")
            return json.loads(response.content)


class GatewayProcess(Child):
    """`python -m gateway serve`; `settings` are fields of Settings. Use as `async with`, or start and stop it by hand.

    Without `keys` it knows one key, KEY of the tenant `one`, and `http` is a client with that key.
    """

    def __init__(self, folder: Path, engine_url: str, keys: Path | None = None, **settings: Any) -> None:
        keys = keys or write_keys(folder / "keys.json", key_record(KEY, "one"))
        port, metrics_port = free_ports(2)
        # No balancer has to notice that it goes, unless a test has one.
        defaults = {"port": port, "metrics_port": metrics_port, "engines": engine_url, "keys_file": keys}
        settings = defaults | {"drain_delay_s": 0} | settings
        self.port, self.metrics_port = settings["port"], settings["metrics_port"]
        self.url = f"http://127.0.0.1:{self.port}"
        self.metrics_url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        self.http = httpx.AsyncClient(base_url=self.url, headers={"authorization": f"Bearer {KEY}"}, timeout=10)
        super().__init__(
            ["gateway", "serve"],
            folder / f"gateway-{port}.log",
            **{f"GATEWAY_{name.upper()}": str(value) for name, value in settings.items()},
        )

    async def __aenter__(self) -> Self:
        try:
            await self.answers(self.url + "/healthz")
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()
        await self.stop()

    async def metrics(self) -> str:
        async with httpx.AsyncClient(timeout=20) as http:
            return (await http.get(self.metrics_url)).text

    async def samples(self, name: str) -> list[tuple[str, float]]:
        """A metric's samples: labels as they are written, and the value."""
        text = await self.metrics()
        lines = [line.rpartition(" ") for line in text.splitlines() if line.partition(" ")[0].partition("{")[0] == name]
        return [(labelled.removeprefix(name), float(value)) for labelled, _, value in lines]

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(value for found, value in await self.samples(name) if all(label in found for label in wanted))

    async def statuses(self, path: str) -> Counter[int]:
        """How many requests to `path` it has answered, by status."""
        counted: Counter[int] = Counter()
        for labels, value in await self.samples("gateway_requests_total"):
            if f'operation="{path}"' in labels:
                counted[int(labels.partition('status="')[2][:3])] += int(value)
        return counted


@contextlib.asynccontextmanager
async def engine_process(folder: Path, **options: Any) -> AsyncIterator[SimulatedEngine]:
    engine = SimulatedEngine(folder, **options)
    try:
        await engine.answers(engine.url + "/health")
        yield engine
    finally:
        await engine.stop()


@contextlib.asynccontextmanager
async def gateway_processes(
    folder: Path, count: int, engine_url: str, keys: Path, **settings: Any
) -> AsyncIterator[list[GatewayProcess]]:
    """Replicas that start at once and end at once. They do not probe: it would be counted among the engine's requests."""
    settings = {"engine_probe_interval_s": 0, "log_level": "warning", "tenant_secret": "s"} | settings
    gateways = [GatewayProcess(folder, engine_url, keys, **settings) for _ in range(count)]
    try:
        await asyncio.gather(*(gateway.answers(gateway.url + "/healthz") for gateway in gateways))
        yield gateways
    finally:
        await asyncio.gather(*(gateway.__aexit__() for gateway in gateways))
