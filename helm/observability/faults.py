"""Four faults, put into the running stack: which alert fires, how soon, and which panel names the cause."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from helm.observability import traffic
from helm.observability.live import filled
from helm.observability.queries import panel_queries
from helm.observability.stack import FETCH_TIMEOUT_S, GRACE_S

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

    from helm.observability.stack import Stack

DEADLINE_S = 60.0
"""Scrape, window and evaluation take seconds; the `for` of production comes on top and is promtool's business."""


PAUSE_S = 0.2


@dataclass(frozen=True)
class Fault:
    """What breaks, who says so, and where one sees why."""

    name: str
    alert: str
    panel: str
    label: dict[str, str]
    """The series of the panel that names the cause: its value grows."""
    inject: Callable[[], Awaitable[None]]
    """Breaks it, and is repeated until the alert fires."""
    repair: Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Seen:
    """What came of a fault."""

    fault: Fault
    alert_s: float | None
    """Seconds until the alert fired; None if it did not in time."""
    before: float
    """What the panel's series said before the fault."""
    panel_value: float | None
    """What it said then, if that was more."""
    others: frozenset[str]
    """Which other alerts fired until then, and not before the fault."""

    def line(self) -> str:
        """One line for people."""
        fired = f"fired after {self.alert_s:4.1f} s" if self.alert_s is not None else "DID NOT FIRE"
        shown = f"{self.before:.2f} to {self.panel_value:.2f}" if self.panel_value is not None else "NOTHING"
        also = f"; also {', '.join(sorted(self.others))}" if self.others else ""
        named = f"panel `{self.fault.panel}` {self.series}: {shown}"
        return f"{self.fault.name:16} {self.fault.alert:14} {fired}; {named}{also}"

    @property
    def series(self) -> str:
        """The series of the panel that names the cause."""
        return ", ".join(f"{name}={value}" for name, value in self.fault.label.items())

    @property
    def ok(self) -> bool:
        """Whether the alert fired and the panel named the cause."""
        return self.alert_s is not None and self.panel_value is not None


def engine_core(stack: Stack) -> list[psutil.Process]:
    """The processes that generate; their parent answers HTTP, so that a hang leaves /health at 200."""
    family = psutil.Process(stack.engine.process.pid).children(recursive=True)
    return [process for process in family if process.status() != psutil.STATUS_ZOMBIE]


class Saboteur:
    """Breaks and mends parts of the stack."""

    def __init__(self, stack: Stack, client: httpx.AsyncClient, model: str) -> None:
        """The engine generates at this moment."""
        self._stack = stack
        self._client = client
        self._model = model
        self._core = engine_core(stack)

    def faults(self) -> list[Fault]:
        """The four, in the order in which the stack survives them; the engine does not survive the last."""
        failed, errors = "Downloads by outcome", "Shared cache and limits: errors"
        causes = "Failures by cause"
        return [
            Fault(
                "slow image host", "ImageHostSlow", failed, {"outcome": "failed"}, self.slow_images, self.fast_images
            ),
            Fault("Redis down", "CacheDown", errors, {"operation": "get"}, self.kill_redis, self.start_redis),
            Fault("engine hung", "EngineHung", causes, {"cause": "hung"}, self.stop_core, self.continue_core),
            Fault("engine killed", "NoEngine", causes, {"cause": "gone"}, self.kill_engine, self.nothing),
        ]

    async def slow_images(self) -> None:
        """Each download takes longer than the gateway waits."""
        self._stack.images.delay_s = 2 * FETCH_TIMEOUT_S
        await asyncio.gather(*(self._ask() for _ in range(20)))

    async def fast_images(self) -> None:
        """The host is well again."""
        self._stack.images.delay_s = 0.0

    async def kill_redis(self) -> None:
        """The process is gone; each request that could use the cache tries it once a second."""
        self._stack.redis.process.kill()
        await self._ask()
        await asyncio.sleep(PAUSE_S)

    async def start_redis(self) -> None:
        """Another one at the same port."""
        self._stack.redis.stop(GRACE_S)
        self._stack.start_redis()

    async def stop_core(self) -> None:
        """It lives, holds its connections, and does nothing."""
        for process in self._core:
            process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(PAUSE_S)

    async def continue_core(self) -> None:
        """It goes on where it stopped; the gateway's probe finds that out."""
        for process in self._core:
            process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(DEADLINE_S):
            while "NoEngine" in await asyncio.to_thread(self._stack.prometheus.firing):  # noqa: ASYNC110 - asks another process
                await asyncio.sleep(PAUSE_S)

    async def kill_engine(self) -> None:
        """vLLM and all its processes are gone."""
        if self._stack.engine.fault is None:
            os.killpg(self._stack.engine.process.pid, signal.SIGKILL)
        await asyncio.sleep(PAUSE_S)

    async def nothing(self) -> None:
        """It was the last fault."""

    async def _ask(self) -> None:
        url = f"{self._stack.images.url}/{time.monotonic_ns()}.jpg"
        await self._client.post(traffic.CHAT, json=traffic.chat(self._model, url, temperature=0))


async def put_in(stack: Stack, fault: Fault) -> Seen:
    """Break it, wait for its alert, look at its panel, mend it."""
    await quiet(stack, fault.alert)
    before, fired_before = panel_value(stack, fault), stack.prometheus.firing()
    others: set[str] = set()
    began = time.monotonic()
    alert_s: float | None = None
    grown = None
    while (alert_s is None or grown is None) and time.monotonic() - began < DEADLINE_S:
        await fault.inject()
        firing = stack.prometheus.firing()
        others |= firing - fired_before - {fault.alert}
        if alert_s is None and fault.alert in firing:
            alert_s = time.monotonic() - began
        value = panel_value(stack, fault)
        grown = value if value > before else None
    await fault.repair()
    return Seen(fault, alert_s, before, grown, frozenset(others))


async def quiet(stack: Stack, alert: str) -> None:
    """Return once the alert does not fire: what fires before a fault proves nothing of it. Raises TimeoutError."""
    async with asyncio.timeout(DEADLINE_S):
        while alert in await asyncio.to_thread(stack.prometheus.firing):  # noqa: ASYNC110 - asks another process
            await asyncio.sleep(PAUSE_S)


def panel_value(stack: Stack, fault: Fault) -> float:
    """The value of the series that names the cause; 0 without one."""
    values = [
        series.last
        for query in panel_queries()
        if query.where.endswith(f"/ {fault.panel}")
        for series in stack.prometheus.query(filled(query.expr))
        if fault.label.items() <= series.labels.items()
    ]
    return max(values, default=0.0)
