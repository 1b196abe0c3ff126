"""`make soak-gateway`: looks whether the gateway's memory stays flat over a million requests, or over half an hour.

    python -m loadtest.soak_gateway [--requests 1000000] [--limit-mib 1]
    python -m loadtest.soak_gateway --minutes 30 --load 0.8

One worker with every feature on, on a core of its own; load generator and simulated engine in C share the last one
(loadtest/gateway_bench). New questions, repeated ones, streams and pictures are asked at the same time, every answer is
checked, and resident memory is looked at after each turn. `--load 0.8` keeps the gateway's core 80 % busy: how long the
engine takes is set anew after each turn; without it clients ask as fast as they are answered.

The cache for answers is small here (`--cache-mib`), so that it is full when the warm-up ends: filling up to a bound is
no leak. Exit code 1: memory grows by more than `--limit-mib` per 100,000 requests after the warm-up, or a reply was
wrong; 2: it cannot run.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from loadtest.gateway_bench import processes
from loadtest.gateway_bench.processes import MIB, BenchError
from loadtest.gateway_bench.targets import KEY, ROOT, Ports, ours
from loadtest.gateway_bench.workloads import Workload, bodies_of, body_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psutil

MISSED, MISUSED = 1, 2
CACHE = ROOT / ".cache" / "bench-gateway"
TURN_S = 5.0
WARM_SHARE = 0.2
"""Of the run, before memory must be flat: pools, caches and the allocator's own reserve fill."""
UNIT = 100_000
POINTS = 24
HITS_SHARE = 0.25
"""Of a turn, in which repeated questions are asked: no engine slows them down, so they would be most requests."""
FIRST_ENGINE_US, LEAST_US, MOST_US = 20_000, 100, 10_000_000
MIX = (
    Workload("miss", 16),
    Workload("stream", 8, stream=True, tokens=16),
    Workload("picture", 1, picture_bytes=MIB // 4),
    Workload("hit", 4, distinct=64),
)


@dataclass(frozen=True)
class Sample:
    """After a turn: requests answered since the start, seconds, and the gateway's resident memory."""

    requests: int
    at_s: float
    mib: float


@dataclass
class Soak:
    """A run's state."""

    gateway: psutil.Popen
    ports: Ports
    folder: Path
    programs: Path
    core: int
    load: float | None
    samples: list[Sample] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    busy: list[float] = field(default_factory=list)
    """Of the gateway's core, by turn."""
    engine_us: float = 0
    requests: int = 0

    def turn(self) -> None:
        """Ask everything for TURN_S. Raises BenchError when a reply is wrong."""
        before, began = processes.cpu_s(self.gateway.pid), time.monotonic()
        with ThreadPoolExecutor(len(MIX)) as together:
            found = list(together.map(self._ask, MIX))
        spent, lasted_s = processes.cpu_s(self.gateway.pid) - before, time.monotonic() - began
        for workload, of in zip(MIX, found, strict=True):
            if of["failed"]:
                raise BenchError(
                    f"{workload.name}: {of['failed']} replies were wrong or missing: {of['first_failure']}"
                )
            self.counts[workload.name] = self.counts.get(workload.name, 0) + int(of["ok"])
            self.requests += int(of["ok"])
        self.busy.append(spent / lasted_s)
        if self.load is not None:
            self.engine_us = min(MOST_US, max(LEAST_US, self.engine_us * self.busy[-1] / self.load))

    def _ask(self, workload: Workload) -> dict[str, float | str]:
        seconds = TURN_S * (HITS_SHARE if workload.distinct else 1)
        told = dataclasses.replace(workload, ttft_us=round(self.engine_us) if not workload.distinct else 0)
        folder = self.folder / workload.name
        folder.mkdir(exist_ok=True)
        paths = []
        for number, body in enumerate(bodies_of(told)):
            paths.append(folder / f"{number}.json")
            paths[-1].write_bytes(body)
        argv = [self.programs / "load", self.ports.gateway, KEY, told.clients, seconds, told.distinct,
                int(told.stream), told.tokens, *paths]  # fmt: skip
        return processes.generate([str(word) for word in argv], self.core, seconds, folder)

    def look(self, at_s: float) -> Sample:
        """Take a sample."""
        self.samples.append(Sample(self.requests, at_s, processes.memory_mib(self.gateway.pid)))
        return self.samples[-1]


def growth_mib(samples: Sequence[Sample], warm_requests: float) -> float:
    """MiB per 100,000 requests after the warm-up: the median of the slopes between medians (Theil and Sen).

    NaN for fewer than four samples.
    """
    settled = [sample for sample in samples if sample.requests >= warm_requests]
    length = max(1, len(settled) // POINTS)
    points = []
    for start in range(0, len(settled) - length + 1, length):
        stretch = settled[start : start + length]
        points.append((stretch[length // 2].requests, median(sample.mib for sample in stretch)))
    slopes = [(y - v) / (x - u) * UNIT for at, (x, y) in enumerate(points) for u, v in points[:at] if x > u]
    return median(slopes) if len(points) >= 4 else math.nan  # noqa: PLR2004 - fewer are no line


def by_unit(samples: Sequence[Sample], parts: int = 10) -> str:
    """The table: memory by requests, in so many lines."""
    rows = ["| requests | seconds | RSS MiB |", "| --: | --: | --: |"]
    for part in range(1, parts + 1):
        wanted = samples[-1].requests * part / parts
        sample = min(samples, key=lambda each: abs(each.requests - wanted))
        rows.append(f"| {sample.requests:,} | {sample.at_s:,.0f} | {sample.mib:.1f} |")
    return "\n".join(rows)


def soak(arguments: argparse.Namespace, folder: Path) -> tuple[Soak, float]:
    """Start everything, ask, stop; the run and its length in seconds. Raises BenchError."""
    ports = Ports(arguments.port, arguments.engine_port)
    for port in (ports.engine, ports.gateway, ports.metrics):
        processes.check_free(port)
    cores = sorted(os.sched_getaffinity(0))
    CACHE.mkdir(parents=True, exist_ok=True)
    engine_program = processes.build("engine", CACHE)
    processes.build("load", CACHE)
    engine = processes.start([str(engine_program), str(ports.engine)], cores[-1:], {}, folder / "engine.log", ROOT)
    command = ours().command(ports, folder)
    # A record is some 400 bytes: a million would be a file of 400 MB. So the rotation is part of what is soaked.
    bounds = {"GATEWAY_CACHE_MAX_BYTES": arguments.cache_mib * MIB, "GATEWAY_AUDIT_MAX_BYTES": 16 * MIB}
    env = {**command.env, **{name: str(value) for name, value in bounds.items()}}
    log = folder / "gateway.log"
    gateway = processes.start(command.argv, cores[:1], env, log, folder)
    try:
        processes.wait_ready(ports.gateway, KEY, body_of(MIX[0]), gateway, log)
        run = Soak(gateway, ports, folder, CACHE, cores[-1], arguments.load)
        run.engine_us = FIRST_ENGINE_US if arguments.load is not None else 0
        lasted_s = _until_the_end(run, arguments)
    finally:
        processes.stop(gateway)
        processes.stop(engine)
    return run, lasted_s


def _until_the_end(run: Soak, arguments: argparse.Namespace) -> float:
    began = time.monotonic()
    run.look(0.0)
    said = 0.0
    while True:
        run.turn()
        at_s = time.monotonic() - began
        sample = run.look(at_s)
        done = at_s / 60 / arguments.minutes if arguments.minutes else sample.requests / arguments.requests
        if at_s - said >= arguments.say_every_s or done >= 1:
            said = at_s
            print(
                f"{min(done, 1):4.0%}  {sample.requests:>9,} requests  {at_s:6.0f} s  {sample.mib:6.1f} MiB  "
                f"core {run.busy[-1]:.0%} busy",
                flush=True,
            )
        if done >= 1:
            return at_s


def main(argv: Sequence[str] | None = None) -> int:
    """Run and judge; see the module's exit codes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, help="instead of a number of requests")
    parser.add_argument("--load", type=float, metavar="SHARE", help="keep the gateway's core so busy, for example 0.8")
    parser.add_argument(
        "--limit-mib", type=float, default=1.0, help="growth per 100,000 requests: 1 MiB is 10 bytes each"
    )
    parser.add_argument("--cache-mib", type=int, default=8, help="bound of the cache for answers")
    parser.add_argument("--port", type=int, default=9300, help="of the gateway; the next one is for metrics")
    parser.add_argument("--engine-port", type=int, default=9302)
    parser.add_argument("--say-every-s", type=float, default=15.0)
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(MISUSED))  # so that what was started is stopped
    try:
        with tempfile.TemporaryDirectory(prefix="soak-gateway-") as folder:
            run, lasted_s = soak(arguments, Path(folder))
    except BenchError as exc:
        print(exc, file=sys.stderr)
        return MISSED if "replies were wrong" in str(exc) else MISUSED
    return judge(run, lasted_s, arguments.limit_mib)


def judge(run: Soak, lasted_s: float, limit_mib: float) -> int:
    """Print the table and the verdict; the exit code."""
    grown = growth_mib(run.samples, run.requests * WARM_SHARE)
    mix = ", ".join(f"{count:,} {name}" for name, count in run.counts.items())
    settled = [sample.mib for sample in run.samples if sample.requests >= run.requests * WARM_SHARE]
    print(f"\n{by_unit(run.samples)}\n")
    print(f"{run.requests:,} requests in {lasted_s:,.0f} s ({mix}), every answer right.")
    print(f"The gateway's core was {median(run.busy):.0%} busy (median of turns).")
    print(
        f"RSS {run.samples[0].mib:.1f} MiB idle; after the warm-up between {min(settled):.1f} and {max(settled):.1f}."
    )
    if math.isnan(grown):
        print("Too short: fewer than four looks after the warm-up.")
        return MISUSED
    flat = grown <= limit_mib
    print(
        f"{'flat' if flat else 'GROWS'}: {grown:+.2f} MiB per 100,000 requests after the warm-up "
        f"(at most {limit_mib:g}), that is {grown * MIB / UNIT:+.1f} bytes a request"
    )
    return 0 if flat else MISSED


if __name__ == "__main__":
    sys.exit(main())
